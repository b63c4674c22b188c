"""Messages between the workers, and their encoding.

Every message is a ZeroMQ multipart: [magic and version (2 bytes), MessagePack, buffers ...].  Pixels and JPEGs are
buffers of their own, never copied into the MessagePack part.  A message of another version, of an unknown kind or
malformed raises WireError, and so does one with a value that could not be stored or computed with: receivers count
and drop it.  Tags are part of the protocol: they change with VERSION only.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from pipeline.errors import WireError
from pipeline.store.clips import ClipRecord
from pipeline.transport.wire_values import check_alert, check_axis, check_clip, check_numbers, check_session, check_time
from pipeline.types import AxisSample, Band, CameraState, FrameRef, Mask

VERSION = 3
MAX_SAMPLES = 20_000  # per heartbeat
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
METRIC_KINDS = ("counter", "gauge", "histogram")


class Stamps(msgspec.Struct, array_like=True):
    """When a frame passed each point, on the inference host's monotonic clock, ns; 0: not yet.  And what it cost."""

    decode_ns: int = 0  # a duration, unlike the others
    sent_ns: int = 0
    arrived_ns: int = 0
    started_ns: int = 0  # its batch was submitted
    inferred_ns: int = 0
    masked_ns: int = 0
    replaced: int = 0  # frames of its camera that overload took since the one before


class CreditRequest(msgspec.Struct, tag="hello"):
    """capture -> segmentation: a frame of this camera's session waits for credit.  Repeated until it is granted."""

    camera: str
    session: str
    live: bool


class FrameHeader(msgspec.Struct, tag="frame"):
    """capture -> segmentation, with one buffer: the pixels."""

    ref: FrameRef
    band: Band
    shape: tuple[int, ...]
    stamps: Stamps
    live: bool
    jpeg: bool = False  # the pixels are a JPEG


class Credit(msgspec.Struct, tag="credit"):
    """segmentation -> capture: outcomes of frames, and whether another may be sent."""

    worker: str  # id, new at each start of the segmentation worker
    session: str
    segmented: list[int] = []  # sequence numbers
    failed: list[int] = []
    granted: bool = False
    newest: int = -1  # sequence number of the last frame that arrived; a later one uses this credit up
    overdue: Share = 0.0  # of the view, what the network did not process in time


class EndOfStream(msgspec.Struct, tag="end"):
    """capture -> segmentation -> track worker: the recording ended; all its frames were sent before."""

    camera: str
    session: str


class TimeRequest(msgspec.Struct, tag="ask"):
    """capture -> segmentation on another host: request for its monotonic clock."""

    camera: str
    session: str
    asked_ns: int  # monotonic


class TimeReply(msgspec.Struct, tag="answer"):
    """segmentation -> capture: the inference host's monotonic clock."""

    session: str
    asked_ns: int  # of the request
    said_ns: int


class LedgerCopy(msgspec.Struct, tag="ledger"):
    """capture -> track worker on another host: the camera's ledger."""

    camera: str
    session: str
    words: bytes


class ClipRequest(msgspec.Struct, tag="clip"):
    """track worker -> capture: record an alert; sent again with `end_pts_s` at the alert's end.

    To another host it is repeated in answer to each ClipPoll, until the clip is offered.
    """

    camera: str
    session: str
    alert: str
    first_pts_s: float  # of the first detection
    end_pts_s: float | None = None


class ClipPoll(msgspec.Struct, tag="clip-poll"):
    """capture -> track worker on another host, periodically: asks for requests, and offers the oldest clip."""

    camera: str
    session: str
    offered: ClipRecord | None = None


class ClipTake(msgspec.Struct, tag="clip-take"):
    """track worker -> capture on another host: request for a part of an offered clip.

    An offset at its end says that the clip is there, or not wanted: it is to be deleted.
    """

    camera: str
    alert: str
    offset: int


class ClipChunk(msgspec.Struct, tag="clip-chunk"):
    """capture -> track worker on another host, with one buffer: the part of a clip that begins at this offset."""

    camera: str
    alert: str
    offset: int


