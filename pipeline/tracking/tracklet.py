"""The state of one track, and what it takes from a frame.  Pure.  Plain numbers: targets are updated one by one."""

import math
from collections import deque
from typing import NamedTuple

import msgspec
import numpy as np

from pipeline.tracking.association import measurement_std
from pipeline.tracking.evidence import Evidence, class_log_odds, log_odds
from pipeline.tracking.handover import TrackletState, rebased
from pipeline.tracking.kalman import ConstantVelocity
from pipeline.tracking.kinematics import Kinematics
from pipeline.tracking.settings import TrackerSettings
from pipeline.types import Detections, FrameRef

MIN_APPARENT_PX = 2.0
MOTION = ("x", "y", "vx", "vy", "position_variance", "velocity_variance", "cross_covariance")


class Observation(NamedTuple):
    """One detection of a frame."""

    ref: FrameRef
    xyxy: tuple[float, float, float, float]
    centroid: tuple[float, float]
    score: float
    log_odds: float  # of the score
    class_log_odds: list[float] | None  # None: not classified
    novelty: float  # 0: not judged


def observations(detections: Detections) -> list[Observation]:
    """Return the detections of a frame one by one."""
    columns = (detections.xyxy, detections.centroid, detections.score, detections.novelty)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    is_classified = np.flatnonzero(detections.class_scores.any(axis=1)).tolist()
    classes = dict(zip(is_classified, class_log_odds(detections.class_scores[is_classified]).tolist(), strict=True))
    return [
        Observation(detections.ref, tuple(box), tuple(centroid), score, log_odds(score), classes.get(row), novelty)
        for row, (box, centroid, score, novelty) in enumerate(rows)
    ]


