"""A vhost-user backend of a VM, from its start to its end: QEMU gets a connection to it when it has answered.

Responsible for the order of that and for who stands between the two; must not know how a program is started or met, nor
which one it is.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_virtio.backend.ending import Ending
from pytest_virtio.backend.looks import wrong_type
from pytest_virtio.backend.program import STDERR_LIMIT, Program
from pytest_virtio.backend.relay import Relay
from pytest_virtio.backend.service import Service
from pytest_virtio.backend.vhost_user import ask_features
from pytest_virtio.backend.wire import Witness
from pytest_virtio.declare.wire import Wire
from pytest_virtio.errors import ReplyError, UsageError, VirtioError
from pytest_virtio.model.features import Features
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.stuck import BackendState
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES
from pytest_virtio.vm.cmdline import CommandLine
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.interrupts import uninterrupted
from pytest_virtio.vm.process import Child
from pytest_virtio.vm.qemu import Qemu

__all__ = ("RunningBackend",)

LONGER = "timeout= or --virtio-timeout gives it longer"


class RunningBackend:
    """A backend and the connection to it, which becomes QEMU's."""

    def __init__(self, service: Service, program: Program, directory: Path) -> None:
        self.id, self.reconnect, self._program = service.id, service.reconnect, program
        self._wire, self._type, self._masks = service.wire or Wire(), service.type, service.masks
        self._ending = Ending(self.id, program, meddled_with=self.meddled_with)
        self.features = 0
        """What it offers, as bits; known once :meth:`await_answer` has come back."""
        self.masked = service.masks.features
        """Bits of it that QEMU is not told of."""
        self.masked_of_protocol = service.masks.protocol_features
        """Likewise of the protocol's features."""
        self.witness: Witness | None = None
        """Who sees what goes over the wire; None where nobody does."""
        self._relay: Relay | None = None
        self._connection: socket.socket | None = None
        self._owner = os.getpid()
        if service.wire is not None or service.by_path:
            self.witness = Witness(self._wire, service.masks)
            if service.by_path:
                self._relay = Relay(
                    self.witness, directory / f"{service.id}.qemu", program.meet, once=service.reconnect is None
                )

    @classmethod
    def start(cls, service: Service, directory: Path, make: Callable[[CommandLine], None]) -> RunningBackend:
        """Start it, if it does not run already; it need not be up yet.

        :param directory: the VM's private one.
        :param make: makes the files that the command line names.
        :raises MissingError: when the program can't be run.
        """
        with uninterrupted():
            program = Program(service, directory, make)
            daemon = cls(service, program, directory)
            try:
                program.start()
            except BaseException:
                daemon.close()
                raise
            return daemon

    @property
    def name(self) -> str:
        """Its program's; of one that we did not start where it was found."""
        return self._program.name

    def version(self) -> str:
        """Its program and the version of it, as far as it tells: ``"virtiofsd 1.13.2"``."""
        return self._program.version()

    @property
    def meddled_with(self) -> bool:
        """Whether the test wants something done to messages: what comes of it is its own business."""
        return bool(self._wire.faults)

    @property
    def child(self) -> Child:
        """Its process; a UsageError of one that we did not start."""
        return self._program.child

    @property
    def state(self) -> BackendState | None:
        """How it stands; None of one that we did not start, as long as it is connected or nobody sees that."""
        state = self._program.state
        return "disconnected" if state in ("running", None) and self.connection_ended else state

    @property
    def ended(self) -> str:
        """How its process has ended, in words, with what to do where it may not have; "" while it lives, and of one
        that we did not start."""
        return f"ended ({self._program.how_it_ended()})" if self._program.state == "ended" else ""

    @property
    def connection_ended(self) -> str:
        """Why QEMU and it are connected no longer; "" while they are, and where nobody sees that."""
        return "" if self.witness is None else self.witness.ended

    @property
    def connection(self) -> int | Path:
        """For QEMU: the descriptor of a connection that it inherits, or a path to connect to.

        :raises UsageError: before :meth:`await_answer` has come back.
        """
        if self._relay is not None:
            return self._relay.path
        if self._connection is None:
            raise UsageError(f"the backend of {self.id} has not answered yet")
        return self._connection.fileno()

    def await_answer(self, deadline: Deadline) -> None:
        """Wait until it has told its features: then it is ready. Some daemons leave after their first client, so the
        connection that we ask on is QEMU's later.

        :raises BackendError: when it ends, hangs up, says nothing or something else, or offers what no device of this
            type has.
        """
        connection = self._answering(deadline)
        self._check_type(connection)
        if self._relay is not None:
            self._relay.open(connection)
        elif self.witness is not None:
            self._connection, ours = socket.socketpair()
            self.witness.join(ours, connection)
        else:
            self._connection = connection

    def unserved(self, status: VirtioStatus) -> str:
        """Why its device is not served, though it is at DRIVER_OK; "" if nothing says so. Who asks knows it then."""
        state = self.tell_state()
        if state == "ended":
            return f"its backend has {self.ended}"
        if state == "disconnected":
            return f"its backend is not connected: {self.connection_ended}"
        return "QEMU does not use its backend (vhost_started)" if status.vhost_started is False else ""

    def watch(self, qemu: Qemu) -> None:
        """Have this VM's alarm sounded when it ends by itself, and when a rewrite of the test's own fails on the
        wire."""
        self._ending.watch(qemu)
        if self.witness is not None:
            self.witness.tell_failures(lambda said: qemu.alarm.sound(f"{self.id}: {said}"))

    def tell_state(self) -> BackendState | None:
        """How it stands, for the test, which is not told of its end again then."""
        state = self.state
        if state in ("ended", "disconnected"):
            self._ending.hear()
        return state

    def settle(self, deadline: Deadline) -> None:
        """Wait until the witness, if there is one, has passed on all that QEMU has sent so far, and the alarm has
        sounded for what there is to tell."""
        if self.witness is not None:
            self.witness.settle(deadline)
        self._ending.settle(deadline)

    def hand_over(self) -> None:
        """QEMU has inherited the connection: forget ours, so that the daemon sees when QEMU's ends."""
        if self._connection is not None:
            self._connection.close()

    def kill(self) -> None:
        """Kill its process group and whatever else it started, as a crash would.

        :raises UsageError: when its process is not ours.
        """
        self._ending.begin()
        self._program.kill()

    def stop(self) -> None:
        """Have its processes stand still, by SIGSTOP; it comes back when they do.

        :raises UsageError: when its process is not ours.
        :raises VirtioError: when it has ended, or goes on.
        """
        self._program.stop()

    def cont(self) -> None:
        """Let them go on, by SIGCONT; it raises what :meth:`stop` does."""
        self._program.cont()

    def restart(self, deadline: Deadline) -> None:
        """End it, start it again, and wait until it answers and QEMU has connected to it again.

        :raises UsageError: when its process is not ours, or QEMU does not connect again.
        :raises BackendError: when it does not answer.
        :raises VirtioError: when QEMU does not connect in time.
        """
        if self._relay is None or self.reconnect is None:
            raise UsageError(
                f"the backend of {self.id} can't be restarted: QEMU connects to it once. Declare it with reconnect=1"
            )
        self._relay.pause()
        self.kill()
        with uninterrupted():
            self._program.start()
        before = self._relay.joined
        self._relay.open(self._answering(deadline))
        if not self._relay.await_join(before, deadline):
            raise VirtioError(f"QEMU did not connect to {self.id}'s backend again within {deadline.seconds:g} s")

    def stderr_text(self) -> str:
        """What it wrote to stdout and stderr, bounded and safe to print."""
        return self._program.stderr_text()

    def account(self, limit: int = STDERR_LIMIT) -> str:
        """The program, how it ended if it has, and the last so many bytes of what it said."""
        return "\n".join([self._program.account(limit), *self._on_the_wire()])

    def close(self) -> None:
        """Kill it and whatever it started, and reap it. May be called again; in a forked process it does nothing.

        :raises VirtioError: when it survives SIGKILL; the janitor keeps after it.
        """
        if self._owner != os.getpid():
            return
        self._ending.begin()
        with uninterrupted(), contextlib.ExitStack() as steps:
            if self.witness is not None:
                steps.callback(self.witness.close)
            if self._connection is not None:
                steps.callback(self._connection.close)
            if self._relay is not None:
                steps.callback(self._relay.close)
            steps.callback(self._program.close)

    def _on_the_wire(self) -> Iterator[str]:
        """What the witness can add to why QEMU does not go on."""
        if self.witness is None:
            return
        of_device = Features(self._masks.features, self._type.vhost_feature_names)
        masked = (*of_device, *Features(self._masks.protocol_features, PROTOCOL_FEATURE_NAMES))
        if masked:
            yield f"(QEMU was not told of {', '.join(masked)}: masked by the test)"
        if self.witness.ended:
            yield f"(the connection has ended: {self.witness.ended})"
        elif self.witness.count:
            last = self.witness.messages()[-1]
            fate = "" if last.fate == "passed" else f": {last.fate} by the test"
            yield f"(the last message: {last.name}{', a reply' if last.reply else ''}, to {last.to}{fate})"

    def _check_type(self, connection: socket.socket) -> None:
        """QEMU does not, and brings a device up that no driver can use (seen with i2c and fs)."""
        wrong = wrong_type(self.features & ~self.masked, self._type, self.name)
        if wrong:
            connection.close()
            raise self._program.error(wrong)

    def _answering(self, deadline: Deadline) -> socket.socket:
        """A connection to it, on which it has told its features."""
        program = self._program
        try:
            connection = program.meet(deadline)
        except TimeoutError as error:
            raise program.error(f"was not met within {deadline.seconds:g} s: {error} ({LONGER})") from None
        except OSError as error:
            raise program.error(self._end(f"was not met ({error})", "before it was met")) from None
        try:
            self.features = ask_features(connection, deadline)
        except TimeoutError:
            connection.close()
            busy = "" if self.state else ": a backend that serves another VM says nothing"
            raise program.error(f"did not answer within {deadline.seconds:g} s{busy} ({LONGER})") from None
        except ReplyError as error:
            connection.close()
            raise program.error(f"does not speak vhost-user: {error}") from None
        except ConnectionError:
            connection.close()
            raise program.error(self._end("hung up before it answered", "before it answered")) from None
        if self.state == "ended":
            connection.close()
            raise program.error(self._end("", "and left its socket to another process"))
        return connection

    def _end(self, otherwise: str, when: str) -> str:
        """That its process has ended, or else something else."""
        end = self._program.end()
        return f"{end} {when}" if end else otherwise
