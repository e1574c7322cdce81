"""The crypto device (virtio 1.3 section 5.9): symmetric ciphers in session mode.

Responsible for the requests of the CIPHER service; must not know how a cipher works, nor what a sound key is.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from pytest_virtio.errors import UsageError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import check_status, unpacked
from pytest_virtio.spec.devices.crypto import (
    CTRLQ_OP_SPEC_HDR_LEGACY,
    CryptoCipherDataFlf,
    CryptoCipherSessionFlf,
    CryptoConfig,
    CryptoCreateSessionInput,
    CryptoCtrlHeader,
    CryptoDestroySessionFlf,
    CryptoDestroySessionInput,
    CryptoInhdr,
    CryptoOp,
    CryptoOpcode,
    CryptoOpHeader,
    CryptoStatus,
    CryptoSymCreateSessionFlf,
    CryptoSymDataFlf,
)

__all__ = ("CipherSession", "CryptoDriver")

A = TypeVar("A", CryptoCreateSessionInput, CryptoDestroySessionInput)


class CipherSession(NamedTuple):
    """A key with its algorithm and direction, as the device keeps it (5.9.7.2.1)."""

    id: int
    """The device's number for it."""
    algo: int
    op: int


class CryptoDriver(Driver):
    """Drives a crypto device without VIRTIO_CRYPTO_F_REVISION_1, which no QEMU offers (seen up to 11.1)."""

    def config(self) -> CryptoConfig:
        """The device's configuration (5.9.5)."""
        return self.read_config(CryptoConfig)

    def create_session(
        self, algo: int, key: bytes, op: int = CryptoOp.ENCRYPT, timeout: float | None = None
    ) -> CipherSession:
        """Give the device a key for later requests.

        :param algo: a :class:`CryptoCipherAlgo`, or any other number of 32 bits.
        :param op: whether to encrypt or to decrypt with it.
        :raises RequestFailedError: when the device answers with an error status: NOTSUPP for the algorithm, say.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        cipher = CryptoCipherSessionFlf(algo=algo, key_len=len(key), op=op)
        parameters = CryptoSymCreateSessionFlf(op_flf=cipher.pack()).pack()
        opcode = CryptoOpcode.CIPHER_CREATE_SESSION
        answer = self._control(opcode, parameters + key, CryptoCreateSessionInput, algo, timeout)
        return CipherSession(answer.session_id, algo, op)

    def destroy_session(self, session: CipherSession, timeout: float | None = None) -> None:
        """Have the device forget a session. It raises as :meth:`create_session` does."""
        parameters = CryptoDestroySessionFlf(session.id).pack().ljust(CTRLQ_OP_SPEC_HDR_LEGACY, b"\0")
        opcode = CryptoOpcode.CIPHER_DESTROY_SESSION
        self._control(opcode, parameters, CryptoDestroySessionInput, session.algo, timeout)

    def encrypt(self, session: CipherSession, data: bytes, iv: bytes = b"", timeout: float | None = None) -> bytes:
        """Encrypt ``data``, 1 byte or more: whole blocks where the algorithm has blocks.

        :param iv: initialisation vector or counter, for algorithms that take one.
        :raises RequestFailedError: when the device answers with an error status: INVSESS without such a session.
        :raises RequestTimeoutError: when it doesn't answer in time.
        """
        return self._cipher(CryptoOpcode.CIPHER_ENCRYPT, session, data, iv, timeout)

    def decrypt(self, session: CipherSession, data: bytes, iv: bytes = b"", timeout: float | None = None) -> bytes:
        """Decrypt ``data``, with a session for decryption. It is as :meth:`encrypt` otherwise."""
        return self._cipher(CryptoOpcode.CIPHER_DECRYPT, session, data, iv, timeout)

    def _control(self, opcode: CryptoOpcode, parameters: bytes, answer: type[A], algo: int, timeout: float | None) -> A:
        """A request of the control queue (5.9.7.2): header, parameters, answer."""
        self.begin(opcode.name)
        header = CryptoCtrlHeader(opcode, algo).pack()
        request = self.queue("ctrl").request(header + parameters, writable=[answer.size()], timeout=timeout)
        read = unpacked(answer, request.written, self.id, opcode.name)
        check_status(read.status, CryptoStatus.OK, self.id, opcode.name)
        return read

    def _cipher(
        self, opcode: CryptoOpcode, session: CipherSession, data: bytes, iv: bytes, timeout: float | None
    ) -> bytes:
        """A request of a data queue (5.9.7.6): header, parameters, IV and data; destination data and status."""
        if not data:
            raise UsageError(f"{opcode.name}: there is no data; a descriptor can't have length 0")
        self.begin(opcode.name)
        lengths = CryptoCipherDataFlf(iv_len=len(iv), src_data_len=len(data), dst_data_len=len(data))
        parameters = CryptoSymDataFlf(op_type_flf=lengths.pack()).pack()
        header = CryptoOpHeader(opcode, session.algo, session.id).pack()
        whole = header + parameters + iv + data
        written = self.queue("data0").request(whole, writable=[len(data), 1], timeout=timeout).written
        answer = unpacked(CryptoInhdr, written[len(data) :], self.id, opcode.name)
        check_status(answer.status, CryptoStatus.OK, self.id, opcode.name)
        return written[: len(data)]
