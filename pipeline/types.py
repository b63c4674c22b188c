"""What flows between the stages: Frame -> Detections -> Track -> Event.

Every message carries one FrameRef.  Sequence numbers, drops and all latencies derive from it and from no other clock.
Boxes are `xyxy` in frame pixels (float, top-left 0,0, right and bottom edges exclusive).
"""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

UAV = "uav"
UNKNOWN = "unknown"


class Band(StrEnum):
    VISIBLE = "visible"
    INFRARED = "infrared"


class Cause(StrEnum):
    """Why a frame was not searched, or for how long a camera was blind."""

    OFFLINE = "offline"  # no connection to the camera
    STALE = "stale"  # too old to be worth searching
    OVERLOAD = "overload"  # a newer frame replaced it before segmentation had time for it
    CORRUPT = "corrupt"  # decoding lost data
    FAILED = "failed"  # segmentation failed or died with it
    FROZEN = "frozen"  # the picture does not change
    SATURATED = "saturated"  # the picture is black or blown out
    TAMPERED = "tampered"  # the view changed abruptly or was covered


class FrameRef(msgspec.Struct, frozen=True, array_like=True):
    """Which frame this is, and when it was seen."""

    camera: str
    session: str  # new at each start of the capture worker
    seq: int  # 0-based within the session
    pts_s: float  # presentation time, s from the start of the session
    received_mono_ns: int  # this host's monotonic clock at reception
    received_utc_ns: int
    ntp_ns: int | None = None  # the camera's own UTC, where RTCP gives it


@dataclass(frozen=True, slots=True)
class Frame:
    """pixels: uint8 HxWx3 (RGB) or HxW."""

    ref: FrameRef
    band: Band
    pixels: NDArray[np.uint8]

    @property
    def size_px(self) -> tuple[int, int]:
        """Width, height."""
        return self.pixels.shape[1], self.pixels.shape[0]


class Mask(msgspec.Struct, frozen=True, array_like=True):
    """A target's mask: packed bits of the rows of its bounding rectangle, in pixels of the network's input."""

    left: int
    top: int
    width: int
    height: int
    bits: bytes

    @classmethod
    def pack(cls, left: int, top: int, mask: NDArray[np.bool_]) -> "Mask":
        height, width = mask.shape
        return cls(left, top, width, height, np.packbits(mask).tobytes())

    def moved(self, right: int, down: int) -> "Mask":
        return Mask(self.left + right, self.top + down, self.width, self.height, self.bits)

    def unpack(self) -> NDArray[np.bool_]:
        """bool (height, width)."""
        bits = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=self.width * self.height)
        return bits.reshape(self.height, self.width).astype(bool)


@dataclass(frozen=True, slots=True)
class Detections:
    """All targets of one frame, as arrays of equal length N.  N = 0 says: searched, nothing found."""

    ref: FrameRef
    band: Band
    size_px: tuple[int, int]  # of the frame: width, height
    classes: tuple[str, ...]
    xyxy: NDArray[np.float32]  # (N, 4) frame pixels
    score: NDArray[np.float32]  # (N,) mean object probability over the mask
    class_scores: NDArray[np.float32]  # (N, len(classes)) class probabilities; all zero: not told apart
    area_px: NDArray[np.float32]  # (N,) frame pixels
    centroid: NDArray[np.float32]  # (N, 2) frame pixels, weighted by probability
    masks: list[Mask] = field(default_factory=list)
    mask_scale: tuple[float, float] = (1.0, 1.0)  # frame pixels per mask pixel: x, y
    camera_shift_px: tuple[float, float] | None = None  # of the whole picture since the previous frame; None: unknown

    def __len__(self) -> int:
        return len(self.score)

    def large(self, min_area_px: float) -> NDArray[np.bool_]:
        """For each row, whether it has that area in pixels of the network's input: it may start a track."""
        area_px = self.area_px / (self.mask_scale[0] * self.mask_scale[1])
        large: NDArray[np.bool_] = area_px >= min_area_px - 0.5  # whole pixels, scaled there and back
        return large


class TrackState(StrEnum):
    TENTATIVE = "tentative"
    CONFIRMED = "confirmed"
    COASTING = "coasting"  # confirmed, but not seen in this frame
    LOST = "lost"


class Track(msgspec.Struct, frozen=True):
    """A snapshot of one track at one frame."""

    id: int  # unique within camera and session
    ulid: str  # unique in the world
    camera: str
    session: str
    state: TrackState
    label: str  # uav, unknown, or a distractor's class
    evidence: dict[str, float]  # per class: mean over the last seconds of log-odds less the best other's
    xyxy: tuple[float, float, float, float]
    velocity_px_s: tuple[float, float]
    score: float
    hits: int
    first_seen: FrameRef
    last_seen: FrameRef

    @property
    def is_target(self) -> bool:
        """Alerted, unlike a sure distractor."""
        return self.label in (UAV, UNKNOWN)


class Severity(StrEnum):
    ALARM = "alarm"  # a uav
    WARNING = "warning"  # something unknown that moves like one
    INFO = "info"


class DismissReason(StrEnum):
    """What somebody who looked at an alert took it for instead."""

    BIRD = "bird"
    AIRCRAFT = "aircraft"
    INSECT = "insect"
    REFLECTION = "reflection"
    OTHER = "other"


class EventKind(StrEnum):
    TRACK_CONFIRMED = "track.confirmed"
    TRACK_LABELLED = "track.labelled"  # a sure distractor: kept, not alerted
    TRACK_LOST = "track.lost"
    CAMERA_UP = "camera.up"
    CAMERA_DOWN = "camera.down"
    CAMERA_BLIND = "camera.blind"  # pictures come, but show nothing


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened, at one frame of one camera.  `track.confirmed` opens an alert, `track.lost` ends it.

    `camera.blind` ends with the next `camera.up` or `camera.down`.
    """

    id: str  # ULID
    kind: EventKind
    severity: Severity
    camera: str
    time_utc_ns: int
    pts_s: float
    frame: int  # sequence number
    session: str
    track: Track | None = None
    alert: str | None = None  # id of the event that opened the alert
    cause: Cause | None = None  # of a camera's blindness
    snapshot: str | None = None  # file name in the run folder's `snapshots`
    time_utc: str | None = None  # ISO 8601; of a recording, where its wall-clock time is known


class CameraState(msgspec.Struct, tag="camera"):
    """capture -> track worker: a camera came up, went down, or went blind: `cause` says why it shows nothing."""

    camera: str
    session: str
    up: bool
    cause: Cause | None
    time_utc_ns: int
    pts_s: float  # of the newest frame, and its number
    frame: int
