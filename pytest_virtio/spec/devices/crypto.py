"""The crypto device, id 20: features, queues, configuration space, cipher requests (virtio 1.3 section 5.9, Linux
virtio_crypto.h).

Of the services it describes CIPHER alone, in session mode. It must not know how a cipher works, nor how a request is
put into a queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import Annotated, Final

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature, Requirement
from pytest_virtio.spec.layout import U8, U32, U64, Layout
from pytest_virtio.spec.queues import QueueNames

__all__ = (
    "CRYPTO",
    "CryptoFeature",
    "CryptoConfig",
    "CryptoConfigStatus",
    "CryptoService",
    "CryptoOpcode",
    "CryptoCipherAlgo",
    "CryptoOp",
    "CryptoSymOp",
    "CryptoStatus",
    "CryptoCtrlHeader",
    "CryptoCipherSessionFlf",
    "CryptoSymCreateSessionFlf",
    "CryptoCreateSessionInput",
    "CryptoDestroySessionFlf",
    "CryptoDestroySessionInput",
    "CryptoOpHeader",
    "CryptoOpFlag",
    "CryptoCipherDataFlf",
    "CryptoSymDataFlf",
    "CryptoInhdr",
    "CTRLQ_OP_SPEC_HDR_LEGACY",
    "DATAQ_OP_SPEC_HDR_LEGACY",
)

CTRLQ_OP_SPEC_HDR_LEGACY: Final = 56
DATAQ_OP_SPEC_HDR_LEGACY: Final = 48
"""To how many bytes fixed-length parameters are padded without REVISION_1 (sections 5.9.7.2 and 5.9.7.3)."""


class CryptoFeature(Feature, prefix="VIRTIO_CRYPTO_F_"):
    """Feature bits of the crypto device."""

    REVISION_1 = 0
    CIPHER_STATELESS_MODE = 1
    HASH_STATELESS_MODE = 2
    MAC_STATELESS_MODE = 3
    AEAD_STATELESS_MODE = 4
    AKCIPHER_STATELESS_MODE = 5


def _queues(count: int, features: int) -> Iterator[QueueNames]:
    """Name the data queues, and the last one as the control queue (section 5.9.2)."""
    for index in range(count - 1):
        yield f"data{index}", f"dataq{index + 1}"
    yield "ctrl", "controlq"


_STATELESS = tuple(feature for feature in CryptoFeature if feature.name.endswith("_STATELESS_MODE"))

CRYPTO = DeviceType(
    20,
    "crypto",
    "crypto device",
    CryptoFeature,
    _queues,
    requirements=(Requirement(_STATELESS, (CryptoFeature.REVISION_1,), "5.9.3.1"),),
)


class CryptoConfigStatus(IntFlag):
    """VIRTIO_CRYPTO_S_*: bits of ``status`` in configuration space (section 5.9.5)."""

    HW_READY = 1


class CryptoService(IntEnum):
    """VIRTIO_CRYPTO_SERVICE_*: bit numbers of ``crypto_services``, and the high byte of opcodes (section 5.9.4)."""

    CIPHER = 0
    HASH = 1
    MAC = 2
    AEAD = 3
    AKCIPHER = 4


class CryptoConfig(Layout):
    """``struct virtio_crypto_config`` (section 5.9.5): the driver writes nothing of it."""

    status: U32
    max_dataqueues: U32
    crypto_services: U32
    cipher_algo_l: U32
    cipher_algo_h: U32
    hash_algo: U32
    mac_algo_l: U32
    mac_algo_h: U32
    aead_algo: U32
    max_cipher_key_len: U32
    max_auth_key_len: U32
    akcipher_algo: U32
    max_size: U64


class CryptoOpcode(IntEnum):
    """Values of ``opcode`` of both queues (sections 5.9.7.2 and 5.9.7.3): the service and 8 bits of operation."""

    CIPHER_ENCRYPT = 0x000
    CIPHER_DECRYPT = 0x001
    CIPHER_CREATE_SESSION = 0x002
    CIPHER_DESTROY_SESSION = 0x003
    HASH = 0x100
    HASH_CREATE_SESSION = 0x102
    HASH_DESTROY_SESSION = 0x103
    MAC = 0x200
    MAC_CREATE_SESSION = 0x202
    MAC_DESTROY_SESSION = 0x203
    AEAD_ENCRYPT = 0x300
    AEAD_DECRYPT = 0x301
    AEAD_CREATE_SESSION = 0x302
    AEAD_DESTROY_SESSION = 0x303
    AKCIPHER_ENCRYPT = 0x400
    AKCIPHER_DECRYPT = 0x401
    AKCIPHER_SIGN = 0x402
    AKCIPHER_VERIFY = 0x403
    AKCIPHER_CREATE_SESSION = 0x404
    AKCIPHER_DESTROY_SESSION = 0x405


class CryptoCipherAlgo(IntEnum):
    """VIRTIO_CRYPTO_CIPHER_*: values of ``algo``, and bit numbers of ``cipher_algo_l`` (section 5.9.4.1)."""

    NO_CIPHER = 0
    ARC4 = 1
    AES_ECB = 2
    AES_CBC = 3
    AES_CTR = 4
    DES_ECB = 5
    DES_CBC = 6
    # Three keys; VIRTIO_CRYPTO_CIPHER_3DES_ECB and so on, which is no name in Python.
    TRIPLE_DES_ECB = 7
    TRIPLE_DES_CBC = 8
    TRIPLE_DES_CTR = 9
    KASUMI_F8 = 10
    SNOW3G_UEA2 = 11
    AES_F8 = 12
    AES_XTS = 13
    ZUC_EEA3 = 14


class CryptoOp(IntEnum):
    """VIRTIO_CRYPTO_OP_*: values of ``op`` of a session (section 5.9.7.2.1)."""

    ENCRYPT = 1
    DECRYPT = 2


class CryptoSymOp(IntEnum):
    """VIRTIO_CRYPTO_SYM_OP_*: values of ``op_type`` (section 5.9.7.2.1)."""

    NONE = 0
    CIPHER = 1
    ALGORITHM_CHAINING = 2


class CryptoStatus(IntEnum):
    """``enum VIRTIO_CRYPTO_STATUS`` (section 5.9.7.1)."""

    OK = 0
    ERR = 1
    BADMSG = 2
    NOTSUPP = 3
    INVSESS = 4
    NOSPC = 5
    KEY_REJECTED = 6


class CryptoCtrlHeader(Layout):
    """``struct virtio_crypto_ctrl_header``: begins each request of controlq (section 5.9.7.2).

    The fixed-length parameters of the opcode follow, then those of variable length, then what the device writes.
    With REVISION_1 the fixed ones are as long as their structure; without it they are padded to 56 bytes. To
    :class:`CryptoSymCreateSessionFlf` this makes no difference, to :class:`CryptoDestroySessionFlf` it does.
    Linux calls ``reserved`` ``queue_id``.
    """

    opcode: U32
    algo: U32 = 0
    flag: U32 = 0
    reserved: U32 = 0


class CryptoCipherSessionFlf(Layout):
    """``struct virtio_crypto_cipher_session_flf`` (section 5.9.7.2.1); Linux calls ``key_len`` ``keylen``."""

    algo: U32
    key_len: U32
    op: U32
    padding: U32 = 0


class CryptoSymCreateSessionFlf(Layout):
    """``struct virtio_crypto_sym_create_session_flf``: CIPHER_CREATE_SESSION (section 5.9.7.2.1).

    ``op_flf`` is a packed :class:`CryptoCipherSessionFlf`; the key follows, then :class:`CryptoCreateSessionInput`.
    """

    op_flf: Annotated[bytes, "48s"]
    op_type: U32 = CryptoSymOp.CIPHER
    padding: U32 = 0


class CryptoCreateSessionInput(Layout):
    """``struct virtio_crypto_create_session_input``: the device's answer (section 5.9.7.2.1)."""

    session_id: U64
    status: U32
    padding: U32


