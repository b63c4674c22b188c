"""Messages between the workers: what they hold, and their bytes.

Every message is a ZeroMQ multipart: [version and kind (2 bytes), MessagePack, buffers ...].  Pixels and pictures travel
as buffers of their own, never copied into the MessagePack part.  A message of another version, an unknown kind or a
malformed one raises WireError: receivers count and drop it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from pipeline.errors import WireError
from pipeline.types import Band, Cause, Detections, Frame, FrameRef, Mask

VERSION = 1
MAX_PIXELS = 64 * 1024 * 1024  # of one frame, in bytes


class Stamps(msgspec.Struct, array_like=True):
    """When a frame passed each point, on this host's monotonic clock, ns.  0: not yet."""

    decode_ns: int = 0  # a duration, unlike the others
    sent_ns: int = 0
    arrived_ns: int = 0
    started_ns: int = 0  # its batch was given to the device
    inferred_ns: int = 0
    masked_ns: int = 0


class Hello(msgspec.Struct, tag="hello"):
    """capture -> segmentation: this camera's session is here.  Repeated while no credit comes."""

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


class Credit(msgspec.Struct, tag="credit"):
    """segmentation -> capture: `worker` will take frames; the fates of earlier ones."""

    worker: str  # new at each start of the segmentation worker
    session: str
    segmented: list[int] = []  # sequence numbers
    failed: list[int] = []


class End(msgspec.Struct, tag="end"):
    """capture -> segmentation -> track worker: the recording ended, all its frames came before."""

    camera: str
    session: str


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


class CameraState(msgspec.Struct, tag="camera"):
    """capture -> track worker: a camera came up, went down, or went blind: `cause` says why it shows nothing."""

    camera: str
    session: str
    up: bool
    cause: Cause | None
    time_utc_ns: int
    pts_s: float  # of the newest frame, and its number
    frame: int


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


Message = Hello | FrameHeader | Credit | End | Result | CameraState | Heartbeat

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
_PREFIX = bytes([0xDA, VERSION])


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
        return _decoder.decode(views[1]), views[2:]
    except (msgspec.DecodeError, ValueError) as error:
        raise WireError(f"a malformed message: {error}") from error


def frame_message(frame: Frame, stamps: Stamps, live: bool) -> list[Any]:
    pixels = np.ascontiguousarray(frame.pixels)
    return encode(FrameHeader(frame.ref, frame.band, pixels.shape, stamps, live), pixels.data)


def frame_of(header: FrameHeader, buffers: Sequence[memoryview]) -> Frame:
    """The frame of a message; its pixels are a view of the message's buffer.  Raises WireError."""
    shape = header.shape
    if len(buffers) != 1 or len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] != 3):
        raise WireError(f"a frame of shape {shape} with {len(buffers)} buffers; allowed: HxW or HxWx3 and one buffer")
    size = int(np.prod(shape, dtype=np.int64))
    if size != buffers[0].nbytes or size > MAX_PIXELS:
        raise WireError(f"a frame of shape {shape} with {buffers[0].nbytes} bytes; allowed: {min(size, MAX_PIXELS)}")
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
    width = 8 + len(result.classes)
    values = np.frombuffer(result.boxes, np.float32)
    if not result.classes or values.size % width or values.size // width != len(result.masks):
        raise WireError(f"a result of {values.size} numbers, {len(result.classes)} classes, {len(result.masks)} masks")
    rows = values.reshape(-1, width)
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
