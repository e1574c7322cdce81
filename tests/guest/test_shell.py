"""The guest's shell on a real Linux guest."""

from __future__ import annotations

import base64
import hashlib
import os
import threading

import pytest

from pytest_virtio import GuestTimeoutError, UsageError, Virtio
from pytest_virtio.guest.shell import COMMAND_BYTES

pytestmark = [pytest.mark.qemu, pytest.mark.guest]

EVERY_BYTE = bytes(range(256))


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("echo out; echo err >&2", 0, b"out\nerr\n"),
        ("exit 3", 3, b""),
        ("kill -9 $$", 137, b""),
        ("kill -TERM $$", 143, b""),
        ("no-such-command", 127, b"sh: no-such-command: not found\n"),
        ("printf 'no newline'", 0, b"no newline"),
        ("cat; echo ended", 0, b"ended\n"),
        ("sleep 60 & echo left behind", 0, b"left behind\n"),
        ("echo '@pv end c1 0'; echo @pv ready 1", 0, b"@pv end c1 0\n@pv ready 1\n"),
        (b"echo '\xff\xfe'", 0, b"\xff\xfe\n"),
        ("echo 'ä\udcff'", 0, "ä".encode() + b"\xff\n"),
    ],
)
def test_status_and_output(linux: Virtio, command: str | bytes, status: int, output: bytes) -> None:
    assert linux.guest.run(command) == (status, output)


def test_every_byte_comes_through(linux: Virtio) -> None:
    encoded = base64.b64encode(EVERY_BYTE * 16).decode()
    assert linux.guest.run(f"echo {encoded} | base64 -d").output == EVERY_BYTE * 16


def test_text_shows_what_is_not_utf8(linux: Virtio) -> None:
    assert linux.guest.run(b"printf 'caf\xc3\xa9 \xff'").text == "café \\xff"


def test_a_mebibyte_comes_through(linux: Virtio) -> None:
    script = "dd if=/dev/urandom of=/tmp/big bs=65536 count=17 2>/dev/null; sha256sum </tmp/big"
    expected = linux.guest.run(script).output.split()[0].decode()
    status, output = linux.guest.run("cat /tmp/big; rm /tmp/big", timeout=120)
    assert (status, len(output)) == (0, 17 * 65536)
    assert hashlib.sha256(output).hexdigest() == expected


def test_the_longest_command(linux: Virtio) -> None:
    start = "echo -n "
    padding = "x" * (COMMAND_BYTES - len(start))
    assert linux.guest.run(start + padding).output == padding.encode()


@pytest.mark.parametrize("command", ["", " \n", "a\0b", "x" * (COMMAND_BYTES + 1), ["ls", "-l"], None])
def test_what_is_no_command(linux: Virtio, command: str) -> None:
    with pytest.raises(UsageError, match=r"^run\(\): a command is"):
        linux.guest.run(command)


def test_threads_run_commands_at_a_time(linux: Virtio) -> None:
    """The first ends when the last has run, so they must overlap."""
    results: dict[int, bytes] = {}

    def run(number: int) -> None:
        wait = "while [ ! -e /tmp/last ]; do usleep 10000; done" if number == 0 else "true"
        last = "touch /tmp/last" if number == 3 else "true"
        results[number] = linux.guest.run(f"{wait}; {last}; echo {number}", timeout=60).output

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    linux.guest.run("rm -f /tmp/last")
    assert results == {number: f"{number}\n".encode() for number in range(4)}


@pytest.mark.parametrize("hang", ["sleep 100", "kill -STOP $$", "trap '' TERM HUP INT; while :; do sleep 1; done"])
def test_the_next_command_works_after_a_timeout(linux: Virtio, hang: str) -> None:
    with pytest.raises(
        GuestTimeoutError, match="did not end within 2 s and was killed; it had written:\nbefore"
    ) as info:
        linux.guest.run(f"echo before; {hang}", timeout=2)
    assert info.value.output == b"before\n"
    assert linux.guest.run("echo after") == (0, b"after\n")


def test_a_flood_is_ended_too(linux: Virtio) -> None:
    with pytest.raises(GuestTimeoutError) as info:
        linux.guest.run("while :; do echo flood; done", timeout=2)
    assert info.value.output.startswith(b"flood\nflood\n")
    assert len(str(info.value)) < 3000
    assert linux.guest.run("echo after") == (0, b"after\n")


def test_kernel_messages_stay_out(linux: Virtio) -> None:
    before = linux.guest.console.log.size
    flood = "for n in $(seq 200); do echo '@pv end c1 0 noise' >/dev/kmsg; echo $n; done"
    assert linux.guest.run(flood).output == b"".join(b"%d\n" % n for n in range(1, 201))
    assert linux.guest.console.log.since(before).count(b"noise") == 200


def test_devices_are_those_of_sysfs(linux: Virtio) -> None:
    drivers = {device.device_id: device.driver for device in linux.guest.devices}
    assert (drivers[1], drivers[2], drivers[4]) == ("virtio_net", "virtio_blk", "virtio_rng")
    assert drivers[23] == ""


def test_all_that_has_a_driver_is_ready(linux: Virtio) -> None:
    standing = {device.id for device in linux if not device.status().driver_ok}
    assert standing == {"iommu0"}


def test_commands_do_not_touch_this_machine(linux: Virtio) -> None:
    assert linux.guest.run("hostname").output.strip() != os.uname().nodename.encode()
