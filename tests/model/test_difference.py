"""What differs between two profiles, who changed it, what is allowed, and what could not be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_virtio.errors import UnknownNameError
from pytest_virtio.model.allowance import Allowance
from pytest_virtio.model.difference import Cause, Change, Effect, Kind, compare, differences, untold
from pytest_virtio.model.feature_state import FEATURE_STATES, feature_state
from pytest_virtio.model.profile import DeviceProfile, FeatureProfile, Profile, QueueProfile
from pytest_virtio.model.provenance import Provenance

CSUM, MRG_RXBUF = "VIRTIO_NET_F_CSUM", "VIRTIO_NET_F_MRG_RXBUF"
MQ, REPLY_ACK = "VHOST_USER_PROTOCOL_F_MQ", "VHOST_USER_PROTOCOL_F_REPLY_ACK"


def net(**fields: Any) -> DeviceProfile:
    """A network device with one negotiated feature; ``states`` gives others in words."""
    states = {CSUM: "negotiated"} | fields.pop("states", {})
    features = {name: FEATURE_STATES[words] for name, words in states.items() if words}
    return DeviceProfile(**{"type": "net", "transport": "pci", "features": features} | fields)


def vm(**devices: DeviceProfile) -> Profile:
    return Profile(devices)


def changes(before: DeviceProfile, now: DeviceProfile) -> list[tuple[str, object, object, Cause]]:
    return [
        (change.name, change.before, change.now, change.cause) for change in differences(vm(net0=before), vm(net0=now))
    ]


@pytest.mark.parametrize(
    ("before", "now", "cause", "effect"),
    [
        ("negotiated", "not offered", Cause.QEMU_LOST, Effect.LOST),
        ("negotiated", "", Cause.QEMU_LOST, Effect.LOST),
        ("negotiated", "offered", Cause.DRIVER_LOST, Effect.LOST),
        ("", "negotiated", Cause.QEMU_GAINED, Effect.GAINED),
        ("offered", "negotiated", Cause.DRIVER_GAINED, Effect.GAINED),
        ("offered", "", Cause.QEMU_LOST, Effect.CHANGED),
        ("", "offered", Cause.QEMU_GAINED, Effect.CHANGED),
        ("acknowledged, not offered", "not offered", Cause.DRIVER_LOST, Effect.CHANGED),
        ("negotiated, backend offers", "not offered, backend lacks", Cause.BACKEND_LOST, Effect.LOST),
        ("negotiated", "not offered, backend lacks", Cause.BACKEND_MASKS, Effect.LOST),
        ("negotiated, backend lacks", "not offered, backend lacks", Cause.QEMU_LOST, Effect.LOST),
        ("negotiated, backend offers", "not offered, backend offers", Cause.QEMU_LOST, Effect.LOST),
        ("not offered, backend lacks", "negotiated, backend offers", Cause.BACKEND_GAINED, Effect.GAINED),
        ("not offered, backend lacks", "negotiated", Cause.BACKEND_UNMASKS, Effect.GAINED),
        ("not offered, backend offers", "negotiated, backend offers", Cause.QEMU_GAINED, Effect.GAINED),
        ("negotiated, backend offers", "negotiated, backend lacks", Cause.BACKEND_ALONE_LOST, Effect.CHANGED),
        ("", "not offered, backend offers", Cause.BACKEND_ALONE_GAINED, Effect.CHANGED),
        ("offered, driver untold", "not offered, driver untold", Cause.QEMU_LOST, Effect.LOST),
        ("negotiated", "not offered, driver untold", Cause.QEMU_LOST, Effect.LOST),
    ],
)
def test_who_changed_a_feature(before: str, now: str, cause: Cause, effect: Effect) -> None:
    # Another feature says whether there is a backend at all.
    told = "negotiated, backend offers" if "backend" in before + now and "" in (before, now) else "negotiated"
    sides = [net(states={CSUM: told, MRG_RXBUF: words}) for words in (before, now)]
    (change,) = differences(vm(net0=sides[0]), vm(net0=sides[1]))
    assert (change.device, change.kind, change.name) == ("net0", Kind.FEATURE, MRG_RXBUF)
    assert (change.cause, change.effect) == (cause, effect)
    assert (change.before, change.now) == (before or feature_absent(told), now or feature_absent(told))


def feature_absent(told: str) -> str:
    return "not offered, backend lacks" if "backend" in told else "not offered"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("negotiated", "offered, driver untold"),
        ("not offered, driver untold", "acknowledged, not offered"),
        ("negotiated, backend offers", "negotiated"),
        ("not offered, backend offers", "not offered"),
    ],
)
def test_what_one_side_does_not_tell_is_no_difference(before: str, now: str) -> None:
    assert changes(net(states={MRG_RXBUF: before}), net(states={MRG_RXBUF: now})) == []


def test_a_feature_that_only_the_backend_offered_is_no_difference_where_there_is_none() -> None:
    with_backend = net(states={CSUM: "negotiated, backend offers", MRG_RXBUF: "not offered, backend offers"})
    assert changes(with_backend, net()) == []


def test_the_same_profile_does_not_differ_whatever_it_was_seen_on() -> None:
    device = net(queues=(QueueProfile("rx0", 256),), config={"mtu": 1500}, protocol_features=(MQ,))
    comparison = compare(Profile({"net0": device}, Provenance(qemu="7.2.22")), Profile({"net0": device}))
    assert (comparison.changes, comparison.untold, comparison.differs) == ((), (), False)


def test_losses_come_first_and_devices_in_their_order() -> None:
    before = vm(b=net(states={MRG_RXBUF: "offered"}), a=net(states={CSUM: "offered", MRG_RXBUF: "negotiated"}))
    now = vm(c=net(), a=net(states={MRG_RXBUF: "offered"}), b=net())
    assert [(change.device, change.effect) for change in differences(before, now)] == [
        ("b", Effect.CHANGED),
        ("a", Effect.LOST),
        ("a", Effect.GAINED),
        ("c", Effect.GAINED),
    ]


def test_devices_come_and_go() -> None:
    found = differences(vm(net0=net()), vm(net1=net()))
    assert [(change.name, change.device, change.before, change.now, change.cause) for change in found] == [
        ("device", "net0", "net", None, Cause.ABSENT),
        ("device", "net1", None, "net", Cause.NEW),
    ]


def test_of_another_type_nothing_else_is_compared() -> None:
    blk = DeviceProfile(type="blk", transport="mmio", features={})
    assert changes(net(), blk) == [("type", "net", "blk", Cause.ANOTHER_TYPE)]
    assert untold(vm(net0=net()), vm(net0=blk)) == ()


def test_another_transport_is_one_change_beside_the_others() -> None:
    assert changes(net(), net(transport="pci-legacy", states={CSUM: "offered"})) == [
        (CSUM, "negotiated", "offered", Cause.DRIVER_LOST),
        ("transport", "pci", "pci-legacy", Cause.ANOTHER_TRANSPORT),
    ]


def test_queues() -> None:
    def queues(**sizes: int) -> DeviceProfile:
        return net(queues=tuple(QueueProfile(name, size) for name, size in sizes.items()))

    assert changes(queues(rx0=256, tx0=256), queues(rx0=1024, tx0=0)) == [
        ("queues.rx0", 256, 1024, Cause.QUEUE_SIZE),
        ("queues.tx0", 256, 0, Cause.NOT_SET_UP),
    ]
    assert changes(queues(rx0=0), queues(rx0=64)) == [("queues.rx0", 0, 64, Cause.SET_UP)]
    assert changes(queues(rx0=256, ctrl=64), queues(rx0=128, tx0=256, ctrl=64)) == [
        ("queues", 2, 3, Cause.QUEUES),
        ("queues.rx0", 256, 128, Cause.QUEUE_SIZE),
    ]
    assert changes(queues(rx0=256, ctrl=64), queues(rx0=256, tx0=256)) == [
        ("queues.ctrl", 64, None, Cause.QUEUE_LOST),
        ("queues.tx0", None, 256, Cause.QUEUE_GAINED),
    ]


def test_fields_of_the_configuration_space() -> None:
    before, now = (
        net(config={"mtu": 1500, "mac": "52:54", "old": 1}),
        net(config={"mtu": 9000, "mac": "52:54", "new": 0}),
    )
    assert changes(before, now) == [
        ("config.mtu", 1500, 9000, Cause.CONFIG),
        ("config.old", 1, None, Cause.CONFIG_LOST),
        ("config.new", None, 0, Cause.CONFIG_GAINED),
    ]


def test_protocol_features() -> None:
    before, now = net(protocol_features=(MQ,)), net(protocol_features=(REPLY_ACK,))
    assert changes(before, now) == [
        (MQ, "negotiated", None, Cause.PROTOCOL_LOST),
        (REPLY_ACK, None, "negotiated", Cause.PROTOCOL_GAINED),
    ]


def test_what_could_hide_a_difference_is_said() -> None:
    telling = net(
        states={CSUM: "negotiated, backend offers"},
        queues=(QueueProfile("rx0", 256),),
        config={"mtu": 1500, "mac": "52:54"},
        protocol_features=(),
    )
    silent = net(states={CSUM: "offered, driver untold"})
    assert changes(telling, silent) == changes(silent, telling) == []
    expected = [
        ("which features the driver acknowledged", 1),
        ("which features the backend offers", 1),
        ("queues", 1),
        ("configuration space", 2),
        ("vhost-user protocol features", 0),
    ]
    hidden = untold(vm(net0=telling), vm(net0=silent))
    assert [(each.what, each.count) for each in hidden] == expected
    assert all(each.before and each.device == "net0" for each in hidden)
    hidden = untold(vm(net0=silent), vm(net0=telling))
    assert [(each.what, each.count) for each in hidden] == expected
    assert not any(each.before for each in hidden)
    assert untold(vm(net0=silent), vm(net0=silent)) == ()


def allow(what: str, *values: Any, device: str = "net0") -> Allowance:
    return Allowance(device=device, what=what, reason="it may", values=values)


RICH = net(
    states={MRG_RXBUF: "negotiated"},
    queues=(QueueProfile("rx0", 256), QueueProfile("tx0", 256)),
    config={"mtu": 1500, "mac": "52:54"},
    protocol_features=(MQ,),
)
POOR = net(queues=(QueueProfile("rx0", 512),), config={"mtu": 9000}, protocol_features=(), transport="mmio")


@pytest.mark.parametrize(
    ("allowance", "covered"),
    [
        (allow(MRG_RXBUF), [MRG_RXBUF]),
        (allow("MRG_RXBUF"), [MRG_RXBUF]),
        (allow(MRG_RXBUF, "not offered"), [MRG_RXBUF]),
        (allow(MRG_RXBUF, "offered"), []),
        (allow(MQ), [MQ]),
        (allow("queues"), ["queues", "queues.rx0"]),
        (allow("queues", 1), ["queues"]),
        (allow("queues.rx0"), ["queues.rx0"]),
        (allow("queues.rx0", 256, 512), ["queues.rx0"]),
        (allow("queues.rx0", 1024), []),
        (allow("queues.ctrl"), []),
        (allow("config"), ["config.mtu", "config.mac"]),
        (allow("config.mtu", 9000), ["config.mtu"]),
        (allow("transport"), ["transport"]),
        (allow("device"), []),
    ],
)
def test_an_allowance_covers_what_it_names(allowance: Allowance, covered: list[str]) -> None:
    found = differences(vm(net0=RICH), vm(net0=POOR), [allowance])
    assert {change.name for change in found if change.allowed} == set(covered)
    assert all(
        change.allowance is not None and change.allowance.reason == "it may" for change in found if change.allowed
    )


def test_an_allowance_is_of_one_device() -> None:
    found = differences(vm(net0=RICH, net1=RICH), vm(net0=POOR, net1=POOR), [allow("transport")])
    assert [change.device for change in found if change.allowed] == ["net0"]


def test_a_device_may_come_and_go() -> None:
    comparison = compare(vm(net0=net(), net1=net()), vm(net0=net()), [allow("device", device="net1")])
    assert [change.allowed for change in comparison.changes] == [True]
    assert not comparison.differs
    assert compare(vm(net0=net(), net1=net()), vm(net0=net())).differs


@pytest.mark.parametrize(
    ("allowance", "hint"),
    [
        (allow("config", device="net00"), "unknown device in an allowance: 'net00'. Did you mean 'net0'"),
        (allow("MRG_RXBUFF"), "Did you mean 'MRG_RXBUF'"),
        (allow("VIRTIO_BLK_F_FLUSH"), "belongs to another device type"),
        (allow("VHOST_USER_PROTOCOL_F_MQQ"), "Did you mean 'VHOST_USER_PROTOCOL_F_MQ'"),
        (allow("queue"), "Did you mean 'queues'"),
        (allow("queues.rx"), "Did you mean 'queues.rx"),
        (allow("config.mttu"), "Did you mean 'config.mtu'"),
        (allow(MRG_RXBUF, "ofered"), "Did you mean 'offered"),
        (allow(""), "There are: config, device"),
    ],
)
def test_an_allowance_of_nothing_names_what_may_have_been_meant(allowance: Allowance, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        differences(vm(net0=RICH), vm(net0=POOR), [allowance])
    assert hint in str(caught.value)


def test_an_allowance_may_stand_where_nothing_differs() -> None:
    assert (
        differences(
            vm(net0=RICH), vm(net0=RICH), [allow("MRG_RXBUF"), allow("queues.rx7"), allow("config.rss_max_key_size")]
        )
        == ()
    )


def test_words_and_states_go_both_ways() -> None:
    assert len(FEATURE_STATES) == 18
    assert all(feature_state(state) == words for words, state in FEATURE_STATES.items())
    assert feature_state(FeatureProfile(True)) == "offered, driver untold"


def test_an_unknown_device_type_is_compared_as_any() -> None:
    device = replace(net(), type="device-47", features={"BIT_3": FeatureProfile(True, True)})
    (change,) = differences(vm(x=device), vm(x=replace(device, features={})), [allow("BIT_3", device="x")])
    assert isinstance(change, Change)
    assert change.allowed
