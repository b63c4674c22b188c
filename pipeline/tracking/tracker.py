"""Detections -> tracks, for one camera and session.  Pure: reads no clock, so a replay is deterministic.

For each frame: predict every track to the frame's presentation time; assign detections to tracks at minimum total cost
within a Mahalanobis gate, strong detections first, then weak ones to confirmed tracks (as ByteTrack does by score:
Zhang et al., ECCV 2022); update the tracks; start tentative tracks from unassigned strong detections; confirm a track
by M of N frames, fewer at a low frame rate, once its evidence is enough; let tracks coast for a bounded time.  A
camera may turn in jerks before a plain sky, which does not show it: so a track that was just seen may continue far from
where it is expected, where nothing else explains the detection there.  A track that has not moved against the
background since it was first seen, or on the screen where the camera's motion is unknown, is a fixed object (a cloud, a
lamp, a dead pixel) and is not confirmed; a target that arrived and then hovers stays confirmed.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.metadata import CLUTTER, Thresholds
from pipeline.ids import track_ulid
from pipeline.tracking.association import Places, assign, detected_places, selected
from pipeline.tracking.evidence import Label, log_odds
from pipeline.tracking.handover import CONTINUE_S, CameraTracks, TrackletState
from pipeline.tracking.policy import Policy
from pipeline.tracking.settings import TrackerSettings
from pipeline.tracking.tracklet import Observation, Tracklet, observations
from pipeline.types import UAV, UNKNOWN, Detections, FrameRef, Track, TrackState

FRAME_S = 1e-3  # from the state that is inherited, already predicted, to the first frame
MISS_LOG_ODDS = log_odds(0.12)  # what a frame without a detection says of a track that is not confirmed yet


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
        self._tracklets: list[Tracklet] = []
        self._inherited: list[Tracklet] = []  # tracks of an earlier session that are lost with the first frame
        self._next = 1
        self._last: FrameRef | None = None
        self._camera_shift_px = (0.0, 0.0)
        self._classes: tuple[str, ...] = (UAV,)
        self.policy = policy
        self._width_px = 0
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
        inherited, self._inherited = self._inherited, []
        ended = [] if last and ref.pts_s - last.pts_s < self._settings.reset_s else self.close()
        self._classes = detections.classes
        width, height = detections.size_px
        self._width_px = width
        is_known = f"{width}x{height}" in self._thresholds.known_sizes or self.policy.may_suppress(detections.size_px)
        self._may_suppress = is_known and len(self._classes) > 1
        dt_s = ref.pts_s - last.pts_s if last else 0.0
        self._last = ref
        self._predict(dt_s, detections)
        observed, strong = (
            observations(detections),
            detections.may_start(self._thresholds.min_area_px, self._thresholds.start_score),
        )
        pairs = self._associate(detections, strong)
        self._observe(pairs, observed, detections)
        for row in sorted(set(np.flatnonzero(strong).tolist()) - set(pairs.values())):
            self._tracklets.append(Tracklet(self._next, observed[row], self._classes, self._settings))
            self._next += 1
        lost = [tracklet for tracklet in self._tracklets if self._is_over(tracklet, ref)]
        if lost:
            self._tracklets = [tracklet for tracklet in self._tracklets if tracklet not in lost]
        ended += [self._describe(tracklet, TrackState.LOST) for tracklet in lost + inherited if tracklet.confirmed]
        return [self._describe(tracklet) for tracklet in self._tracklets] + ended

    def state(self) -> list[TrackletState]:
        """Return the confirmed tracks, for the next owner of the camera."""
        return [tracklet.state() for tracklet in self._tracklets if tracklet.confirmed]

    def inherit(self, tracks: CameraTracks, ref: FrameRef, gap_s: float) -> None:
        """Continue the tracks of an earlier session; to be called before the first frame.

        Args:
            tracks: of another host's tracker.
            ref: the first frame.
            gap_s: the time from their last frame to it; after too long they are lost with it.
        """
        continued = [
            Tracklet.inherited(state, ref, min(gap_s, CONTINUE_S), tracks.classes, self._settings)
            for state in tracks.tracklets
        ]
        self._next = max(self._next, tracks.next)
        self._last = msgspec.structs.replace(ref, pts_s=ref.pts_s - FRAME_S)
        if gap_s <= CONTINUE_S:
            self._tracklets = continued
        else:
            self._inherited = continued

    @property
    def next(self) -> int:
        """The number of the next track."""
        return self._next

    def close(self) -> list[Track]:
        """End the session and return its confirmed tracks, as lost."""
        ended = [self._describe(tracklet, TrackState.LOST) for tracklet in self._tracklets if tracklet.confirmed]
        self._tracklets = []
        return ended

    def _predict(self, dt_s: float, detections: Detections) -> None:
        shift, before = detections.camera_shift_px, self._camera_shift_px
        self._camera_shift_px = shift or (0.0, 0.0)
        # A pan that was not recognised in some frames is reported as one jump after them, when tracks have already
        # followed it: a jump may be wrong by all of it.
        settings = self._settings
        known_px = settings.camera_jump_error * math.dist(shift, before) if shift else 0.0
        for tracklet in self._tracklets:
            std_px = known_px if shift else settings.unknown_shift_d * tracklet.apparent_px
            tracklet.predict(dt_s, shift, std_px)

    def _associate(self, detections: Detections, strong: NDArray[np.bool_]) -> dict[int, int]:
        """Match tracks with detections: index of a track -> row of a detection."""
        settings, tracklets = self._settings, self._tracklets
        columns = [(t.motion.x, t.motion.y, t.motion.position_variance, t.apparent_px) for t in tracklets]
        predicted = Places(*np.array(columns, float).reshape(-1, 4).T)
        detected = detected_places(detections.xyxy)
        pairs: dict[int, int] = {}

        def assign_more(
            indices: Sequence[int],
            rows: NDArray[np.intp],
            gate: float,
            cap_d: float = math.inf,
            size_ratio: float = settings.size_ratio,
        ) -> None:
            ours, theirs = selected(predicted, indices), selected(detected, rows)
            cap_px = np.minimum(settings.gate_cap * detections.size_px[0], cap_d * ours.apparent_px)
            matched = assign(ours, theirs, gate, cap_px, size_ratio)
            pairs.update((indices[index], int(rows[row])) for index, row in matched)

        def confirmed_left() -> list[int]:
            return [index for index, track in enumerate(tracklets) if track.confirmed and index not in pairs]

        assign_more(range(len(tracklets)), np.flatnonzero(strong), settings.gate)
        # A detection too weak to start a track may still continue a confirmed one.
        assign_more(confirmed_left(), np.flatnonzero(~strong), settings.gate)
        free = np.setdiff1d(np.flatnonzero(strong), list(pairs.values()))
        assign_more(confirmed_left(), free, settings.recovery_gate)
        free = np.setdiff1d(free, list(pairs.values()))
        just_seen = [index for index in confirmed_left() if tracklets[index].missed <= settings.jump_missed]
        assign_more(just_seen, free, math.inf, settings.jump_d, settings.jump_size_ratio)
        return pairs

    def _observe(self, pairs: dict[int, int], observed: Sequence[Observation], detections: Detections) -> None:
        for index, tracklet in enumerate(self._tracklets):
            row = pairs.get(index)
            if row is None:
                tracklet.miss(detections.ref.pts_s, MISS_LOG_ODDS)
                continue
            tracklet.hit(observed[row])
            is_confirmed = tracklet.confirmed or (tracklet.has_moved(self._width_px) and self._is_sure(tracklet))
            if is_confirmed and not tracklet.reported:
                tracklet.reported = self._label(tracklet).name in (UAV, UNKNOWN)
            tracklet.confirmed = is_confirmed

    def _is_sure(self, tracklet: Tracklet) -> bool:
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

    def _is_over(self, tracklet: Tracklet, ref: FrameRef) -> bool:
        unseen_s = ref.pts_s - tracklet.last.pts_s
        settings = self._settings
        if tracklet.confirmed:
            return unseen_s > settings.coast_s and tracklet.missed >= settings.coast_frames
        return unseen_s > settings.tentative_s and tracklet.missed >= settings.tentative_frames

    def _label(self, tracklet: Tracklet) -> Label:
        margin = 0.0
        if tracklet.confirmed and not tracklet.has_moved(self._width_px):
            return Label(CLUTTER)
        if tracklet.confirmed:
            settings = self._settings
            margin = settings.suppression_margin if tracklet.reported else -settings.report_margin
        return tracklet.evidence.label(self._thresholds, may_suppress=self._may_suppress, margin=margin)

    def _describe(self, tracklet: Tracklet, state: TrackState | None = None) -> Track:
        if state is None:
            seen = TrackState.CONFIRMED if tracklet.seen else TrackState.COASTING
            state = seen if tracklet.confirmed else TrackState.TENTATIVE
        label = self._label(tracklet)
        if not tracklet.ulid:
            tracklet.ulid = track_ulid(self.camera, self.session, tracklet.number, tracklet.first)
        return Track(
            id=tracklet.number,
            ulid=tracklet.ulid,
            camera=self.camera,
            session=self.session,
            state=state,
            label=label.name,
            reason=label.reason,
            novelty=round(tracklet.evidence.novelty, 4),
            evidence=tracklet.evidence.by_class(),
            xyxy=tracklet.box(),
            velocity_px_s=(tracklet.motion.vx, tracklet.motion.vy),
            score=tracklet.score_sum / tracklet.hits,
            hits=tracklet.hits,
            first_seen=tracklet.first,
            last_seen=tracklet.last,
        )
