"""Detections -> tracks, for one camera and session.  Pure: reads no clock, so a replay is deterministic.

For each frame: predict every track to the frame's presentation time; assign detections to tracks at minimum total cost
within a Mahalanobis gate, strong detections first, then weak ones to confirmed tracks (as ByteTrack does by score:
Zhang et al., ECCV 2022); update the tracks; start tentative tracks from unassigned strong detections; confirm a track
by M of N frames, fewer at a low frame rate, once its evidence is enough; let tracks coast for a bounded time.  Where
the camera's motion is known, a track that has not moved against the background since it was first seen is a fixed
object (a cloud, a lamp) and is not confirmed; a target that arrived and then hovers stays confirmed.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from model.metadata import Thresholds
from pipeline.ids import track_ulid
from pipeline.tracking.evidence import Evidence, Label
from pipeline.tracking.kalman import ConstantVelocity
from pipeline.tracking.kinematics import Kinematics
from pipeline.tracking.policy import Policy
from pipeline.tracking.settings import TrackerSettings
from pipeline.types import UAV, UNKNOWN, Detections, FrameRef, Track, TrackState

NO_MATCH_COST = 1e6
MISS_SCORE = 0.12  # what a frame without a detection says of a track that is not confirmed yet


class _Tracklet:
    """Mutable state of one track."""

    def __init__(self, number: int, row: int, detections: Detections, settings: TrackerSettings) -> None:
        self.number = number
        self.box = detections.xyxy[row].astype(float)
        self.size = self.box[2:] - self.box[:2]
        center = (self.box[:2] + self.box[2:]) / 2
        d = self.apparent_px
        self.motion = ConstantVelocity(center, measurement_std(d), settings.start_speed_d_s * d)
        self.anchor = center.copy()  # position when first seen, moved along with the background
        self.kinematics = Kinematics()
        self.observe_motion(row, detections)
        self.moved = False
        self.camera_motion_frames = 0  # frames in which the camera's motion was known
        self.first = self.last = detections.ref
        self.recent: deque[bool] = deque([True], maxlen=settings.confirm_window)
        self.hits = 1
        self.missed = 0
        self.score_sum = float(detections.score[row])
        self.evidence = Evidence(detections.classes, settings.evidence_s)
        self.add_evidence(row, detections, settings.kinematics_weight)
        self.confirmed = False
        self.reported = False  # confirmed as a target, not as a distractor
        self.seen = True

    @property
    def apparent_px(self) -> float:
        return max(2.0, math.sqrt(float(self.size[0] * self.size[1])))

    def observe_motion(self, row: int, detections: Detections) -> None:
        """Add where a detection of this track lies, relative to the background."""
        x, y = detections.centroid[row] - self.anchor
        self.kinematics.update(detections.ref.pts_s, float(x), float(y), float(max(self.box[2:] - self.box[:2])))

    def add_evidence(self, row: int, detections: Detections, kinematics_weight: float) -> None:
        """Add what a detection of this track says."""
        score, novelty = float(detections.score[row]), float(detections.novelty[row])
        self.evidence.add(detections.ref.pts_s, score, detections.class_scores[row], novelty)
        self.evidence.motion = kinematics_weight * self.kinematics.log_odds


def measurement_std(apparent_px: float) -> float:
    """Return the standard deviation of a detection's centre, in pixels."""
    return max(0.7, 0.12 * apparent_px)


