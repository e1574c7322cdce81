"""Commands in the guest: what the driver made of the device, and data that crosses it."""

from pathlib import Path

from pytest_virtio import P9, Blk, Virtio, VirtioFactory


def test_the_guest_agrees_on_what_was_negotiated(linux: Virtio) -> None:
    # sysfs prints bit 0 first.
    exit_status, output = linux.guest.run("cat /sys/bus/virtio/devices/virtio0/features")
    assert exit_status == 0
    bits = sum(1 << number for number, digit in enumerate(output.strip()) if digit == ord("1"))
    assert bits == linux["net0"].status().guest_features.bits


def test_the_network_card_gets_an_address(linux: Virtio) -> None:
    assert linux.guest.run("ip link set eth0 up && udhcpc -i eth0 -n -q -s /bin/true", timeout=30).exit_status == 0


def test_what_is_written_can_be_read_back(linux: Virtio) -> None:
    shell = linux.guest
    assert shell.run("head -c 1048576 /dev/urandom > /tmp/data && dd if=/tmp/data of=/dev/vda bs=64k").exit_status == 0
    assert shell.run("sync; echo 3 > /proc/sys/vm/drop_caches").exit_status == 0
    assert shell.run("head -c 1048576 /dev/vda | cmp - /tmp/data", timeout=60) == (0, b"")


def test_a_directory_of_the_host_in_the_guest(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"from the host\n")
    with virtio_factory(P9(tmp_path, tag="share"), Blk(), guest="linux") as virtio:
        assert virtio.guest.run("mkdir /mnt; mount -t 9p -o trans=virtio share /mnt").exit_status == 0
        assert virtio.guest.run("cat /mnt/hello").output == b"from the host\n"
