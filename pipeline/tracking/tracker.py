"""Detections -> Tracks, for one camera and session.  Pure: reads no clock, so a replay is deterministic.

Each frame: predict every track to the frame's presentation time, assign detections to tracks at the least total cost
within a Mahalanobis gate, first the large ones, then small ones to confirmed tracks (as ByteTrack does by score: Zhang
et al., ECCV 2022), update, start tentative tracks from what is left of the large, confirm by M of N frames, and let
tracks coast for a bounded time.  Evidence for each class is gathered over the last seconds of a track, so that a target
which comes closer is named anew; what was reported as a target takes more to be silenced.  On a camera whose motion is
known, what has not moved against its background since it was first seen is a fixed object (a cloud, a lamp) and is not
confirmed; a target that arrived and then hovers stays one.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from model.metadata import Thresholds
from pipeline.ids import track_ulid
from pipeline.tracking.kalman import ConstantVelocity
from pipeline.types import UAV, UNKNOWN, Detections, FrameRef, Track, TrackState

EVIDENCE_LIMIT = 4.0  # of one frame's evidence: a single sure frame must not decide
NO_MATCH = 1e6


@dataclass(frozen=True)
class TrackerSettings:
    """Chosen on labelled clips.  D is a target's apparent size, sqrt(box width x height)."""

    confirm_hits: int = 4  # M
    confirm_window: int = 6  # of N frames
    tentative_s: float = 0.35  # a tentative track not seen for this long is dropped, ...
    tentative_frames: int = 3  # ... but not before it was missed this often: cameras may be slow
    coast_s: float = 1.0  # a confirmed one
    coast_frames: int = 3
    gate: float = 13.8  # squared Mahalanobis distance: 99.9% in two dimensions
    gate_cap: float = 0.15  # of the frame's width: no target jumps farther between two sightings
    size_ratio: float = 3.0  # two sightings of one target differ in size by no more
    acceleration_d_s2: float = 8.0  # process noise, in D per s^2 ...
    acceleration_time_s: float = 0.3  # ... lasting so long
    start_speed_d_s: float = 15.0  # standard deviation of an unknown velocity, in D per s
    size_gain: float = 0.25  # how quickly the box follows
    moved_d: float = 0.1  # a target has moved when it left its first place by this many D ...
    moved_px: float = 2.0  # ... and by as many pixels, ...
    moved_width: float = 0.003  # ... and by as much of the frame's width: errors of the camera's motion add up
    evidence_s: float = 2.5  # a frame's evidence counts 1/e after so long
    silence_margin: float = 2.0  # of evidence, beyond the decision's, for what was reported as a target
    reset_s: float = 5.0  # presentation time that jumps farther starts anew


class _Tracklet:
    """The mutable state of one track."""

    def __init__(self, number: int, row: int, detections: Detections, settings: TrackerSettings) -> None:
        self.number = number
        self.box = detections.xyxy[row].astype(float)
        self.size = self.box[2:] - self.box[:2]
        center = (self.box[:2] + self.box[2:]) / 2
        d = self.apparent_px
        self.motion = ConstantVelocity(center, measurement_std(d), settings.start_speed_d_s * d)
        self.anchor = center.copy()  # where it was first seen, in the moving picture's coordinates
        self.moved = False
        self.scene_frames = 0  # frames in which the picture's own motion was known
        self.first = self.last = detections.ref
        self.recent: deque[bool] = deque([True], maxlen=settings.confirm_window)
        self.hits = 1
        self.missed = 0
        self.score_sum = float(detections.score[row])
        self.evidence_sum = np.zeros(len(detections.classes))
        self.evidence_weight = 0.0  # none: it was not told apart yet
        self.add_evidence(detections.class_scores[row])
        self.confirmed = False
        self.reported = False  # as a target: confirmed, and no sure distractor
        self.seen = True

    @property
    def apparent_px(self) -> float:
        return max(2.0, math.sqrt(float(self.size[0] * self.size[1])))

    @property
    def evidence(self) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = self.evidence_sum / max(self.evidence_weight, 1e-9)
        return mean

    def add_evidence(self, class_scores: NDArray[np.float32], kept: float = 1.0) -> None:
        """`kept`: of what was gathered before.  Scores of zero say nothing: it was not told apart."""
        self.evidence_sum *= kept
        self.evidence_weight *= kept
        if class_scores.any():
            self.evidence_sum += evidence_of(class_scores)
            self.evidence_weight += 1


