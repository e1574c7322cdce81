"""``dev.wire``: the witness between a real QEMU and a real ``qemu-storage-daemon``."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_virtio import (
    Blk,
    BlkDriver,
    BlkFeature,
    Cut,
    Delay,
    Drop,
    Duplicate,
    NotSupportedError,
    Rewrite,
    UnknownNameError,
    VhostUserBlk,
    Virtio,
    VirtioAssertionError,
    VirtioError,
    VirtioFactory,
    Wire,
)
from pytest_virtio.declare.wire import Mask
from pytest_virtio.model.wire import Fate
from pytest_virtio.spec.vhost_user import ProtocolFeature
from pytest_virtio.spec.vhost_user_messages import Config
from pytest_virtio.vm.deadline import Deadline

Ended = Callable[[int], bool]

ID = "vublk0"
SIZE = 8 << 20
BLK_CONFIG_CAPACITY = slice(Config.size(), Config.size() + 8)


@pytest.fixture(scope="module")
def watched(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    with virtio_factory(VhostUserBlk(size=SIZE, wire=True), VhostUserBlk(id="unseen"), Blk()) as virtio:
        yield virtio


def assert_serves(virtio: Virtio) -> None:
    """What is in the image is read, and what is written is in the image after a flush."""
    driver = virtio.guest.driver(ID, BlkDriver)
    driver.write(0, b"via the witness".ljust(512, b"."))
    driver.flush()
    image = virtio._running.qemu.directory / f"{ID}.img"
    with image.open("rb") as file:
        assert file.read(15) == b"via the witness"
    assert driver.read(0, 512)[:15] == b"via the witness"


def test_features_as_they_went_over_the_wire(watched: Virtio) -> None:
    device = watched[ID]
    wire, status = device.wire, device.status()
    assert {"VIRTIO_F_VERSION_1", "VIRTIO_BLK_F_FLUSH", "VHOST_USER_F_PROTOCOL_FEATURES"} <= wire.features
    assert wire.features.bits == watched._running.backends[ID].features
    assert wire.acked_features <= wire.features
    assert wire.acked_features.offered == wire.features
    assert status.guest_features.bits & wire.features.bits & ~wire.acked_features.bits == 0
    assert wire.protocol_features >= {"CONFIG", "MQ"}
    assert wire.protocol_features <= wire.offered_protocol_features
    with pytest.raises(UnknownNameError):
        assert "VIRTIO_NET_F_MTU" in wire.features


def test_the_rest_that_was_told(watched: Virtio) -> None:
    told, ring = watched[ID].wire.told, watched[ID].queue(0).status()
    queue = told.queues[0]
    assert (queue.num, queue.enabled, queue.started, queue.kick) == (ring.vring_num, True, True, True)
    assert queue.descriptor is not None
    assert told.guest_address(queue.descriptor) == ring.vring_desc
    assert told.max_queues == 1
    assert told.refused == ()
    assert sum(region.size for region in told.regions) > 0


def test_messages_by_their_names(watched: Virtio) -> None:
    wire = watched[ID].wire
    everything = wire.messages()
    assert len(everything) == wire.count
    assert [m.name for m in everything[:3]] == ["GET_FEATURES", "GET_FEATURES", "GET_PROTOCOL_FEATURES"]
    vrings = wire.messages("SET_VRING_*", reply=False)
    assert {"SET_VRING_NUM", "SET_VRING_KICK"} <= {message.name for message in vrings}
    assert all(message.name.startswith("SET_VRING_") and message.to == "backend" for message in vrings)
    asked, answered = wire.messages("GET_FEATURES", reply=False), wire.messages("GET_FEATURES", reply=True)
    assert len(asked) == len(answered) > 0
    assert sorted(everything, key=lambda message: message.seconds) == list(everything)
    with pytest.raises(UnknownNameError, match="Did you mean 'SET_VRING_NUM'"):
        wire.messages("SET_VRING_NUMB")


def test_a_message_that_has_come_is_not_waited_for(watched: Virtio) -> None:
    assert watched[ID].wire.wait("SET_VRING_KICK", timeout=0).fds == 1


def test_a_message_that_does_not_come(watched: Virtio) -> None:
    with pytest.raises(VirtioAssertionError) as raised:
        watched[ID].wire.wait("GPU_SET_SOCKET", timeout=0.05)
    verdict, *last = str(raised.value).splitlines()
    assert verdict.startswith("vublk0: no message 'GPU_SET_SOCKET' over the wire: none within 0.05 s; ")
    assert len(last) == 3
    assert "SET_VRING_" in last[-1]


def test_as_json_lines(watched: Virtio, tmp_path: Path) -> None:
    watched[ID].wire.save(tmp_path / "wire.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "wire.jsonl").read_text().splitlines()]
    assert len(lines) == watched[ID].wire.count
    assert lines[1]["name"] == "GET_FEATURES"
    assert lines[1]["fields"] == {"u64": watched[ID].wire.features.bits}


def test_who_has_no_witness(watched: Virtio) -> None:
    with pytest.raises(NotSupportedError, match="nobody watches the wire of unseen: declare it with wire=True"):
        watched["unseen"].wire  # noqa: B018
    with pytest.raises(NotSupportedError, match="blk0 has no wire: no vhost-user backend serves it"):
        watched["blk0"].wire  # noqa: B018


def test_in_the_report(watched: Virtio) -> None:
    sections = {section.title: section for section in watched.report()}
    assert "unseen wire" not in sections
    lines = sections[f"{ID} wire"].text.splitlines()
    assert any("to backend: SET_VRING_NUM index 0, num 128" in line for line in lines)
    assert len(lines) <= 31
    data = json.loads(json.dumps(sections[f"{ID} wire"].data))
    assert data["told"]["acked_features"] == watched[ID].wire.acked_features.bits
    assert data["messages"][-1]["name"].startswith("SET_VRING_")


def test_io_goes_past_it(watched: Virtio) -> None:
    before = watched[ID].wire.count
    assert_serves(watched)
    assert watched[ID].wire.count == before


@pytest.mark.parametrize(
    "masked",
    [
        {"VIRTIO_BLK_F_DISCARD", "VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS"},
        ["BLK_F_DISCARD", "PROTOCOL_F_CONFIGURE_MEM_SLOTS"],
        (BlkFeature.DISCARD, ProtocolFeature.CONFIGURE_MEM_SLOTS),
        [13, ProtocolFeature.CONFIGURE_MEM_SLOTS],
    ],
    ids=["full", "less", "members", "number"],
)
def test_masked_features_are_not_there(virtio_factory: VirtioFactory, masked: Mask) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE, mask=masked)) as virtio:
        device = virtio[ID]
        device.assert_not_offered("VIRTIO_BLK_F_DISCARD")
        assert "VIRTIO_BLK_F_DISCARD" not in device.wire.features
        assert "CONFIGURE_MEM_SLOTS" not in device.wire.offered_protocol_features
        # Without slots QEMU tells of all memory at once.
        assert device.wire.messages("SET_MEM_TABLE")
        assert not device.wire.messages("ADD_MEM_REG")
        assert "masked" in {message.fate for message in device.wire.messages("GET_FEATURES", reply=True)}
        assert_serves(virtio)


def _double(payload: bytes) -> bytes:
    """Another capacity; its config is what it was otherwise."""
    capacity = int.from_bytes(payload[BLK_CONFIG_CAPACITY], "little") * 2
    return payload[: Config.size()] + capacity.to_bytes(8, "little") + payload[BLK_CONFIG_CAPACITY.stop :]


def test_a_rewritten_answer_is_what_the_driver_sees(virtio_factory: VirtioFactory) -> None:
    wire = Wire(faults=(Rewrite("GET_CONFIG", _double, reply=True),))
    with virtio_factory(VhostUserBlk(size=SIZE, wire=wire)) as virtio:
        assert virtio.guest.driver(ID, BlkDriver).config().capacity * 512 == 2 * SIZE


@pytest.mark.parametrize(
    ("fault", "fate"),
    [
        (Delay("SET_VRING_*", 0.01, nth=2), "delayed"),
        (Duplicate("SET_VRING_NUM"), "duplicated"),
        (Drop("SET_OWNER"), "dropped"),
    ],
)
def test_faults_that_a_backend_lives_with(
    virtio_factory: VirtioFactory, fault: Delay | Drop | Duplicate, fate: Fate
) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE, wire=Wire(faults=(fault,)))) as virtio:
        assert fate in {message.fate for message in virtio[ID].wire.messages("SET_*")}
        assert_serves(virtio)


def test_a_cut_at_the_end_of_initialisation(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE, wire=Wire(faults=(Cut("SET_VRING_KICK"),)))) as virtio:
        wire = virtio[ID].wire
        assert wire.wait("SET_VRING_KICK").fate == "cut"
        with pytest.raises(VirtioAssertionError, match="the connection has ended: cut at SET_VRING_KICK"):
            wire.wait("SET_VRING_ENDIAN")
        text = next(section.text for section in virtio.report() if section.title == f"{ID} wire")
        assert text.splitlines()[-2].endswith("1 fd, CUT)")
        assert text.splitlines()[-1] == "the connection has ended: cut at SET_VRING_KICK"


def test_a_dropped_answer_does_not_hang_the_run(virtio_factory: VirtioFactory) -> None:
    wire = Wire(faults=(Drop("GET_FEATURES", reply=True),))
    with (
        pytest.raises(VirtioError),
        virtio_factory(VhostUserBlk(size=SIZE, wire=wire), timeout=3),
    ):
        pass


def test_after_the_backend_has_died(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE, wire=True)) as virtio:
        backend = virtio._running.backends[ID]
        backend.kill()
        with pytest.raises(VirtioAssertionError, match="the backend hung up"):
            virtio[ID].wire.wait("SET_VRING_ENDIAN")
        assert virtio[ID].wire.ended == "the backend hung up"
        assert virtio.vm.running


def test_a_new_connection_is_told_anew(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE, reconnect=1)) as virtio:
        wire = virtio[ID].wire
        virtio._running.backends[ID].restart(Deadline.after(30))
        again = virtio._running.backends[ID].witness
        assert again is not None
        found = again.wait(lambda m: m.connection == 1 and m.name == "SET_VRING_KICK", Deadline.after(30))
        assert found is not None
        assert not wire.ended
        assert wire.told.queues[0].started
        assert_serves(virtio)


def test_qemu_and_backend_are_let_go_when_pytest_is_killed(inner_runs: pytest.Pytester, ended: Ended) -> None:
    inner_runs.makepyfile("""
        import os, signal, pytest
        from pathlib import Path
        from pytest_virtio import VhostUserBlk
        @pytest.mark.virtio(VhostUserBlk(wire=True))
        def test_it(virtio):
            daemon = virtio._running.backends["vublk0"].child.pid
            Path("left").write_text(f"{daemon} {virtio.vm.pid}")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    result = inner_runs.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == -signal.SIGKILL
    assert [pid for pid in (inner_runs.path / "left").read_text().split() if not ended(int(pid))] == []


def test_nothing_is_left_open(virtio_factory: VirtioFactory) -> None:
    def run() -> int:
        with virtio_factory(VhostUserBlk(size=SIZE, wire=True)) as virtio:
            assert_serves(virtio)
        return len(list(Path("/proc/self/fd").iterdir()))

    assert run() == run()


def bad(payload: bytes) -> bytes:
    pytest.fail("no good payload")


@pytest.mark.parametrize("nth", [1, 2])
def test_a_rewrite_that_fails_turns_a_test_red(virtio_factory: VirtioFactory, nth: int) -> None:
    """At the next wait; where none comes, at the VM's end."""

    def looked() -> None:
        with virtio_factory(VhostUserBlk(size=SIZE, wire=wire)) as virtio:
            virtio.guest.driver(ID).initialise()

    wire = Wire(faults=(Rewrite("SET_VRING_KICK", bad, nth=nth),))
    with pytest.raises(VirtioAssertionError, match="vublk0: a rewrite failed: Failed: no good payload"):
        looked()
