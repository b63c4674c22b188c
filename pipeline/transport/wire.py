"""Messages between the workers, and their encoding.

Every message is a ZeroMQ multipart: [magic and version (2 bytes), MessagePack, buffers ...].  Pixels and JPEGs are
buffers of their own, never copied into the MessagePack part.  A message of another version, of an unknown kind or
malformed raises WireError, and so does one with a value that could not be stored or computed with: receivers count
and drop it.  Tags are part of the protocol: they change with VERSION only.
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
MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_ASPECT = 32  # a thinner frame would be padded to many times its size
MAX_NUMBER = 2**63 - 1  # SQLite's largest integer
MAX_PTS_S = 1e9
MAX_SESSION_CHARACTERS = 64
MAX_SAMPLES = 20_000  # per heartbeat
METRIC_KINDS = ("counter", "gauge", "histogram")


class Stamps(msgspec.Struct, array_like=True):
    """When a frame passed each point, on the inference host's monotonic clock, ns.  0: not yet."""

    decode_ns: int = 0  # a duration, unlike the others
    sent_ns: int = 0
    arrived_ns: int = 0
    started_ns: int = 0  # its batch was submitted
    inferred_ns: int = 0
    masked_ns: int = 0


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
    | Result
    | CameraState
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
    if not 1 <= len(session) <= MAX_SESSION_CHARACTERS:
        raise WireError(f"session of {len(session)} characters: must be 1 to {MAX_SESSION_CHARACTERS}")


def _check_time(pts_s: float) -> None:
    if not abs(pts_s) <= MAX_PTS_S:  # NaN is rejected too
        raise WireError(f"presentation time {pts_s} s: must be at most {MAX_PTS_S:.0f}")


def _check_numbers(*numbers: int) -> None:
    for number in numbers:
        if not 0 <= number <= MAX_NUMBER:
            raise WireError(f"number or time {number}: must be 0 to {MAX_NUMBER}")


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


def frame_message(frame: Frame, stamps: Stamps, live: bool, *, jpeg: bool = False) -> list[Any]:
    """Return a frame's message; `jpeg`: compress the pixels, for a thin link."""
    pixels = np.ascontiguousarray(frame.pixels)
    header = FrameHeader(frame.ref, frame.band, pixels.shape, stamps, live, jpeg)
    if not jpeg:
        return encode(header, pixels.data)
    from pipeline.transport.jpeg import jpeg_bytes  # here: OpenCV is large, and most cameras do not need it

    return encode(header, jpeg_bytes(pixels))


def frame_of(header: FrameHeader, buffers: Sequence[memoryview]) -> Frame:
    """Return the frame of a message; its pixels are a view of the message's buffer.  Raise WireError."""
    shape = header.shape
    if len(buffers) != 1 or len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] != 3):
        raise WireError(f"frame of shape {shape} with {len(buffers)} buffers: must be HxW or HxWx3 with one buffer")
    size = prod(shape)
    if max(shape) > MAX_SIDE_PX or max(shape[:2]) > MAX_ASPECT * min(shape[:2]):
        raise WireError(f"frame of shape {shape}: sides must be at most {MAX_SIDE_PX}, their ratio {MAX_ASPECT}")
    if size > MAX_FRAME_BYTES or not (header.jpeg or size == buffers[0].nbytes):
        expected = min(size, MAX_FRAME_BYTES)
        raise WireError(f"frame of shape {shape} with {buffers[0].nbytes} bytes: must be {expected}")
    if header.jpeg:
        from pipeline.transport.jpeg import pixels_of_jpeg  # as above

        return Frame(header.ref, header.band, pixels_of_jpeg(buffers[0], shape))
    return Frame(header.ref, header.band, np.frombuffer(buffers[0], np.uint8).reshape(shape))


def result_message(detections: Detections, stamps: Stamps, jpeg: bytes) -> list[Any]:
    """Return the message of a frame's detections and its preview, b"" for none."""
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
    """Return the detections of a message.  Raise WireError."""
    classes, width = result.classes, 8 + len(result.classes)
    if not classes or len(set(classes)) != len(classes) or (len(classes) > 1 and UAV not in classes):
        raise WireError(f"result with classes {str(classes)[:100]}: must be one, or several different ones with {UAV}")
    numbers, rest = divmod(len(result.boxes), 4)
    if rest or numbers % width or numbers // width != len(result.masks):
        raise WireError(
            f"result of {numbers} numbers, {len(classes)} classes, {len(result.masks)} masks: "
            "must be one row and one mask per detection"
        )
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
    """Require boxes with an area, inside or near a frame, and scores that are probabilities; reject NaN."""
    boxes, scores = rows[:, :4], rows[:, [4, *range(8, rows.shape[1])]]
    limit_px, coordinates = 2 * MAX_SIDE_PX, rows[:, [0, 1, 2, 3, 6, 7]]
    areas = rows[:, 5]
    if not ((np.abs(coordinates) <= limit_px).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise WireError("result: boxes must have an area and lie in or near the frame")
    if not ((areas >= 0) & (areas <= limit_px**2)).all() or not ((scores >= 0) & (scores <= 1.001)).all():  # rounding
        raise WireError("result: scores must be 0 to 1, areas must fit the frame")


def _check_geometry(result: Result) -> None:
    if not all(1 <= side <= MAX_SIDE_PX for side in result.size_px):
        raise WireError(f"result for a frame of {result.size_px} px: sides must be 1 to {MAX_SIDE_PX}")
    if not all(isfinite(scale) and 0 < scale <= MAX_SIDE_PX for scale in result.mask_scale):
        raise WireError(f"result with mask scale {result.mask_scale}: must be above 0, at most {MAX_SIDE_PX}")
    if not all(abs(shift) <= MAX_SIDE_PX for shift in result.camera_shift_px or ()):
        raise WireError(f"result with camera shift {result.camera_shift_px} px: must be at most {MAX_SIDE_PX}")
    for mask in result.masks:
        sides = (mask.left, mask.top, mask.width, mask.height)
        if not all(0 <= side <= MAX_SIDE_PX for side in sides) or len(mask.bits) != -(-mask.width * mask.height // 8):
            raise WireError(f"mask at {sides} of {len(mask.bits)} bytes: must have one bit per pixel")
