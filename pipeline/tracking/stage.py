"""Detections -> tracks and events, for any number of cameras: the stage that the track worker and replay share.

No result depends on a clock: the monotonic clock is read only to measure how long tracking and alerting take.
"""

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from msgspec.structs import replace

from model.metadata import BandThresholds
from pipeline.alerting.alerts import Alerting
from pipeline.alerting.pairs import PairedAlerts
from pipeline.alerting.rules import Rule
from pipeline.alerting.triangulation import Place
from pipeline.tracking.bearing import Orientation
from pipeline.tracking.policy import Policy
from pipeline.tracking.tracker import Tracker
from pipeline.types import Detections, Event, FrameRef, Track


@dataclass(frozen=True)
class Outcome:
    """The tracks and events of one frame, and how long each of the two took."""

    ref: FrameRef
    tracks: list[Track]  # including those that were lost with this frame
    events: list[Event]
    joined: frozenset[str] = frozenset()  # alerts of other cameras that targets of this one are part of
    track_ns: int = field(default=0, compare=False)
    alert_ns: int = field(default=0, compare=False)


@dataclass
class _Session:
    tracker: Tracker
    alerting: Alerting
    classes: tuple[str, ...]
    last: FrameRef


class TrackStage:
    """Keep one tracker per camera, for the camera's current session.

    Args:
        thresholds: the checkpoint's operating points.
        policies: by camera id; a camera without one has the default policy.  May be replaced at any time.
        orientations: by camera id; tracks of a camera without one have no bearing.  May be replaced at any time.
        rules: by camera id; targets of a camera without any are all alerted.  May be replaced at any time.
        places: by camera id; of the cameras whose alerts may be one.  May be replaced at any time.

    Attributes:
        armed: whether rules apply that need arming; may be changed at any time.
    """

    def __init__(
        self,
        thresholds: BandThresholds,
        policies: Mapping[str, Policy] | None = None,
        orientations: Mapping[str, Orientation] | None = None,
        rules: Mapping[str, Sequence[Rule]] | None = None,
        places: Mapping[str, Place] | None = None,
    ) -> None:
        self.policies = policies or {}
        self.orientations = orientations or {}
        self.rules = rules or {}
        self.places = places or {}
        self._pairs = PairedAlerts()
        self.armed = True
        self._thresholds = thresholds
        self._sessions: dict[str, _Session] = {}

    def update(self, detections: Detections) -> Outcome:
        """Track one frame's detections and raise its events.  A new session replaces the camera's previous one."""
        started_ns = time.monotonic_ns()
        ref = detections.ref
        session = self._sessions.get(ref.camera)
        if session is None or session.tracker.session != ref.session:
            tracker = Tracker(ref.camera, ref.session, self._thresholds[detections.band])
            alerting = Alerting(ref.camera, ref.session)
            session = self._sessions[ref.camera] = _Session(tracker, alerting, detections.classes, ref)
        session.last = ref
        session.tracker.policy = self.policies.get(ref.camera, Policy())
        session.alerting.rules = self.rules.get(ref.camera, ())
        session.alerting.armed = self.armed
        tracks = self._with_bearings(session.tracker.update(detections), detections)
        tracked_ns = time.monotonic_ns()
        events = session.alerting.update(ref, tracks, detections.camera_shift_px)
        orientation = self.orientations.get(ref.camera)
        rad_per_px = orientation.rad_per_px(detections.size_px) if orientation is not None else 0.0
        self._pairs.places = self.places
        tracks, events = self._pairs.update(ref, tracks, events, rad_per_px)
        durations_ns = tracked_ns - started_ns, time.monotonic_ns() - tracked_ns
        return Outcome(ref, tracks, events, self._pairs.joined(ref.camera), *durations_ns)

    def _with_bearings(self, tracks: list[Track], detections: Detections) -> list[Track]:
        orientation = self.orientations.get(detections.ref.camera)
        if orientation is None:
            return tracks
        return [replace(track, bearing=orientation.bearing_of(track.xyxy, detections.size_px)) for track in tracks]

    def fork(self, camera: str) -> "TrackStage":
        """Return a stage that continues from a copy of one camera's session."""
        forked = TrackStage(self._thresholds, self.policies, self.orientations, self.rules)
        forked._sessions = {name: deepcopy(one) for name, one in self._sessions.items() if name == camera}
        return forked

    def close(self, camera: str) -> Outcome | None:
        """End the camera's session, its tracks and its alerts, as of its last frame.  Return None without a session."""
        session = self._sessions.pop(camera, None)
        if session is None:
            return None
        tracks = session.tracker.close()
        events = session.alerting.close(session.last, tracks)
        return Outcome(session.last, tracks, self._pairs.close(session.last, tracks, events))

    def session(self, camera: str) -> str | None:
        """Return the id of the camera's current session, or None."""
        session = self._sessions.get(camera)
        return session.tracker.session if session else None

    def classes(self, camera: str) -> tuple[str, ...] | None:
        """Return the classes of the camera's current session, or None."""
        session = self._sessions.get(camera)
        return session.classes if session else None
