"""Messages between the workers: what they hold, and their bytes.

Every message is a ZeroMQ multipart: [version and kind (2 bytes), MessagePack, buffers ...].  Pixels and pictures travel
as buffers of their own, never copied into the MessagePack part.  A message of another version, an unknown kind or a
malformed one raises WireError, and so does one with a value that could not be stored or computed with: receivers count
and drop it.
"""

import re
from collections.abc import Sequence
from math import isfinite, prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WireError
from pipeline.imaging.frame_size import MAX_SIDE_PX
from pipeline.types import UAV, Band, CameraState, Detections, Frame, FrameRef, Mask

VERSION = 2
MAX_PIXELS = 64 * 1024 * 1024  # of one frame, in bytes
MAX_ASPECT = 32  # a line of pixels would be padded and scaled to far more
MAX_NUMBER = 2**63 - 1  # what the store can hold
MAX_TIME_S = 1e9  # of presentation
MAX_SESSION = 64  # characters
MAX_SAMPLES = 20_000  # of one heartbeat
METRIC_KINDS = ("counter", "gauge", "histogram")


class Stamps(msgspec.Struct, array_like=True):
    """When a frame passed each point, on this host's monotonic clock, ns.  0: not yet."""

    decode_ns: int = 0  # a duration, unlike the others
    sent_ns: int = 0
    arrived_ns: int = 0
    started_ns: int = 0  # its batch was given to the device
    inferred_ns: int = 0
    masked_ns: int = 0


class CreditRequest(msgspec.Struct, tag="hello"):
    """capture -> segmentation: a frame of this camera's session waits for credit.  Repeated until it comes."""

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
    """segmentation -> capture: the fates of frames, and whether `worker` takes another."""

    worker: str  # new at each start of the segmentation worker
    session: str
    segmented: list[int] = []  # sequence numbers
    failed: list[int] = []
    granted: bool = False
    newest: int = -1  # of its frames that have come here, the sequence number; a later one uses this credit up


class EndOfStream(msgspec.Struct, tag="end"):
    """capture -> segmentation -> track worker: the recording ended, all its frames came before."""

    camera: str
    session: str


class TimeRequest(msgspec.Struct, tag="ask"):
    """capture -> segmentation on another host: what time is it there?"""

    camera: str
    session: str
    asked_ns: int  # monotonic


class TimeReply(msgspec.Struct, tag="answer"):
    """segmentation -> capture."""

    session: str
    asked_ns: int
    said_ns: int  # monotonic, of the host that answers


class LedgerCopy(msgspec.Struct, tag="ledger"):
    """capture -> track worker on another host: what the camera's ledger says."""

    camera: str
    session: str
    words: bytes


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
    name: str
    labels: dict[str, str]
    value: float


class Heartbeat(msgspec.Struct, tag="heartbeat"):
    """worker -> supervisor: alive, and its metrics."""

    worker: str
    pid: int
    started_ns: int
    families: dict[str, tuple[str, str, list[Sample]]]  # metric -> type, help, samples
    run: str = ""  # of the supervisor that started it


Message = (
    CreditRequest
    | FrameHeader
    | Credit
    | EndOfStream
    | TimeRequest
    | TimeReply
    | LedgerCopy
    | Result
    | CameraState
    | Heartbeat
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
_PREFIX = bytes([0xDA, VERSION])
_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


def encode(message: Message, *buffers: Any) -> list[Any]:
    return [_PREFIX, _encoder.encode(message), *buffers]


def decode(parts: Sequence[Any]) -> tuple[Message, list[memoryview]]:
    """The message and its buffers.  Raises WireError."""
    views = [memoryview(part) for part in parts]
    if len(views) < 2:
        raise WireError(f"a message of {len(views)} parts; allowed: two or more")
    prefix = bytes(views[0][:2])
    if prefix != _PREFIX or len(views[0]) != 2:
        raise WireError(f"a message of version {prefix.hex()}; allowed: {_PREFIX.hex()}")
    try:
        message = _decoder.decode(views[1])
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"a malformed message: {error}") from error
    _check(message)
    return message, views[2:]


