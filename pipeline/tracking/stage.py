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
from pipeline.alerting.incidents import IncidentState
from pipeline.alerting.pairs import PairedAlerts
from pipeline.alerting.rules import Rule
from pipeline.alerting.triangulation import Place
from pipeline.tracking.axis import AxisHistory, Mount
from pipeline.tracking.bearing import Orientation
from pipeline.tracking.handover import CameraTracks, rebased
from pipeline.tracking.policy import Policy
from pipeline.tracking.tracker import Tracker
from pipeline.types import AxisSample, Band, Detections, Event, FrameRef, Track


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
        mounts: by camera id; of the cameras that turn, whose orientation `look` tells.  May be replaced at any time.

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
        mounts: Mapping[str, Mount] | None = None,
    ) -> None:
        self.policies = policies or {}
        self.orientations = orientations or {}
        self.rules = rules or {}
        self.places = places or {}
        self.mounts = mounts or {}
        self._axes: dict[str, AxisHistory] = {}  # of cameras that turn
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
            session = self._begin(ref, detections.band, detections.classes)
        session.last = ref
        session.tracker.policy = self.policies.get(ref.camera, Policy())
        session.alerting.rules = self.rules.get(ref.camera, ())
        session.alerting.armed = self.armed
        orientation = self._orientation(ref)
        tracks = _with_bearings(session.tracker.update(detections), orientation, detections.size_px)
        tracked_ns = time.monotonic_ns()
        events = session.alerting.update(ref, tracks, detections.camera_shift_px)
        rad_per_px = orientation.rad_per_px(detections.size_px) if orientation is not None else 0.0
        self._pairs.places = self.places
        tracks, events = self._pairs.update(ref, tracks, events, rad_per_px)
        durations_ns = tracked_ns - started_ns, time.monotonic_ns() - tracked_ns
        return Outcome(ref, tracks, events, self._pairs.joined(ref.camera), *durations_ns)

    def look(self, sample: AxisSample) -> None:
        """Take where a camera that turns looked at one moment."""
        if sample.camera in self.mounts:
            self._axes.setdefault(sample.camera, AxisHistory()).add(sample)

    def _orientation(self, ref: FrameRef) -> Orientation | None:
        """Return where the camera looked at a frame; None: unknown."""
        mount = self.mounts.get(ref.camera)
        if mount is None:
            return self.orientations.get(ref.camera)
        history = self._axes.get(ref.camera)
        return history.orientation(mount, ref.received_mono_ns) if history is not None else None

    def state(self, camera: str) -> CameraTracks | None:
        """Return the camera's tracks and alerts for its next owner; None without a session."""
        session = self._sessions.get(camera)
        if session is None:
            return None
        tracker = session.tracker
        incidents, labelled = session.alerting.state()
        return CameraTracks(tracker.next, session.classes, session.last.pts_s, tracker.state(), incidents, labelled)

    def inherit(self, tracks: CameraTracks, ref: FrameRef, band: Band, gap_s: float) -> None:
        """Begin the session of frame `ref` with the tracks and alerts of the camera's last owner.

        Args:
            tracks: its tracks.
            ref: the frame, which `update` follows with.
            band: of the camera.
            gap_s: the time from the last owner's last frame to this one.
        """
        session = self._begin(ref, band, tracks.classes)
        session.alerting.rules = self.rules.get(ref.camera, ())
        session.tracker.inherit(tracks, ref, gap_s)
        incidents = [_rebased(incident, tracks.last_pts_s, ref) for incident in tracks.incidents]
        session.alerting.inherit(incidents, tracks.labelled, ref.pts_s)

    def drop(self, camera: str) -> None:
        """Forget the camera's session: another host goes on with its tracks and alerts."""
        self._sessions.pop(camera, None)

    def _begin(self, ref: FrameRef, band: Band, classes: tuple[str, ...]) -> _Session:
        tracker = Tracker(ref.camera, ref.session, self._thresholds[band])
        session = _Session(tracker, Alerting(ref.camera, ref.session), classes, ref)
        self._sessions[ref.camera] = session
        return session

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


def _with_bearings(tracks: list[Track], orientation: Orientation | None, size_px: tuple[int, int]) -> list[Track]:
    if orientation is None:
        return tracks
    return [replace(track, bearing=orientation.bearing_of(track.xyxy, size_px)) for track in tracks]


def _rebased(incident: IncidentState, last_pts_s: float, ref: FrameRef) -> IncidentState:
    """Return a target of an earlier session with the times of this one: the time without an owner does not count."""

    def moved(track: Track) -> Track:
        last = track.last_seen
        return replace(track, last_seen=rebased(last, ref.pts_s - (last_pts_s - last.pts_s), ref.session))

    return replace(incident, tracks=[moved(track) for track in incident.tracks])
