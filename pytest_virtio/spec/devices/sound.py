"""The sound device, id 25: features, queues, configuration space, PCM messages (virtio 1.3 section 5.14, Linux
virtio_snd.h).

Of control elements it holds the codes alone. It must not know how sound is played, nor in which order.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U8, U32, U64, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "SOUND",
    "SoundFeature",
    "SoundConfig",
    "SoundHdr",
    "SoundCode",
    "SoundEvent",
    "SoundDirection",
    "SoundQueryInfo",
    "SoundInfo",
    "SoundJackInfo",
    "SoundJackFeature",
    "SoundPcmInfo",
    "SoundPcmFeature",
    "SoundPcmFormat",
    "SoundPcmRate",
    "SoundPcmHdr",
    "SoundPcmSetParams",
    "SoundPcmXfer",
    "SoundPcmStatus",
    "SoundChmapInfo",
    "SoundChmapPosition",
    "CHMAP_MAX_SIZE",
)

CHMAP_MAX_SIZE: Final = 18
"""VIRTIO_SND_CHMAP_MAX_SIZE (section 5.14.6.9.1)."""


class SoundFeature(Feature, prefix="VIRTIO_SND_F_"):
    """Feature bits of the sound device."""

    CTLS = 0


SOUND = DeviceType(
    25,
    "sound",
    "sound device",
    SoundFeature,
    in_order(("ctrl", "controlq"), ("event", "eventq"), ("tx", "txq"), ("rx", "rxq")),
    # Section 5.14.6.8: buffers of a stream wait until it is started, and then for its pace.
    kept=("event", "tx", "rx"),
)


class SoundConfig(Layout):
    """``struct virtio_snd_config`` (section 5.14.4); ``controls`` depends on CTLS. The driver writes nothing of it."""

    jacks: U32
    streams: U32
    chmaps: U32
    controls: U32


class SoundCode(IntEnum):
    """Requests (R), events (EVT) and statuses (S): values of ``code`` (section 5.14.6)."""

    R_JACK_INFO = 0x0001
    R_JACK_REMAP = 0x0002
    R_PCM_INFO = 0x0100
    R_PCM_SET_PARAMS = 0x0101
    R_PCM_PREPARE = 0x0102
    R_PCM_RELEASE = 0x0103
    R_PCM_START = 0x0104
    R_PCM_STOP = 0x0105
    R_CHMAP_INFO = 0x0200
    R_CTL_INFO = 0x0300
    R_CTL_ENUM_ITEMS = 0x0301
    R_CTL_READ = 0x0302
    R_CTL_WRITE = 0x0303
    R_CTL_TLV_READ = 0x0304
    R_CTL_TLV_WRITE = 0x0305
    R_CTL_TLV_COMMAND = 0x0306

    EVT_JACK_CONNECTED = 0x1000
    EVT_JACK_DISCONNECTED = 0x1001
    EVT_PCM_PERIOD_ELAPSED = 0x1100
    EVT_PCM_XRUN = 0x1101
    EVT_CTL_NOTIFY = 0x1200

    S_OK = 0x8000
    S_BAD_MSG = 0x8001
    S_NOT_SUPP = 0x8002
    S_IO_ERR = 0x8003


class SoundHdr(Layout):
    """``struct virtio_snd_hdr``: begins each message of controlq, both parts, and each event (section 5.14.6)."""

    code: U32


class SoundEvent(Layout):
    """``struct virtio_snd_event``: what the device writes into a buffer of eventq (section 5.14.6)."""

    hdr: SoundHdr
    data: U32


class SoundDirection(IntEnum):
    """VIRTIO_SND_D_* (section 5.14.6)."""

    OUTPUT = 0
    INPUT = 1


class SoundQueryInfo(Layout):
    """``struct virtio_snd_query_info``: the request of every R_*_INFO (section 5.14.6.1).

    The device answers with :class:`SoundHdr` and ``count`` structures. ``size_``, its ``size``, is how long each is.
    """

    hdr: SoundHdr
    start_id: U32
    count: U32
    size_: U32


class SoundInfo(Layout):
    """``struct virtio_snd_info``: begins each structure of an answer (section 5.14.6.1)."""

    hda_fn_nid: U32


class SoundJackFeature(IntEnum):
    """VIRTIO_SND_JACK_F_*: bit numbers of ``features`` of a jack (section 5.14.6.4.1)."""

    REMAP = 0


class SoundJackInfo(Layout):
    """``struct virtio_snd_jack_info`` (section 5.14.6.4.1)."""

    hdr: SoundInfo
    features: U32
    hda_reg_defconf: U32
    hda_reg_caps: U32
    connected: U8
    padding: Annotated[bytes, "7s"]


class SoundPcmFeature(IntEnum):
    """VIRTIO_SND_PCM_F_*: bit numbers of ``features`` of a stream (section 5.14.6.6.2)."""

    SHMEM_HOST = 0
    SHMEM_GUEST = 1
    MSG_POLLING = 2
    EVT_SHMEM_PERIODS = 3
    EVT_XRUNS = 4


class SoundPcmFormat(IntEnum):
    """VIRTIO_SND_PCM_FMT_*: values of ``format``, bit numbers of ``formats`` (section 5.14.6.6.2)."""

    IMA_ADPCM = 0
    MU_LAW = 1
    A_LAW = 2
    S8 = 3
    U8 = 4
    S16 = 5
    U16 = 6
    S18_3 = 7
    U18_3 = 8
    S20_3 = 9
    U20_3 = 10
    S24_3 = 11
    U24_3 = 12
    S20 = 13
    U20 = 14
    S24 = 15
    U24 = 16
    S32 = 17
    U32 = 18
    FLOAT = 19
    FLOAT64 = 20
    DSD_U8 = 21
    DSD_U16 = 22
    DSD_U32 = 23
    IEC958_SUBFRAME = 24


class SoundPcmRate(IntEnum):
    """VIRTIO_SND_PCM_RATE_*, in Hz: values of ``rate``, bit numbers of ``rates`` (section 5.14.6.6.2)."""

    RATE_5512 = 0
    RATE_8000 = 1
    RATE_11025 = 2
    RATE_16000 = 3
    RATE_22050 = 4
    RATE_32000 = 5
    RATE_44100 = 6
    RATE_48000 = 7
    RATE_64000 = 8
    RATE_88200 = 9
    RATE_96000 = 10
    RATE_176400 = 11
    RATE_192000 = 12
    RATE_384000 = 13


class SoundPcmInfo(Layout):
    """``struct virtio_snd_pcm_info`` (section 5.14.6.6.2)."""

    hdr: SoundInfo
    features: U32
    formats: U64
    rates: U64
    direction: U8
    channels_min: U8
    channels_max: U8
    padding: Annotated[bytes, "5s"]


class SoundPcmHdr(Layout):
    """``struct virtio_snd_pcm_hdr``: all there is to R_PCM_PREPARE, RELEASE, START and STOP (section 5.14.6.6)."""

    hdr: SoundHdr
    stream_id: U32


class SoundPcmSetParams(Layout):
    """``struct virtio_snd_pcm_set_params`` (section 5.14.6.6.3)."""

    hdr: SoundPcmHdr
    buffer_bytes: U32
    period_bytes: U32
    features: U32
    channels: U8
    format: U8
    rate: U8
    padding: U8 = 0


class SoundPcmXfer(Layout):
    """``struct virtio_snd_pcm_xfer``: begins each buffer of tx and rx (section 5.14.6.8)."""

    stream_id: U32


class SoundPcmStatus(Layout):
    """``struct virtio_snd_pcm_status``: ends each buffer of tx and rx; written by the device (section 5.14.6.8)."""

    status: U32
    latency_bytes: U32


class SoundChmapPosition(IntEnum):
    """VIRTIO_SND_CHMAP_* (section 5.14.6.9.1)."""

    NONE = 0
    NA = 1
    MONO = 2
    FL = 3
    FR = 4
    RL = 5
    RR = 6
    FC = 7
    LFE = 8
    SL = 9
    SR = 10
    RC = 11
    FLC = 12
    FRC = 13
    RLC = 14
    RRC = 15
    FLW = 16
    FRW = 17
    FLH = 18
    FCH = 19
    FRH = 20
    TC = 21
    TFL = 22
    TFR = 23
    TFC = 24
    TRL = 25
    TRR = 26
    TRC = 27
    TFLC = 28
    TFRC = 29
    TSL = 30
    TSR = 31
    LLFE = 32
    RLFE = 33
    BC = 34
    BLC = 35
    BRC = 36


class SoundChmapInfo(Layout):
    """``struct virtio_snd_chmap_info`` (section 5.14.6.9.1): ``channels`` bytes of ``positions`` are valid."""

    hdr: SoundInfo
    direction: U8
    channels: U8
    positions: Annotated[bytes, "18s"]
