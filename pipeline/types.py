"""Data types of the pipeline: Frame -> Detections -> Track -> Event.

Every message carries one FrameRef: sequence numbers, drops and all latencies derive from it and from no other clock.
Boxes are `xyxy` in frame pixels (float, top-left 0,0, right and bottom edges exclusive).
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

UAV = "uav"
UNKNOWN = "unknown"
SHOWN_SCORE = 0.5  # what is less probably a target is not drawn before it is confirmed


class Band(StrEnum):
    """Spectral band of a camera."""

    VISIBLE = "visible"
    INFRARED = "infrared"


class Cause(StrEnum):
    """Why a frame was dropped or failed, or why a camera is blind."""

    OFFLINE = "offline"  # no connection to the camera
    OVERLOAD = "overload"  # a newer frame replaced it in the queue
    CORRUPT = "corrupt"  # decoding lost data
    FAILED = "failed"  # segmentation failed, or its process died
    FROZEN = "frozen"  # the image does not change
    SATURATED = "saturated"  # the image is black or overexposed
    TAMPERED = "tampered"  # the view changed abruptly or was covered
    BUDGET = "budget"  # the network did not process all of the view in time


class FrameRef(msgspec.Struct, frozen=True, array_like=True):
    """Identity and times of a frame; carried by every message about it."""

    camera: str
    session: str  # new at each start of the capture worker
    seq: int  # 0-based within the session
    pts_s: float  # presentation time, s from the start of the session
    received_mono_ns: int  # this host's monotonic clock at reception
    received_utc_ns: int
    ntp_ns: int | None = None  # the camera's own UTC, where RTCP gives it


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame; `pixels` are uint8, HxWx3 (RGB) or HxW."""

    ref: FrameRef
    band: Band
    pixels: NDArray[np.uint8]

    @property
    def size_px(self) -> tuple[int, int]:
        """Return width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]


class Mask(msgspec.Struct, frozen=True, array_like=True):
    """A detection's mask: packed bits of its bounding rectangle, row by row, in pixels of the network's input."""

    left: int
    top: int
    width: int
    height: int
    bits: bytes

    @classmethod
    def pack(cls, left: int, top: int, mask: NDArray[np.bool_]) -> "Mask":
        """Pack a mask, bool (height, width), whose top left pixel is at (left, top)."""
        height, width = mask.shape
        return cls(left, top, width, height, np.packbits(mask).tobytes())

    def moved(self, right: int, down: int) -> "Mask":
        """Return the mask moved by whole pixels."""
        return Mask(self.left + right, self.top + down, self.width, self.height, self.bits)

    def unpack(self) -> NDArray[np.bool_]:
        """Return the mask as bool (height, width)."""
        bits = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=self.width * self.height)
        return bits.reshape(self.height, self.width).astype(bool)


@dataclass(frozen=True, slots=True)
class Detections:
    """All detections of one frame, as arrays of equal length N.  N = 0 means: processed, nothing detected."""

    ref: FrameRef
    band: Band
    size_px: tuple[int, int]  # of the frame: width, height
    classes: tuple[str, ...]
    xyxy: NDArray[np.float32]  # (N, 4) frame pixels
    score: NDArray[np.float32]  # (N,) probability that it is a target, fused from what follows
    mask_score: NDArray[np.float32]  # (N,) mean object probability over the network's mask; 0: no such mask
    motion_score: NDArray[np.float32]  # (N,) difference over noise of the motion candidate; 0: no motion
    novelty: NDArray[np.float32]  # (N,) distance from what training knew; above 1: unlike training; 0: not judged
    class_scores: NDArray[np.float32]  # (N, len(classes)) class probabilities; all zero: not classified
    area_px: NDArray[np.float32]  # (N,) frame pixels
    centroid: NDArray[np.float32]  # (N, 2) frame pixels, weighted by probability
    masks: list[Mask] = field(default_factory=list)
    mask_scale: tuple[float, float] = (1.0, 1.0)  # frame pixels per mask pixel: x, y
    camera_shift_px: tuple[float, float] | None = None  # of the background since the previous frame; None: unknown

    def __len__(self) -> int:
        return len(self.score)

    def rows(self, rows: NDArray[np.intp]) -> "Detections":
        """Return these rows, in this order."""
        columns = ("xyxy", "score", "mask_score", "motion_score", "novelty", "class_scores", "area_px", "centroid")
        chosen = {name: getattr(self, name)[rows] for name in columns}
        return replace(self, **chosen, masks=[self.masks[row] for row in rows] if self.masks else [])

    def may_start(self, min_area_px: float, min_score: float) -> NDArray[np.bool_]:
        """Return for each row whether it is probable enough to start a track, and large enough or seen to move.

        Args:
            min_area_px: pixels of the network's input that a mask must cover.
            min_score: of the row.
        """
        area_px = self.area_px / (self.mask_scale[0] * self.mask_scale[1])
        large = area_px >= min_area_px - 0.5  # whole pixels, scaled there and back
        may_start: NDArray[np.bool_] = (self.score >= min_score) & (large | (self.motion_score > 0))
        return may_start


class TrackState(StrEnum):
    """State of a track's life cycle."""

    TENTATIVE = "tentative"
    CONFIRMED = "confirmed"
    COASTING = "coasting"  # confirmed, but without a detection in this frame
    LOST = "lost"