class Tracklet:
    """Mutable state of one track."""

    def __init__(self, number: int, first: Observation, classes: tuple[str, ...], settings: TrackerSettings) -> None:
        self.number = number
        self.ulid = ""  # when it is first described
        self._settings = settings
        x0, y0, x1, y1 = self.xyxy = first.xyxy
        self.width_px, self.height_px = x1 - x0, y1 - y0
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        d = self.apparent_px
        self.motion = ConstantVelocity(x, y, measurement_std(d), settings.start_speed_d_s * d)
        self.first_x, self.first_y = x, y
        self.anchor_x, self.anchor_y = x, y  # position when first seen, moved along with the background
        self.home_x, self.home_y = x, y  # likewise, but it follows slowly
        self.kinematics = Kinematics()
        self.farthest_px = 0.0  # from home
        self.screen_x, self.screen_y = first.centroid  # a home that does not move with the background
        self._on_screen_px: deque[float] = deque([0.0], maxlen=2)  # newest distances from it: one may be a mistake
        self.farthest_on_screen_px = 0.0  # from that one
        self.camera_motion_frames = 0  # frames in which the camera's motion was known
        self.first = self.last = first.ref
        self.recent: deque[bool] = deque([True], maxlen=settings.confirm_window)
        self.hits = 1
        self.missed = 0
        self.score_sum = first.score
        self.evidence = Evidence(classes, settings.evidence_s)
        self._learn(first)
        self.confirmed = False
        self.reported = False  # confirmed as a target, not as a distractor
        self.seen = True

    @property
    def apparent_px(self) -> float:
        """Apparent size, smoothed."""
        return max(MIN_APPARENT_PX, math.sqrt(self.width_px * self.height_px))

    def predict(self, dt_s: float, camera_shift_px: tuple[float, float] | None, shift_std_px: float) -> None:
        """Predict the state `dt_s` ahead, moved along with the background; None: the camera's motion is unknown."""
        settings = self._settings
        sigma = settings.acceleration_d_s2 * self.apparent_px
        self.motion.predict(dt_s, 2 * sigma**2 * settings.acceleration_time_s)
        if camera_shift_px is None:
            self.kinematics = Kinematics()  # positions before and after cannot be compared
            self.motion.shift(0, 0, shift_std_px)
            return
        dx, dy = camera_shift_px
        self.motion.shift(dx, dy, shift_std_px)
        self.anchor_x += dx
        self.anchor_y += dy
        self.home_x += dx
        self.home_y += dy
        self.camera_motion_frames += 1

    def miss(self, pts_s: float, score_log_odds: float) -> None:
        """Take note of a frame without a detection."""
        self.seen = False
        self.recent.append(False)
        self.missed += 1
        if not self.confirmed:
            self.evidence.miss(pts_s, score_log_odds)

    def hit(self, observed: Observation) -> None:
        """Correct the state with a detection."""
        self.seen = True
        self.recent.append(True)
        x0, y0, x1, y1 = self.xyxy = observed.xyxy
        gain = self._settings.size_gain
        self.width_px += gain * (x1 - x0 - self.width_px)
        self.height_px += gain * (y1 - y0 - self.height_px)
        self.motion.update((x0 + x1) / 2, (y0 + y1) / 2, measurement_std(self.apparent_px))
        self._learn(observed)
        self.hits += 1
        self.missed = 0
        self.score_sum += observed.score
        self._depart(observed.ref.pts_s - self.last.pts_s)
        self._depart_on_screen(observed)
        self.last = observed.ref

    def box(self) -> tuple[float, float, float, float]:
        """Return the detected box, or where the target is predicted to be."""
        if self.seen:
            return self.xyxy
        half_x, half_y, x, y = self.width_px / 2, self.height_px / 2, self.motion.x, self.motion.y
        return x - half_x, y - half_y, x + half_x, y + half_y

    def _learn(self, observed: Observation) -> None:
        x0, y0, x1, y1 = observed.xyxy
        x, y = observed.centroid[0] - self.anchor_x, observed.centroid[1] - self.anchor_y
        pts_s = observed.ref.pts_s
        self.kinematics.update(pts_s, x, y, max(x1 - x0, y1 - y0))
        self.evidence.add(pts_s, observed.log_odds, observed.class_log_odds, observed.novelty)
        self.evidence.motion = self._settings.kinematics_weight * self.kinematics.log_odds

    def _depart(self, elapsed_s: float) -> None:
        share = min(1.0, elapsed_s / self._settings.home_s)
        self.home_x += share * (self.motion.x - self.home_x)
        self.home_y += share * (self.motion.y - self.home_y)
        distance_px = math.hypot(self.motion.x - self.home_x, self.motion.y - self.home_y)
        self.farthest_px = max(self.farthest_px, distance_px)

    def _depart_on_screen(self, observed: Observation) -> None:
        share = min(1.0, (observed.ref.pts_s - self.last.pts_s) / self._settings.home_s)
        x, y = observed.centroid  # steadier than a box of few pixels
        self.screen_x += share * (x - self.screen_x)
        self.screen_y += share * (y - self.screen_y)
        self._on_screen_px.append(math.hypot(x - self.screen_x, y - self.screen_y))
        self.farthest_on_screen_px = max(self.farthest_on_screen_px, min(self._on_screen_px))

    def state(self) -> TrackletState:
        """Return what the next owner of the camera needs of it."""
        motion = self.motion
        return TrackletState(
            number=self.number,
            ulid=self.ulid,
            first=self.first,
            last=self.last,
            xyxy=self.box(),
            size_px=(self.width_px, self.height_px),
            motion=tuple(getattr(motion, name) for name in MOTION),
            hits=self.hits,
            score_sum=self.score_sum,
            reported=self.reported,
            farthest_px=(self.farthest_px, self.farthest_on_screen_px),
            camera_motion_frames=self.camera_motion_frames,
            evidence=self.evidence.state(),
        )

    @classmethod
    def inherited(
        cls, state: TrackletState, ref: FrameRef, gap_s: float, classes: tuple[str, ...], settings: TrackerSettings
    ) -> "Tracklet":
        """Return a confirmed track of an earlier session, expected at frame `ref`, `gap_s` after its state."""
        x0, y0, x1, y1 = state.xyxy
        last = rebased(state.last, ref.pts_s, ref.session)
        centre, score = ((x0 + x1) / 2, (y0 + y1) / 2), state.score_sum / state.hits
        seen = Observation(last, state.xyxy, centre, score, 0.0, None, 0.0)
        tracklet = cls(state.number, seen, classes, settings)
        tracklet.ulid, tracklet.hits, tracklet.score_sum = state.ulid, state.hits, state.score_sum
        tracklet.first = msgspec.structs.replace(state.first, pts_s=ref.pts_s - (state.last.pts_s - state.first.pts_s))
        tracklet.width_px, tracklet.height_px = state.size_px
        for name, value in zip(MOTION, state.motion, strict=True):
            setattr(tracklet.motion, name, value)
        tracklet.farthest_px, tracklet.farthest_on_screen_px = state.farthest_px
        tracklet.camera_motion_frames = state.camera_motion_frames
        tracklet.evidence.inherit(state.evidence, ref.pts_s)
        tracklet.confirmed, tracklet.reported, tracklet.seen = True, state.reported, False
        tracklet.predict(gap_s, None, 0.0)
        return tracklet

    def has_moved(self, frame_width_px: int) -> bool:
        """Return whether it moved against the background; True where the camera's motion is mostly unknown.

        Noise may have moved what was seen for a short time; what is fixed stays where it is.  Where all the background
        drifts, it is clouds, and a dead pixel or dirt on the lens moves against them: then it must have moved on the
        screen too.  A target that a turning camera follows need not: there the background is fast.
        """
        settings = self._settings
        least_px = max(settings.moved_px, settings.moved_d * self.apparent_px, settings.moved_width * frame_width_px)
        is_seen_long = self.last.pts_s - self.first.pts_s >= settings.fixed_s
        least_px *= settings.fixed_ratio if is_seen_long else 1.0
        if self.camera_motion_frames < self.hits // 2:
            return self.farthest_on_screen_px > least_px
        if self.farthest_px <= least_px:
            return False
        drift_px = math.hypot(self.anchor_x - self.first_x, self.anchor_y - self.first_y)
        age_s = self.last.pts_s - self.first.pts_s
        is_drift = 0 < drift_px < settings.drift_width_s * frame_width_px * age_s
        return not is_drift or self.farthest_on_screen_px > min(drift_px, settings.screen_ratio * least_px)
