"""The crypto device: what its ciphers give, against the vectors of NIST SP 800-38A (virtio 1.3 section 5.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from pytest_virtio import CommandError, Crypto, RequestFailedError, UsageError
from pytest_virtio.guest.scripted.drivers.crypto import CipherSession, CryptoDriver
from pytest_virtio.spec.devices.crypto import (
    CryptoCipherAlgo,
    CryptoConfigStatus,
    CryptoFeature,
    CryptoOp,
    CryptoService,
)

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

# NIST SP 800-38A, appendix F: the four blocks of all examples, the IV of CBC and the counter of CTR.
PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
IV = bytes(range(16))
KEY_128 = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
KEY_192 = bytes.fromhex("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b")
KEY_256 = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
ECB, CBC, CTR = CryptoCipherAlgo.AES_ECB, CryptoCipherAlgo.AES_CBC, CryptoCipherAlgo.AES_CTR

VECTORS = {
    "F.1.1 ECB-AES128": (
        ECB,
        KEY_128,
        b"",
        "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf"
        "43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4",
    ),
    "F.1.5 ECB-AES256": (
        ECB,
        KEY_256,
        b"",
        "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870"
        "b6ed21b99ca6f4f9f153e7b1beafed1d23304b7a39f9f3ff067d8d8f9e24ecc7",
    ),
    "F.2.1 CBC-AES128": (
        CBC,
        KEY_128,
        IV,
        "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
        "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7",
    ),
    "F.2.3 CBC-AES192": (
        CBC,
        KEY_192,
        IV,
        "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
        "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd",
    ),
    "F.2.5 CBC-AES256": (
        CBC,
        KEY_256,
        IV,
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
        "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
    ),
    "F.5.1 CTR-AES128": (
        CTR,
        KEY_128,
        bytes(range(0xF0, 0x100)),
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee",
    ),
}

NOWHERE = CipherSession(5000, CBC, CryptoOp.ENCRYPT)
"""No QEMU has so many sessions."""


@pytest.mark.parametrize(("algo", "key", "iv", "cipher"), VECTORS.values(), ids=VECTORS)
def test_vector(scripted: Boot, algo: int, key: bytes, iv: bytes, cipher: str) -> None:
    """5.9.7.6: a session for each direction gives what NIST published."""
    with scripted(Crypto()) as virtio:
        driver = virtio.guest.driver("crypto0", CryptoDriver)
        forth = driver.create_session(algo, key)
        back = driver.create_session(algo, key, CryptoOp.DECRYPT)
        assert driver.encrypt(forth, PLAIN, iv).hex() == cipher
        assert driver.decrypt(back, bytes.fromhex(cipher), iv) == PLAIN


def test_config(scripted: Boot) -> None:
    """5.9.5, 5.9.4: ready, as many data queues as there are, and a cipher that it has; no REVISION_1 on any QEMU."""
    with scripted(Crypto()) as virtio:
        driver = virtio.guest.driver("crypto0", CryptoDriver)
        config = driver.config()
        assert config.status == CryptoConfigStatus.HW_READY
        assert config.max_dataqueues == len(driver.queues) - 1
        assert config.crypto_services >> CryptoService.CIPHER & 1
        assert config.cipher_algo_l >> CBC & 1
        assert config.max_cipher_key_len >= len(KEY_256)
        assert not driver.offered().bits >> CryptoFeature.REVISION_1 & 1
        assert status_of(virtio, "crypto0").driver_ok


def test_services_are_those_of_the_backend(scripted: Boot) -> None:
    """5.9.4: crypto_services, against QMP's query-cryptodev (since QEMU 8.0)."""
    with scripted(Crypto()) as virtio:
        try:
            (backend,) = cast(list[dict[str, list[str]]], virtio.vm.qmp("query-cryptodev"))
        except CommandError as error:
            pytest.skip(str(error))
        services = virtio.guest.driver("crypto0", CryptoDriver).config().crypto_services
        assert {service.name.lower() for service in CryptoService if services >> service & 1} == set(backend["service"])


def test_sessions_stand_side_by_side(scripted: Boot) -> None:
    """5.9.7.2.1: a session is a key of its own, and is gone when it is destroyed; the others stay."""
    with scripted(Crypto()) as virtio:
        driver = virtio.guest.driver("crypto0", CryptoDriver)
        first, second = driver.create_session(ECB, KEY_128), driver.create_session(ECB, KEY_256)
        assert first.id != second.id
        driver.destroy_session(first)
        with pytest.raises(RequestFailedError, match="INVSESS"):
            driver.encrypt(first, PLAIN)
        assert driver.encrypt(second, PLAIN).hex() == VECTORS["F.1.5 ECB-AES256"][3]


REFUSED: dict[str, tuple[Callable[[CryptoDriver], object], str]] = {
    # NOTSUPP would be the right word for the first two (5.9.7.1); QEMU says ERR for whatever it refuses.
    "algorithm": (lambda driver: driver.create_session(CryptoCipherAlgo.KASUMI_F8, KEY_128), "ERR"),
    "no algorithm": (lambda driver: driver.create_session(0xFFFFFFFF, KEY_128), "ERR"),
    "key length": (lambda driver: driver.create_session(CBC, KEY_128[1:]), "ERR"),
    "no key": (lambda driver: driver.create_session(CBC, b""), "ERR"),
    "part of a block": (lambda driver: driver.encrypt(driver.create_session(ECB, KEY_128), PLAIN[1:]), "ERR"),
    "IV length": (lambda driver: driver.encrypt(driver.create_session(CBC, KEY_128), PLAIN, IV[1:]), "ERR"),
    "no such session": (lambda driver: driver.encrypt(NOWHERE, PLAIN, IV), "INVSESS"),
    "destroy no session": (lambda driver: driver.destroy_session(NOWHERE), "ERR"),
}


@pytest.mark.parametrize(("ask", "status"), REFUSED.values(), ids=REFUSED)
def test_refused(scripted: Boot, ask: Callable[[CryptoDriver], object], status: str) -> None:
    """5.9.7.1: an error status becomes an error that names it, and the device goes on."""
    with scripted(Crypto()) as virtio:
        driver = virtio.guest.driver("crypto0", CryptoDriver)
        with pytest.raises(RequestFailedError, match=rf"\({status}\)"):
            ask(driver)
        assert driver.encrypt(driver.create_session(CBC, KEY_128), PLAIN, IV).hex() == VECTORS["F.2.1 CBC-AES128"][3]


def test_bad_input(scripted: Boot) -> None:
    """What no request can hold is the caller's error, and reaches no device."""
    with scripted(Crypto()) as virtio:
        driver = virtio.guest.driver("crypto0", CryptoDriver)
        with pytest.raises(UsageError, match="no data"):
            driver.encrypt(NOWHERE, b"")
        with pytest.raises(UsageError, match="algo: 4294967296 doesn't fit"):
            driver.create_session(1 << 32, KEY_128)
        assert [queue.kicks for queue in driver.queues] == [0, 0]