class Bearing(msgspec.Struct, frozen=True):
    """Direction in which a target is seen from its camera, with standard deviations."""

    azimuth_deg: float  # clockwise from true north, 0 to 360
    elevation_deg: float  # above the horizon
    azimuth_sigma_deg: float
    elevation_sigma_deg: float


class Position(msgspec.Struct, frozen=True):
    """Where a target is, from the bearings of two cameras, with standard deviations."""

    lat: float  # degrees (WGS 84)
    lon: float
    height_m: float  # above the ellipsoid
    horizontal_sigma_m: float  # in the direction in which it is largest
    height_sigma_m: float
    across_sigma_m: float | None = None  # across that direction; None: of version 0.2
    sigma_azimuth_deg: float | None = None  # that direction, clockwise from true north, 0 to 180


class Track(msgspec.Struct, frozen=True):
    """State of one track at one frame."""

    id: int  # unique within camera and session
    ulid: str  # unique in the world
    camera: str
    session: str
    state: TrackState
    label: str  # uav, unknown, or a distractor's class
    evidence: dict[str, float]  # per class: its log-odds minus the best other class's, averaged over the last seconds
    xyxy: tuple[float, float, float, float]
    velocity_px_s: tuple[float, float]
    score: float
    hits: int
    first_seen: FrameRef
    last_seen: FrameRef
    # Optional, so that the tracks in stores and spill files of version 0.2 can still be read.
    novelty: float = 0.0  # mean of its detections'; above 1: unlike training; 0: not judged
    reason: str | None = None  # why it is not suppressed although its class seems to be a distractor's
    bearing: Bearing | None = None  # of a camera whose pose is known
    position: Position | None = None  # while a second camera sees the target too

    @property
    def is_target(self) -> bool:
        """Return whether the track raises an alert; a track labelled as a distractor is suppressed."""
        return self.label in (UAV, UNKNOWN)

    @property
    def is_shown(self) -> bool:
        """Return whether images show the track: not a lost one, nor a tentative one that is probably clutter."""
        if self.state is TrackState.TENTATIVE:
            return self.score >= SHOWN_SCORE
        return self.state is not TrackState.LOST


class Severity(StrEnum):
    """Severity of an event."""

    ALARM = "alarm"  # a uav
    WARNING = "warning"  # a track of unknown class
    INFO = "info"


class Verdict(StrEnum):
    """What an operator says that an alert was.  All but a uav dismiss it."""

    UAV = "uav"
    BIRD = "bird"
    AIRCRAFT = "aircraft"
    INSECT = "insect"
    REFLECTION = "reflection"
    OTHER = "other"