def camera_of(message: Message) -> str:
    """Which camera it speaks of; "": none."""
    if isinstance(message, FrameHeader | Result):
        return message.ref.camera
    return getattr(message, "camera", "")


def _check(message: Message) -> None:
    """Types are right by now; values need not be.  Raises WireError."""
    match message:
        case FrameHeader() | Result():
            ref = message.ref
            _check_session(ref.session)
            _check_time(ref.pts_s)
            _check_numbers(ref.seq, ref.received_mono_ns, ref.received_utc_ns, ref.ntp_ns or 0)
            _check_numbers(*msgspec.structs.astuple(message.stamps))
        case CameraState():
            _check_session(message.session)
            _check_time(message.pts_s)
            _check_numbers(message.time_utc_ns, message.frame)
        case Heartbeat():
            _check_families(message)
        case TimeRequest() | TimeReply():
            _check_session(message.session)
            _check_numbers(message.asked_ns, message.said_ns if isinstance(message, TimeReply) else 0)
        case CreditRequest() | Credit() | EndOfStream() | LedgerCopy():
            _check_session(message.session)


def _check_session(session: str) -> None:
    if not 1 <= len(session) <= MAX_SESSION:
        raise WireError(f"a session of {len(session)} characters; allowed: 1 to {MAX_SESSION}")


def _check_time(pts_s: float) -> None:
    if not abs(pts_s) <= MAX_TIME_S:  # NaN is not, either
        raise WireError(f"a presentation time of {pts_s} s; allowed: up to {MAX_TIME_S:.0f}")


def _check_numbers(*numbers: int) -> None:
    for number in numbers:
        if not 0 <= number <= MAX_NUMBER:
            raise WireError(f"a number or time of {number}; allowed: 0 to {MAX_NUMBER}")


def _check_families(heartbeat: Heartbeat) -> None:
    """What `/metrics` could not show."""
    if sum(len(samples) for _, _, samples in heartbeat.families.values()) > MAX_SAMPLES:
        raise WireError(f"a heartbeat with too many samples; allowed: up to {MAX_SAMPLES}")
    for name, (kind, _, samples) in heartbeat.families.items():
        if kind not in METRIC_KINDS:
            raise WireError(f"a metric of type {kind[:40]!r}; allowed: {', '.join(METRIC_KINDS)}")
        names = {name, *(part for sample in samples for part in (sample.name, *sample.labels))}
        for one in names:
            if not _METRIC_NAME.fullmatch(one):
                raise WireError(f"a metric or label {one[:40]!r}; allowed: {_METRIC_NAME.pattern}")


def frame_message(frame: Frame, stamps: Stamps, live: bool, *, jpeg: bool = False) -> list[Any]:
    """`jpeg`: the pixels are compressed, as a thin link needs it."""
    pixels = np.ascontiguousarray(frame.pixels)
    header = FrameHeader(frame.ref, frame.band, pixels.shape, stamps, live, jpeg)
    if not jpeg:
        return encode(header, pixels.data)
    from pipeline.transport.jpeg import jpeg_bytes  # here: OpenCV is large, and most cameras do not need it

    return encode(header, jpeg_bytes(pixels))


def frame_of(header: FrameHeader, buffers: Sequence[memoryview]) -> Frame:
    """The frame of a message; its pixels are a view of the message's buffer.  Raises WireError."""
    shape = header.shape
    if len(buffers) != 1 or len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] != 3):
        raise WireError(f"a frame of shape {shape} with {len(buffers)} buffers; allowed: HxW or HxWx3 and one buffer")
    size = prod(shape)
    if max(shape) > MAX_SIDE_PX or max(shape[:2]) > MAX_ASPECT * min(shape[:2]):
        raise WireError(f"a frame of shape {shape}; allowed: sides up to {MAX_SIDE_PX}, 1 : {MAX_ASPECT}")
    if size > MAX_PIXELS or not (header.jpeg or size == buffers[0].nbytes):
        raise WireError(f"a frame of shape {shape} with {buffers[0].nbytes} bytes; allowed: {min(size, MAX_PIXELS)}")
    if header.jpeg:
        from pipeline.transport.jpeg import pixels_of_jpeg  # as above

        return Frame(header.ref, header.band, pixels_of_jpeg(buffers[0], shape))
    return Frame(header.ref, header.band, np.frombuffer(buffers[0], np.uint8).reshape(shape))