class Tracker:
    """Multi-target tracker of one camera, for one session."""

    def __init__(
        self,
        camera: str,
        session: str,
        thresholds: Thresholds,
        settings: TrackerSettings | None = None,
        policy: Policy = Policy(),
    ) -> None:
        """Initialise the tracker.

        Args:
            camera: its id.
            session: its id.
            thresholds: the operating point.
            settings: None for the defaults.
            policy: of the camera; may be replaced at any time.
        """
        self.camera = camera
        self.session = session
        self._thresholds = thresholds
        self._settings = settings or TrackerSettings()
        self._tracklets: list[_Tracklet] = []
        self._next = 1
        self._last: FrameRef | None = None
        self._camera_shift_px = (0.0, 0.0)
        self._classes: tuple[str, ...] = (UAV,)
        self.policy = policy
        self._may_suppress = False  # until the first frame tells its classes and size

    def update(self, detections: Detections) -> list[Track]:
        """Return all tracks at this frame, including those that were lost with it.

        A frame that is not later than the previous one is ignored.
        """
        ref, last = detections.ref, self._last
        if last is not None and ref.pts_s <= last.pts_s:
            if last.pts_s - ref.pts_s < self._settings.reset_s:
                return []
            last = None
        ended = [] if last and ref.pts_s - last.pts_s < self._settings.reset_s else self.close()
        self._classes = detections.classes
        width, height = detections.size_px
        is_known = f"{width}x{height}" in self._thresholds.known_sizes or self.policy.may_suppress(detections.size_px)
        self._may_suppress = is_known and len(self._classes) > 1
        dt_s = ref.pts_s - last.pts_s if last else 0.0
        self._last = ref
        self._predict(dt_s, detections)
        strong = detections.may_start(self._thresholds.min_area_px, self._thresholds.start_score)
        pairs = self._assign(detections, range(len(self._tracklets)), np.flatnonzero(strong))
        # A detection too weak to start a track may still continue a confirmed one.
        pairs |= self._assign(detections, self._unassigned(pairs), np.flatnonzero(~strong))
        free = np.setdiff1d(np.flatnonzero(strong), list(pairs.values()))
        pairs |= self._assign(detections, self._unassigned(pairs), free, self._settings.recovery_gate)
        self._update(pairs, detections)
        self._start(set(np.flatnonzero(strong).tolist()) - set(pairs.values()), detections)
        lost = [tracklet for tracklet in self._tracklets if self._is_over(tracklet, ref)]
        self._tracklets = [tracklet for tracklet in self._tracklets if tracklet not in lost]
        ended += [self._describe(tracklet, TrackState.LOST) for tracklet in lost if tracklet.confirmed]
        return [self._describe(tracklet) for tracklet in self._tracklets] + ended

    def close(self) -> list[Track]:
        """End the session and return its confirmed tracks, as lost."""
        ended = [self._describe(tracklet, TrackState.LOST) for tracklet in self._tracklets if tracklet.confirmed]
        self._tracklets = []
        return ended

    def _predict(self, dt_s: float, detections: Detections) -> None:
        shift, before = detections.camera_shift_px, self._camera_shift_px
        self._camera_shift_px = shift or (0.0, 0.0)
        settings = self._settings
        for tracklet in self._tracklets:
            sigma = settings.acceleration_d_s2 * tracklet.apparent_px
            tracklet.motion.predict(dt_s, 2 * sigma**2 * settings.acceleration_time_s)
            if shift is not None:
                # A pan that was not recognised in some frames is reported as one jump after them, when tracks have
                # already followed it: a jump may be wrong by all of it.
                tracklet.motion.shift(*shift, settings.camera_jump_error * math.dist(shift, before))
                tracklet.anchor += shift
                tracklet.camera_motion_frames += 1
            else:
                tracklet.kinematics = Kinematics()  # positions before and after cannot be compared

    def _unassigned(self, pairs: dict[int, int]) -> list[int]:
        """Return the confirmed tracks without a detection."""
        return [index for index, track in enumerate(self._tracklets) if track.confirmed and index not in pairs]

    def _assign(
        self, detections: Detections, indices: Sequence[int], rows: NDArray[np.intp], gate: float | None = None
    ) -> dict[int, int]:
        """Match these tracks with these detections: track index -> detection row."""
        gate = gate or self._settings.gate
        if not len(indices) or not len(rows):
            return {}
        boxes = detections.xyxy[rows].astype(float)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
        apparent = np.sqrt(sides.prod(axis=1))
        cap_px = self._settings.gate_cap * detections.size_px[0]
        costs = np.full((len(indices), len(rows)), NO_MATCH_COST)
        for number, tracklet in enumerate(self._tracklets[index] for index in indices):
            std = np.array([measurement_std(d) for d in apparent])
            squared, log_s = tracklet.motion.distance(centers, std)
            ratio = np.abs(np.log(apparent / tracklet.apparent_px))
            far = np.linalg.norm(centers - tracklet.motion.mean[:2], axis=1) > cap_px
            allowed = (squared <= gate) & (ratio <= math.log(self._settings.size_ratio)) & ~far
            # ln|S| keeps a track with a large covariance from taking the detections of a certain one.
            cost = squared + log_s + (ratio / 0.4) ** 2
            costs[number, allowed] = cost[allowed]
        matched = zip(*linear_sum_assignment(costs), strict=True)
        return {indices[int(i)]: int(rows[j]) for i, j in matched if costs[i, j] < NO_MATCH_COST}

    def _update(self, pairs: dict[int, int], detections: Detections) -> None:
        settings = self._settings
        for index, tracklet in enumerate(self._tracklets):
            tracklet.seen = index in pairs
            tracklet.recent.append(tracklet.seen)
            if not tracklet.seen:
                tracklet.missed += 1
                if not tracklet.confirmed:
                    tracklet.evidence.miss(detections.ref.pts_s, MISS_SCORE)
                continue
            row = pairs[index]
            box = detections.xyxy[row].astype(float)
            center = (box[:2] + box[2:]) / 2
            tracklet.size += settings.size_gain * (box[2:] - box[:2] - tracklet.size)
            tracklet.motion.update(center, measurement_std(tracklet.apparent_px))
            tracklet.box = box
            tracklet.observe_motion(row, detections)
            tracklet.add_evidence(row, detections, settings.kinematics_weight)
            tracklet.last = detections.ref
            tracklet.hits += 1
            tracklet.missed = 0
            tracklet.score_sum += float(detections.score[row])
            tracklet.moved = tracklet.moved or self._has_moved(tracklet, detections.size_px[0])
            is_confirmed = tracklet.confirmed or (tracklet.moved and self._is_sure(tracklet))
            is_target = is_confirmed and self._label(tracklet).name in (UAV, UNKNOWN)
            tracklet.confirmed, tracklet.reported = is_confirmed, tracklet.reported or is_target

    def _is_sure(self, tracklet: _Tracklet) -> bool:
        """Return whether it was seen often enough, and its evidence is enough, to be confirmed."""
        settings, evidence = self._settings, tracklet.evidence
        seen_s = tracklet.last.pts_s - tracklet.first.pts_s
        is_steady = tracklet.hits >= settings.steady_hits and all(tracklet.recent) and seen_s >= settings.steady_s
        is_seen = is_steady or sum(tracklet.recent) >= settings.confirm_hits
        is_probable = evidence.total >= self.policy.confirm_log_odds(self._thresholds)
        if not (is_seen and is_probable and self.policy.is_enough(tracklet.score_sum / tracklet.hits)):
            return False
        # Where distractors may be suppressed, their class decides first; but a target is not kept waiting for long.
        is_named = abs(evidence.uav_total) >= settings.name_log_odds
        return not self._may_suppress or is_named or evidence.observed_s >= settings.name_s

    def _has_moved(self, tracklet: _Tracklet, width_px: int) -> bool:
        """Return whether it moved against the background; True where the camera's motion is mostly unknown."""
        if tracklet.camera_motion_frames < tracklet.hits // 2:
            return True
        settings = self._settings
        distance = float(np.linalg.norm(tracklet.motion.mean[:2] - tracklet.anchor))
        least = settings.moved_px, settings.moved_d * tracklet.apparent_px, settings.moved_width * width_px
        return distance > max(least)

    def _start(self, rows: set[int], detections: Detections) -> None:
        for row in sorted(rows):
            self._tracklets.append(_Tracklet(self._next, row, detections, self._settings))
            self._next += 1

    def _is_over(self, tracklet: _Tracklet, ref: FrameRef) -> bool:
        unseen_s = ref.pts_s - tracklet.last.pts_s
        settings = self._settings
        if tracklet.confirmed:
            return unseen_s > settings.coast_s and tracklet.missed >= settings.coast_frames
        return unseen_s > settings.tentative_s and tracklet.missed >= settings.tentative_frames

    def _label(self, tracklet: _Tracklet) -> Label:
        margin = 0.0
        if tracklet.confirmed:
            settings = self._settings
            margin = settings.suppression_margin if tracklet.reported else -settings.report_margin
        return tracklet.evidence.label(self._thresholds, may_suppress=self._may_suppress, margin=margin)

    def _describe(self, tracklet: _Tracklet, state: TrackState | None = None) -> Track:
        if state is None:
            seen = TrackState.CONFIRMED if tracklet.seen else TrackState.COASTING
            state = seen if tracklet.confirmed else TrackState.TENTATIVE
        label = self._label(tracklet)
        half = tracklet.size / 2
        center = tracklet.motion.mean[:2]
        box = tracklet.box if tracklet.seen else np.concatenate([center - half, center + half])
        return Track(
            id=tracklet.number,
            ulid=track_ulid(self.camera, self.session, tracklet.number, tracklet.first),
            camera=self.camera,
            session=self.session,
            state=state,
            label=label.name,
            reason=label.reason,
            novelty=round(tracklet.evidence.novelty, 4),
            evidence=tracklet.evidence.by_class(),
            xyxy=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            velocity_px_s=(float(tracklet.motion.mean[2]), float(tracklet.motion.mean[3])),
            score=tracklet.score_sum / tracklet.hits,
            hits=tracklet.hits,
            first_seen=tracklet.first,
            last_seen=tracklet.last,
        )