class CryptoDestroySessionFlf(Layout):
    """``struct virtio_crypto_destroy_session_flf``: CIPHER_DESTROY_SESSION (section 5.9.7.2.1)."""

    session_id: U64


class CryptoDestroySessionInput(Layout):
    """``struct virtio_crypto_destroy_session_input``: the device's answer, one byte (section 5.9.7.2.1)."""

    status: U8


class CryptoOpFlag(IntFlag):
    """VIRTIO_CRYPTO_FLAG_*: bits of ``flag`` of a data request, ignored without REVISION_1 (section 5.9.7.3)."""

    SESSION_MODE = 1


class CryptoOpHeader(Layout):
    """``struct virtio_crypto_op_header``: begins each request of a dataq (section 5.9.7.3).

    :class:`CryptoSymDataFlf` follows for a cipher, then IV and source data, then what the device writes: destination
    data and :class:`CryptoInhdr`. Without REVISION_1 fixed-length parameters are padded to 48 bytes, as many as these
    have anyway.
    """

    opcode: U32
    algo: U32
    session_id: U64
    flag: U32 = 0
    padding: U32 = 0


class CryptoCipherDataFlf(Layout):
    """``struct virtio_crypto_cipher_data_flf`` (section 5.9.7.6)."""

    iv_len: U32
    src_data_len: U32
    dst_data_len: U32
    padding: U32 = 0


class CryptoSymDataFlf(Layout):
    """``struct virtio_crypto_sym_data_flf`` (section 5.9.7.6); ``op_type_flf`` is a packed CryptoCipherDataFlf."""

    op_type_flf: Annotated[bytes, "40s"]
    op_type: U32 = CryptoSymOp.CIPHER
    padding: U32 = 0


class CryptoInhdr(Layout):
    """``struct virtio_crypto_inhdr``: the byte with which the device ends a data request (section 5.9.7.3)."""

    status: U8