def measurement_std(apparent_px: float) -> float:
    return max(0.7, 0.12 * apparent_px)


def evidence_of(class_scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each class, its log-odds less those of the best other one, limited.

    A single class has nothing to be held against.
    """
    if len(class_scores) == 1:
        return np.zeros(1)
    scores = np.clip(class_scores.astype(float), 1e-4, 1 - 1e-4)
    odds = np.log(scores / (1 - scores))
    best_other = np.array([np.delete(odds, index).max() for index in range(len(odds))])
    limited: NDArray[np.float64] = np.clip(odds - best_other, -EVIDENCE_LIMIT, EVIDENCE_LIMIT)
    return limited


class Tracker:
    """One a camera and session."""

    def __init__(
        self, camera: str, session: str, decision: Thresholds, settings: TrackerSettings | None = None
    ) -> None:
        self.camera = camera
        self.session = session
        self._decision = decision
        self._settings = settings or TrackerSettings()
        self._targets: list[_Tracklet] = []
        self._next = 1
        self._last: FrameRef | None = None
        self._classes: tuple[str, ...] = (UAV,)

    def update(self, detections: Detections) -> list[Track]:
        """All tracks at this frame, those included that were lost with it.

        A frame that is not later than the one before is ignored.
        """
        ref, last = detections.ref, self._last
        if last is not None and ref.pts_s <= last.pts_s:
            if last.pts_s - ref.pts_s < self._settings.reset_s:
                return []
            last = None
        ended = [] if last and ref.pts_s - last.pts_s < self._settings.reset_s else self.close()
        self._classes = detections.classes
        dt_s = ref.pts_s - last.pts_s if last else 0.0
        self._last = ref
        self._predict(dt_s, detections)
        large = detections.large(self._decision.min_area_px)
        pairs = self._assign(detections, range(len(self._targets)), np.flatnonzero(large))
        # What is too small to be a target of its own may still be one that is known.
        left = [index for index, target in enumerate(self._targets) if target.confirmed and index not in pairs]
        pairs |= self._assign(detections, left, np.flatnonzero(~large))
        self._update(pairs, detections)
        self._start(set(np.flatnonzero(large).tolist()) - set(pairs.values()), detections)
        lost = [target for target in self._targets if self._is_over(target, ref)]
        self._targets = [target for target in self._targets if target not in lost]
        ended += [self._describe(target, TrackState.LOST) for target in lost if target.confirmed]
        return [self._describe(target) for target in self._targets] + ended

    def close(self) -> list[Track]:
        """End the session: the confirmed tracks, lost."""
        ended = [self._describe(target, TrackState.LOST) for target in self._targets if target.confirmed]
        self._targets = []
        return ended

    def _predict(self, dt_s: float, detections: Detections) -> None:
        shift = detections.camera_shift_px
        settings = self._settings
        for target in self._targets:
            sigma = settings.acceleration_d_s2 * target.apparent_px
            target.motion.predict(dt_s, 2 * sigma**2 * settings.acceleration_time_s)
            if shift is not None:
                target.motion.shift(*shift)
                target.anchor += shift
                target.scene_frames += 1

    def _assign(self, detections: Detections, indices: Sequence[int], rows: NDArray[np.intp]) -> dict[int, int]:
        """Of these tracks and rows: index of the track -> row of the detection."""
        if not len(indices) or not len(rows):
            return {}
        boxes = detections.xyxy[rows].astype(float)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
        apparent = np.sqrt(sides.prod(axis=1))
        cap_px = self._settings.gate_cap * detections.size_px[0]
        costs = np.full((len(indices), len(rows)), NO_MATCH)
        for number, target in enumerate(self._targets[index] for index in indices):
            std = np.array([measurement_std(d) for d in apparent])
            squared, log_s = target.motion.distance(centers, std)
            ratio = np.abs(np.log(apparent / target.apparent_px))
            far = np.linalg.norm(centers - target.motion.mean[:2], axis=1) > cap_px
            allowed = (squared <= self._settings.gate) & (ratio <= math.log(self._settings.size_ratio)) & ~far
            # ln|S| keeps a wide, long unseen track from stealing the detections of a well known one.
            cost = squared + log_s + (ratio / 0.4) ** 2
            costs[number, allowed] = cost[allowed]
        matched = zip(*linear_sum_assignment(costs), strict=True)
        return {indices[int(i)]: int(rows[j]) for i, j in matched if costs[i, j] < NO_MATCH}

    def _update(self, pairs: dict[int, int], detections: Detections) -> None:
        settings = self._settings
        for index, target in enumerate(self._targets):
            target.seen = index in pairs
            target.recent.append(target.seen)
            if not target.seen:
                target.missed += 1
                continue
            row = pairs[index]
            box = detections.xyxy[row].astype(float)
            center = (box[:2] + box[2:]) / 2
            target.size += settings.size_gain * (box[2:] - box[:2] - target.size)
            target.motion.update(center, measurement_std(target.apparent_px))
            target.box = box
            kept = math.exp(-(detections.ref.pts_s - target.last.pts_s) / settings.evidence_s)
            target.add_evidence(detections.class_scores[row], kept)
            target.last = detections.ref
            target.hits += 1
            target.missed = 0
            target.score_sum += float(detections.score[row])
            target.moved = target.moved or self._has_moved(target, detections.size_px[0])
            enough = sum(target.recent) >= settings.confirm_hits
            target.confirmed = target.confirmed or (enough and target.moved)
            target.reported = target.reported or (target.confirmed and self._label(target) in (UAV, UNKNOWN))

    def _has_moved(self, target: _Tracklet, width_px: int) -> bool:
        """Against its background; where the picture's own motion is mostly unknown, nothing can be said against it."""
        if target.scene_frames < target.hits // 2:
            return True
        settings = self._settings
        distance = float(np.linalg.norm(target.motion.mean[:2] - target.anchor))
        least = settings.moved_px, settings.moved_d * target.apparent_px, settings.moved_width * width_px
        return distance > max(least)

    def _start(self, rows: set[int], detections: Detections) -> None:
        for row in sorted(rows):
            self._targets.append(_Tracklet(self._next, row, detections, self._settings))
            self._next += 1

    def _is_over(self, target: _Tracklet, ref: FrameRef) -> bool:
        unseen_s = ref.pts_s - target.last.pts_s
        settings = self._settings
        if target.confirmed:
            return unseen_s > settings.coast_s and target.missed >= settings.coast_frames
        return unseen_s > settings.tentative_s and target.missed >= settings.tentative_frames

    def _label(self, target: _Tracklet) -> str:
        if len(self._classes) == 1:
            return self._classes[0]
        if not target.evidence_weight:
            return UNKNOWN
        evidence = target.evidence
        uav = float(evidence[self._classes.index(UAV)])
        if uav > self._decision.uav_log_odds:
            return UAV
        margin = self._settings.silence_margin if target.reported else 0.0
        if uav < -(self._decision.distractor_log_odds + margin):
            others = [name for name in self._classes if name != UAV]
            return max(others, key=lambda name: float(evidence[self._classes.index(name)]))
        return UNKNOWN

    def _describe(self, target: _Tracklet, state: TrackState | None = None) -> Track:
        if state is None:
            seen = TrackState.CONFIRMED if target.seen else TrackState.COASTING
            state = seen if target.confirmed else TrackState.TENTATIVE
        half = target.size / 2
        center = target.motion.mean[:2]
        box = target.box if target.seen else np.concatenate([center - half, center + half])
        return Track(
            id=target.number,
            ulid=track_ulid(self.camera, self.session, target.number, target.first),
            camera=self.camera,
            session=self.session,
            state=state,
            label=self._label(target),
            evidence={name: round(float(value), 4) for name, value in zip(self._classes, target.evidence, strict=True)},
            xyxy=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            velocity_px_s=(float(target.motion.mean[2]), float(target.motion.mean[3])),
            score=target.score_sum / target.hits,
            hits=target.hits,
            first_seen=target.first,
            last_seen=target.last,
        )
