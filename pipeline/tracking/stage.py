"""Detections -> Tracks and Events, for any number of cameras.  Pure: what the track worker and the replay both call."""

from dataclasses import dataclass

from model.metadata import BandThresholds
from pipeline.alerting.alerts import Alerting
from pipeline.tracking.tracker import Tracker
from pipeline.types import Detections, Event, FrameRef, Track


@dataclass(frozen=True)
class Outcome:
    """What one frame led to."""

    ref: FrameRef
    tracks: list[Track]  # those lost with this frame included
    events: list[Event]


@dataclass
class _Session:
    tracker: Tracker
    alerting: Alerting
    last: FrameRef


class TrackStage:
    """Keeps one tracker for each camera's current session."""

    def __init__(self, decision: BandThresholds) -> None:
        self._decision = decision
        self._sessions: dict[str, _Session] = {}

    def track(self, detections: Detections) -> list[Track]:
        """The tracks of the frame; `alert` must be called with them next."""
        ref = detections.ref
        current = self._sessions.get(ref.camera)
        if current is None or current.tracker.session != ref.session:
            tracker = Tracker(ref.camera, ref.session, self._decision[detections.band])
            current = self._sessions[ref.camera] = _Session(tracker, Alerting(ref.camera, ref.session), ref)
        current.last = ref
        return current.tracker.update(detections)

    def alert(self, ref: FrameRef, tracks: list[Track]) -> list[Event]:
        return self._sessions[ref.camera].alerting.update(ref, tracks)

    def close(self, camera: str) -> Outcome | None:
        """End the camera's session: all its tracks are lost, as of its last frame."""
        session = self._sessions.pop(camera, None)
        if session is None:
            return None
        tracks = session.tracker.close()
        return Outcome(session.last, tracks, session.alerting.update(session.last, tracks))

    def session(self, camera: str) -> str | None:
        current = self._sessions.get(camera)
        return current.tracker.session if current else None