DISMISSALS = tuple(verdict for verdict in Verdict if verdict is not Verdict.UAV)


class EscalationReason(StrEnum):
    """Why an alert escalated."""

    LABEL = "label"  # the label of its target rose, and its severity with it
    APPROACH = "approach"  # its target grew
    RULE = "rule"  # a rule of a higher severity applies to its target
    SECOND_CAMERA = "second_camera"  # a second camera sees its target


class EventKind(StrEnum):
    """Kind of an event."""

    TRACK_CONFIRMED = "track.confirmed"
    TRACK_LABELLED = "track.labelled"  # classified as a distractor: stored, not alerted
    TRACK_LOST = "track.lost"
    ALERT_OPENED = "alert.opened"
    ALERT_ESCALATED = "alert.escalated"  # to be acknowledged anew; an alert that was lowered to its end is active again
    ALERT_LOWERED = "alert.lowered"  # its label fell; a distractor's ends it
    ALERT_ENDED = "alert.ended"  # its target is gone
    ALERT_ACKNOWLEDGED = "alert.acknowledged"  # by an operator, as the next two
    ALERT_REVIEWED = "alert.reviewed"  # with a verdict, or without one: it was withdrawn
    ALERT_REOPENED = "alert.reopened"  # verdict and acknowledgement were withdrawn
    CAMERA_UP = "camera.up"
    CAMERA_DOWN = "camera.down"
    CAMERA_BLIND = "camera.blind"  # frames arrive, but are unusable or not processed


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event at one frame of one camera.

    `track.lost` ends what `track.confirmed` began; `alert.*` are the life of an alert, which may span several tracks
    (docs/alerts.md).  `camera.blind` ends with the next `camera.up` or `camera.down`.
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
    alert: str | None = None  # its id: that of the `track.confirmed` event of its first track
    cause: Cause | None = None  # why a camera is blind
    snapshot: str | None = None  # file name in the run folder's `snapshots`
    crop: str | None = None  # likewise: the target's surroundings
    time_utc: str | None = None  # ISO 8601; for a recording whose wall-clock time is known
    was: str | None = None  # label of an alert before it escalated or was lowered
    reason: EscalationReason | None = None
    verdict: Verdict | None = None
    note: str | None = None  # to the verdict
    rule: str | None = None  # name of the rule that decided; None: the default
    by: str | None = None  # name of the operator
    host: str | None = None  # that raised it, of several inference hosts
    token: int | None = None  # with which that host owned the camera; each owner's is higher than those before

    @property
    def is_alert(self) -> bool:
        """Return whether it is part of an alert's life."""
        return self.kind.startswith("alert.")

    @property
    def is_review(self) -> bool:
        """Return whether an operator caused it, not a frame."""
        return self.kind in (EventKind.ALERT_ACKNOWLEDGED, EventKind.ALERT_REVIEWED, EventKind.ALERT_REOPENED)

    @property
    def ends_alert(self) -> bool:
        """Return whether the alert ends with it: its target is gone, or a distractor."""
        is_lowered = self.kind is EventKind.ALERT_LOWERED and self.severity is Severity.INFO
        return is_lowered or self.kind is EventKind.ALERT_ENDED


class CameraState(msgspec.Struct, tag="camera"):
    """capture -> track worker: a camera came up, went down or, with a cause, went blind."""

    camera: str
    session: str
    up: bool
    cause: Cause | None
    time_utc_ns: int
    pts_s: float  # of the newest frame
    frame: int  # its sequence number


class AxisSample(msgspec.Struct, frozen=True, tag="axis"):
    """capture -> track worker: where a camera that turns looked at one moment."""

    camera: str
    mono_ns: int  # on the monotonic clock of the frames' references
    error_ns: int  # by which the moment may have been earlier or later
    azimuth_deg: float
    elevation_deg: float
    hfov_deg: float
    is_moving: bool | None = None  # None: the camera does not say
