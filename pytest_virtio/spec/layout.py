"""Structures as the specification draws them: frozen dataclasses whose fields say how wide they are.

Responsible for turning such a class into bytes and back, in either byte order; must not know any one structure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

__all__ = ("U8", "U16", "U32", "U64", "ByteOrder", "Layout")

ByteOrder = Literal["little", "big"]
"""Modern devices are little-endian throughout; legacy ones have the guest's own order (virtio 1.3 section 2.4.3)."""

U8 = Annotated[int, "B"]
U16 = Annotated[int, "H"]
U32 = Annotated[int, "I"]
U64 = Annotated[int, "Q"]

_ORDER = {"little": "<", "big": ">"}


class Layout:
    """Base of structures: subclasses are frozen dataclasses.

    Fields are :data:`U8` … :data:`U64`, ``Annotated[bytes, "6s"]`` with a format of :mod:`struct`, or another layout
    that stands inside; they follow one another without padding, so that what the specification calls padding is a field
    too. An array without a fixed length at the end is no field: :meth:`unpack_all` reads what follows. A field that the
    specification calls as Python or this class calls something else has a ``_`` after its name: ``size_``, ``offset_``.
    """

    __slots__ = ()

    @classmethod
    def size(cls) -> int:
        """How many bytes it takes."""
        return sum(field.width for field in _fields(cls).values())

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

        :raises struct.error: when a value doesn't fit its field.
        """
        return b"".join(field.written(getattr(self, name), order) for name, field in _fields(type(self)).items())


@dataclass(frozen=True, slots=True)
class _Field:
    """Where a field stands and what it is: a format of :mod:`struct`, or another layout."""

    name: str
    offset: int
    what: str | type[Layout]

    @property
    def width(self) -> int:
        return struct.calcsize("<" + self.what) if isinstance(self.what, str) else self.what.size()

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
    hints = get_type_hints(layout, include_extras=True)
    own: tuple[Any, ...] = fields(layout)  # type: ignore[arg-type]  # subclasses are dataclasses
    offset = 0
    for name in (field.name for field in own):
        field = _Field(name, offset, _what(hints[name], f"{layout.__name__}.{name}"))
        yield field
        offset += field.width


def _what(hint: Any, where: str) -> str | type[Layout]:
    if isinstance(hint, type) and issubclass(hint, Layout):
        return hint
    match get_args(hint):
        case (_, str(form)):
            return form
    raise TypeError(f"{where} doesn't say how wide it is: {hint}")