def result_message(detections: Detections, stamps: Stamps, jpeg: bytes) -> list[Any]:
    columns = (
        detections.xyxy,
        detections.score[:, None],
        detections.area_px[:, None],
        detections.centroid,
        detections.class_scores,
    )
    result = Result(
        ref=detections.ref,
        band=detections.band,
        size_px=detections.size_px,
        stamps=stamps,
        classes=detections.classes,
        boxes=np.concatenate(columns, axis=1, dtype=np.float32).tobytes(),
        masks=detections.masks,
        mask_scale=detections.mask_scale,
        camera_shift_px=detections.camera_shift_px,
    )
    return encode(result, jpeg)


def detections_of(result: Result) -> Detections:
    """Raises WireError."""
    classes, width = result.classes, 8 + len(result.classes)
    if not classes or len(set(classes)) != len(classes) or (len(classes) > 1 and UAV not in classes):
        raise WireError(f"a result of classes {str(classes)[:100]}; allowed: one, or several with {UAV}, all different")
    numbers, rest = divmod(len(result.boxes), 4)
    if rest or numbers % width or numbers // width != len(result.masks):
        raise WireError(f"a result of {numbers} numbers, {len(classes)} classes, {len(result.masks)} masks")
    rows = np.frombuffer(result.boxes, np.float32).reshape(-1, width)
    _check_rows(rows)
    _check_geometry(result)
    return Detections(
        ref=result.ref,
        band=result.band,
        size_px=result.size_px,
        classes=result.classes,
        xyxy=rows[:, :4],
        score=rows[:, 4],
        area_px=rows[:, 5],
        centroid=rows[:, 6:8],
        class_scores=rows[:, 8:],
        masks=result.masks,
        mask_scale=result.mask_scale,
        camera_shift_px=result.camera_shift_px,
    )


def _check_rows(rows: NDArray[np.float32]) -> None:
    """Boxes with an area, inside or near a frame; scores that are probabilities.  NaN is none of these."""
    boxes, scores = rows[:, :4], rows[:, [4, *range(8, rows.shape[1])]]
    far, places = 2 * MAX_SIDE_PX, rows[:, [0, 1, 2, 3, 6, 7]]
    areas = rows[:, 5]
    if not ((np.abs(places) <= far).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise WireError("a result with a box that cannot be")
    if not ((areas >= 0) & (areas <= far**2)).all() or not ((scores >= 0) & (scores <= 1.001)).all():  # rounding
        raise WireError("a result with a score or an area that cannot be")


def _check_geometry(result: Result) -> None:
    if not all(1 <= side <= MAX_SIDE_PX for side in result.size_px):
        raise WireError(f"a result of a frame of {result.size_px}; allowed: sides of 1 to {MAX_SIDE_PX}")
    if not all(isfinite(scale) and 0 < scale <= MAX_SIDE_PX for scale in result.mask_scale):
        raise WireError(f"a result with masks of scale {result.mask_scale}")
    if not all(abs(shift) <= MAX_SIDE_PX for shift in result.camera_shift_px or ()):
        raise WireError(f"a result of a picture that moved by {result.camera_shift_px}")
    for mask in result.masks:
        sides = (mask.left, mask.top, mask.width, mask.height)
        if not all(0 <= side <= MAX_SIDE_PX for side in sides) or len(mask.bits) != -(-mask.width * mask.height // 8):
            raise WireError(f"a mask at {sides} of {len(mask.bits)} bytes")