class Result(msgspec.Struct, tag="result"):
    """segmentation -> track worker, with one buffer: a JPEG of the frame, possibly empty."""

    ref: FrameRef
    band: Band
    size_px: tuple[int, int]
    stamps: Stamps
    classes: tuple[str, ...]
    boxes: bytes  # float32 xyxy, score, area, centroid, class scores: (N, 8 + classes)
    masks: list[Mask]
    mask_scale: tuple[float, float]
    camera_shift_px: tuple[float, float] | None


class Sample(msgspec.Struct, array_like=True):
    """One sample of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Heartbeat(msgspec.Struct, tag="heartbeat"):
    """worker -> supervisor: a sign of life with the worker's metrics."""

    worker: str
    pid: int
    started_ns: int
    families: dict[str, tuple[str, str, list[Sample]]]  # metric -> type, help, samples
    run: str = ""  # id of the supervisor's run


Message = (
    CreditRequest
    | FrameHeader
    | Credit
    | EndOfStream
    | TimeRequest
    | TimeReply
    | LedgerCopy
    | ClipRequest
    | ClipPoll
    | ClipTake
    | ClipChunk
    | Result
    | CameraState
    | AxisSample
    | Heartbeat
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
_PREFIX = bytes([0xDA, VERSION])
_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


def encode(message: Message, *buffers: Any) -> list[Any]:
    """Return the parts of a message with its buffers."""
    return [_PREFIX, _encoder.encode(message), *buffers]


def decode(parts: Sequence[Any]) -> tuple[Message, list[memoryview]]:
    """Return the message and its buffers.  Raise WireError."""
    views = [memoryview(part) for part in parts]
    if len(views) < 2:
        raise WireError(f"message of {len(views)} parts: must be two or more")
    prefix = bytes(views[0][:2])
    if prefix != _PREFIX or len(views[0]) != 2:
        raise WireError(f"message of version {prefix.hex()}: must be {_PREFIX.hex()}")
    try:
        message = _decoder.decode(views[1])
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"malformed message: {error}") from error
    _check(message)
    return message, views[2:]


def camera_of(message: Message) -> str:
    """Return the id of the camera that a message is about; "": none."""
    if isinstance(message, FrameHeader | Result):
        return message.ref.camera
    return getattr(message, "camera", "")


def _check(message: Message) -> None:
    """Check the values; types are right by now.  Raise WireError."""
    match message:
        case FrameHeader() | Result():
            ref = message.ref
            check_session(ref.session)
            check_time(ref.pts_s)
            check_numbers(ref.seq, ref.received_mono_ns, ref.received_utc_ns, ref.ntp_ns or 0)
            check_numbers(*msgspec.structs.astuple(message.stamps))
        case CameraState():
            check_session(message.session)
            check_time(message.pts_s)
            check_numbers(message.time_utc_ns, message.frame)
        case AxisSample():
            check_numbers(message.mono_ns, message.error_ns)
            check_axis(message)
        case Heartbeat():
            _check_families(message)
        case TimeRequest() | TimeReply():
            check_session(message.session)
            check_numbers(message.asked_ns, message.said_ns if isinstance(message, TimeReply) else 0)
        case ClipRequest():
            check_session(message.session)
            check_time(message.first_pts_s)
            check_time(message.end_pts_s or 0.0)
            check_alert(message.alert)
        case ClipTake() | ClipChunk():
            check_alert(message.alert)
            check_numbers(message.offset)
        case ClipPoll():
            check_session(message.session)
            if message.offered is not None:
                check_clip(message.offered, message.camera)
        case CreditRequest() | Credit() | EndOfStream() | LedgerCopy():
            check_session(message.session)


def _check_families(heartbeat: Heartbeat) -> None:
    """Reject what `/metrics` could not expose."""
    count = sum(len(samples) for _, _, samples in heartbeat.families.values())
    if count > MAX_SAMPLES:
        raise WireError(f"heartbeat with {count} samples: must be at most {MAX_SAMPLES}")
    for name, (kind, _, samples) in heartbeat.families.items():
        if kind not in METRIC_KINDS:
            raise WireError(f"metric of type {kind[:40]!r}: must be one of {', '.join(METRIC_KINDS)}")
        names = {name, *(part for sample in samples for part in (sample.name, *sample.labels))}
        for one in names:
            if not _METRIC_NAME.fullmatch(one):
                raise WireError(f"metric or label {one[:40]!r}: must match {_METRIC_NAME.pattern}")
