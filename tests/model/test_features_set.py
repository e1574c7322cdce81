"""Features against a plain set of names as oracle, and what is special to them."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.errors import NotSupportedError, UnknownNameError, UsageError
from pytest_virtio.model.features import Features
from pytest_virtio.spec.devices import BLK, NET, BlkFeature, NetFeature
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES

BITS = st.integers(0, (1 << 128) - 1)
COMPARISONS = [operator.le, operator.lt, operator.ge, operator.gt, operator.eq, operator.ne]
OPERATORS = [operator.and_, operator.or_, operator.xor, operator.sub]
FEW = (1 << 32) | (1 << 15)


def names_of(bits: int) -> frozenset[str]:
    return frozenset(NET.feature_names.name(bit) for bit in range(128) if bits >> bit & 1)


@given(BITS)
def test_it_is_the_set_of_its_names(bits: int) -> None:
    features = Features(bits, NET)
    assert set(features) == names_of(bits)
    assert len(features) == len(names_of(bits))
    assert bool(features) is bool(bits)
    assert features.bits == bits
    assert hash(features) == hash(names_of(bits))
    assert Features.of(features.names, NET) == features


@pytest.mark.parametrize("compare", COMPARISONS)
@given(left=BITS, right=BITS, subset=st.booleans())
def test_comparisons(compare: Callable[[Any, Any], bool], left: int, right: int, subset: bool) -> None:
    left = left & right if subset else left
    expected = compare(names_of(left), names_of(right))
    assert compare(Features(left, NET), Features(right, NET)) is expected
    assert compare(Features(left, NET), names_of(right)) is expected
    assert compare(set(names_of(left)), Features(right, NET)) is expected


@pytest.mark.parametrize("operate", OPERATORS)
@given(left=BITS, right=BITS)
def test_operators(operate: Callable[[Any, Any], Any], left: int, right: int) -> None:
    expected = operate(names_of(left), names_of(right))
    for result in (
        operate(Features(left, NET), Features(right, NET)),
        operate(Features(left, NET), set(names_of(right))),
        operate(names_of(left), Features(right, NET)),
    ):
        assert isinstance(result, Features)
        assert set(result) == expected


@given(BITS, BITS)
def test_isdisjoint(left: int, right: int) -> None:
    assert Features(left, NET).isdisjoint(Features(right, NET)) is names_of(left).isdisjoint(names_of(right))


@given(BITS, st.integers(0, 127))
def test_membership_by_every_spelling(bits: int, bit: int) -> None:
    features = Features(bits, NET)
    expected = bool(bits >> bit & 1)
    name = NET.feature_names.name(bit)
    assert (name in features) is expected
    assert features.__contains__(bit) is expected
    if bit in set(NetFeature):
        assert features.__contains__(NetFeature(bit)) is expected
        assert (NetFeature(bit).name in features) is expected


def test_a_plain_assert_with_short_names_members_and_numbers() -> None:
    features = Features(FEW, NET)
    assert features >= {"MRG_RXBUF", "VIRTIO_F_VERSION_1"}
    assert features == {NetFeature.MRG_RXBUF, 32}
    assert {"MRG_RXBUF"} <= features
    assert {"VERSION_1"} < features
    assert {"VERSION_1", 15} == features
    assert features - {"VERSION_1"} == {"MRG_RXBUF"}
    assert {"MTU", "VERSION_1"} - features == {"VIRTIO_NET_F_MTU"}
    assert not {"MTU", "VERSION_1"} <= features


@pytest.mark.parametrize(
    "use",
    [
        lambda features: "MRG_RXBUFF" in features,
        lambda features: features == {"MRG_RXBUFF"},
        lambda features: features != {"MRG_RXBUFF"},
        lambda features: features >= {"MRG_RXBUFF"},
        lambda features: {"MRG_RXBUFF"} <= features,
        lambda features: features - {"MRG_RXBUFF"},
        lambda features: features.isdisjoint({"MRG_RXBUFF"}),
        lambda features: features.__contains__(BlkFeature.RO),
    ],
)
def test_an_unknown_name_never_passes(use: Callable[[Features], object]) -> None:
    with pytest.raises(UnknownNameError):
        use(Features(FEW, NET))


def test_other_types_are_not_sets() -> None:
    features = Features(FEW, NET)
    assert features != "VIRTIO_F_VERSION_1"
    with pytest.raises(TypeError):
        operator.le(features, ["VERSION_1"])
    with pytest.raises(TypeError):
        operator.sub(features, "VERSION_1")


def test_device_types_are_compared_by_names() -> None:
    assert Features(1 << 32, NET) == Features(1 << 32, BLK)
    assert Features(1 << 5, NET) != Features(1 << 5, BLK)
    assert Features(1 << 32 | 1 << 5, NET) & Features(1 << 32 | 1 << 5, BLK) == {"VERSION_1"}
    with pytest.raises(UnknownNameError):
        Features(0, NET) | Features(1 << 5, BLK)


def test_offer_and_texts_are_no_part_of_equality() -> None:
    offered = Features(FEW | 1, NET)
    acknowledged = Features(FEW, NET, offered=offered, texts=["strange: text"])
    assert acknowledged == Features(FEW, NET)
    assert hash(acknowledged) == hash(Features(FEW, NET))
    assert acknowledged.offered is offered
    assert (acknowledged - {"VERSION_1"}).offered is offered
    assert acknowledged.texts == ("strange: text",)
    assert repr(acknowledged) == "Features({VIRTIO_NET_F_MRG_RXBUF, VIRTIO_F_VERSION_1, 'strange: text'})"


def test_names_from_low_to_high_and_unknown_bits() -> None:
    features = Features(1 << 32 | 1 << 15 | 1 << 48 | 1 << 127, NET)
    assert features.names == ("VIRTIO_NET_F_MRG_RXBUF", "VIRTIO_F_VERSION_1", "BIT_48", "BIT_127")
    assert features.unknown == (48, 127)
    assert "BIT_48" in features


def test_other_tables() -> None:
    assert Features(1 << 3, PROTOCOL_FEATURE_NAMES) == {"VHOST_USER_PROTOCOL_F_REPLY_ACK"}


@pytest.mark.parametrize("bits", [-1, 1 << 128])
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(UsageError, match=r"must be 0\.\.2\*\*128 - 1"):
        Features(bits, NET)


def test_immutable_and_copied_by_value() -> None:
    features = Features(FEW, NET, offered=Features(FEW, NET))
    with pytest.raises(AttributeError):
        features.bits = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        features.other = 1  # type: ignore[attr-defined]
    assert copy.deepcopy(features) == features
    assert pickle.loads(pickle.dumps(Features(FEW, PROTOCOL_FEATURE_NAMES))).bits == FEW


UNTOLD = Features(0, NET, untold="net0: nobody knows")


@pytest.mark.parametrize(
    "look",
    [
        lambda features: features.bits,
        lambda features: "MRG_RXBUF" in features,
        lambda features: features >= {"MRG_RXBUF"},
        lambda features: features == Features(0, NET),
        lambda features: features | {"MRG_RXBUF"},
        lambda features: {"MRG_RXBUF"} - features,
        lambda features: features.isdisjoint({"MRG_RXBUF"}),
        bool,
        list,
        len,
        hash,
    ],
)
def test_what_nobody_tells_is_no_empty_set(look: Callable[[Features], object]) -> None:
    with pytest.raises(NotSupportedError, match="net0: nobody knows"):
        look(UNTOLD)


def test_what_nobody_tells_can_be_shown() -> None:
    assert repr(UNTOLD) == "Features(untold='net0: nobody knows')"
    assert (UNTOLD.untold, Features(0, NET).untold) == ("net0: nobody knows", "")
