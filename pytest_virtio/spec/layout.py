"""Structures as the specification draws them: frozen records whose fields say how wide they are.

Responsible for turning such a record into bytes and back, in either byte order; must not know any one structure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Annotated, Any, Literal, NoReturn, Self, dataclass_transform, get_args, get_type_hints

from pytest_virtio.errors import UsageError

__all__ = ("U8", "U16", "U32", "U64", "ByteOrder", "Layout")

ByteOrder = Literal["little", "big"]
"""Modern devices are little-endian throughout; legacy ones have the guest's own order (virtio 1.3 section 2.4.3)."""

U8 = Annotated[int, "B"]
U16 = Annotated[int, "H"]
U32 = Annotated[int, "I"]
U64 = Annotated[int, "Q"]

_ORDER = {"little": "<", "big": ">"}


@dataclass_transform(frozen_default=True)
class Layout:
    """Base of structures. A subclass is written like a frozen dataclass, and is one to type checkers.

    Fields are :data:`U8` … :data:`U64`, ``Annotated[bytes, "6s"]`` with a format of :mod:`struct`, or another layout
    that stands inside; they follow one another without padding, so that what the specification calls padding is a field
    too. An array without a fixed length at the end is no field: :meth:`unpack_all` reads what follows. A field that the
    specification calls as Python or this class calls something else has a ``_`` after its name: ``size_``, ``offset_``.

    :mod:`dataclasses` compiles several functions for each class, 1 ms for each of a hundred structures, in every run.
    """

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        """``kw_only``: fields are given by name, for a field with a default stands before one without."""

    def __init__(self, *args: Any, **values: Any) -> None:
        names = _fields(type(self))
        given = {**dict(zip(names, args, strict=False)), **values}
        missing = [name for name in names if name not in given and not hasattr(type(self), name)]
        if missing or len(given) != len(args) + len(values) or not given.keys() <= names.keys():
            said = ", ".join([*map(repr, args), *values])
            raise TypeError(f"{type(self).__name__}({said}): its fields are {', '.join(names)}")
        vars(self).update({name: given[name] if name in given else getattr(type(self), name) for name in names})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @classmethod
    def size(cls) -> int:
        """How many bytes it takes."""
        return sum(field.width for field in _fields(cls).values())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Its fields, in their order."""
        return tuple(_fields(cls))

    @classmethod
    def offset(cls, field: str) -> int:
        """Where a field begins, in bytes.

        :raises KeyError: for a field that it doesn't have.
        """
        return _fields(cls)[field].offset

    @classmethod
    def width_of(cls, field: str) -> int:
        """How many bytes a field takes.

        :raises KeyError: for a field that it doesn't have.
        """
        return _fields(cls)[field].width

    @classmethod
    def unpack(cls, data: bytes, order: ByteOrder = "little") -> Self:
        """Read it from the beginning of ``data``; what is missing there counts as zeros, for devices leave out the
        tail that their features don't need."""
        whole = data[: cls.size()].ljust(cls.size(), b"\0")
        return cls(**{name: field.read(whole, order) for name, field in _fields(cls).items()})

    @classmethod
    def unpack_all(cls, data: bytes, order: ByteOrder = "little") -> tuple[Self, ...]:
        """Read one after another for as long as ``data`` has a whole one."""
        size = cls.size()
        return tuple(cls.unpack(data[at : at + size], order) for at in range(0, len(data) - size + 1, size))

    def pack(self, order: ByteOrder = "little") -> bytes:
        """Write it; bytes that are shorter than their field are filled up with zeros.

        :raises UsageError: when a value doesn't fit its field, naming both.
        """
        try:
            return b"".join(field.written(getattr(self, name), order) for name, field in _fields(type(self)).items())
        except struct.error as error:
            raise UsageError(f"{type(self).__name__}.{error}") from error


@dataclass(frozen=True, slots=True)
class _Field:
    """Where a field stands and what it is: a format of :mod:`struct`, or another layout."""

    name: str
    offset: int
    width: int
    what: str | type[Layout]

    def read(self, whole: bytes, order: ByteOrder) -> Any:
        data = whole[self.offset : self.offset + self.width]
        if isinstance(self.what, str):
            return struct.unpack(_ORDER[order] + self.what, data)[0]
        return self.what.unpack(data, order)

    def written(self, value: Any, order: ByteOrder) -> bytes:
        if not isinstance(self.what, str):
            packed: bytes = value.pack(order)
            return packed
        # struct cuts bytes that are too long, and its errors don't name the field.
        if isinstance(value, bytes) and len(value) > self.width:
            raise struct.error(f"{self.name}: {len(value)} bytes don't fit into {self.width}")
        try:
            return struct.pack(_ORDER[order] + self.what, value)
        except struct.error as error:
            raise struct.error(f"{self.name}: {value!r} doesn't fit: {error}") from error


_known: dict[type[Layout], Mapping[str, _Field]] = {}


def _fields(layout: type[Layout]) -> Mapping[str, _Field]:
    if layout not in _known:
        _known[layout] = {field.name: field for field in _laid_out(layout)}
    return _known[layout]


def _laid_out(layout: type[Layout]) -> Iterator[_Field]:
    offset = 0
    for name, hint in get_type_hints(layout, include_extras=True).items():
        what = _what(hint, f"{layout.__name__}.{name}")
        width = struct.calcsize("<" + what) if isinstance(what, str) else what.size()
        yield _Field(name, offset, width, what)
        offset += width


def _what(hint: Any, where: str) -> str | type[Layout]:
    if isinstance(hint, type) and issubclass(hint, Layout):
        return hint
    match get_args(hint):
        case (_, str(form)):
            return form
    raise TypeError(f"{where} doesn't say how wide it is: {hint}")
