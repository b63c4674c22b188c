"""Tracks -> events, for one camera and session.  Pure.

A confirmed target raises one alert: `track.confirmed` opens it and `track.lost` ends it.  A track that is classified
as a distractor is reported once as `track.labelled` and suppressed; if its label changes to uav or unknown, the alert
is raised then.
"""

from collections.abc import Sequence

from pipeline.ids import derived_ulid
from pipeline.types import UAV, Event, EventKind, FrameRef, Severity, Track, TrackState


class Alerting:
    """Open and end the alerts of one camera's tracks, for one session."""

    def __init__(self, camera: str, session: str) -> None:
        self._camera = camera
        self._session = session
        self._alerts: dict[int, str] = {}  # track id -> id of the event that opened its alert
        self._labelled: set[int] = set()

    def update(self, ref: FrameRef, tracks: Sequence[Track]) -> list[Event]:
        """Return the events that these tracks, as of frame `ref`, raise, ordered by track id."""
        events = []
        for track in sorted(tracks, key=lambda track: track.id):
            if track.state is TrackState.LOST:
                if track.id in self._alerts:
                    events.append(self._event(EventKind.TRACK_LOST, Severity.INFO, ref, track))
                self._alerts.pop(track.id, None)
                self._labelled.discard(track.id)
            elif track.state is not TrackState.CONFIRMED or track.id in self._alerts:
                continue
            elif track.is_target:
                severity = Severity.ALARM if track.label == UAV else Severity.WARNING
                event = self._event(EventKind.TRACK_CONFIRMED, severity, ref, track)
                self._alerts[track.id] = event.id
                events.append(event)
            elif track.id not in self._labelled:
                self._labelled.add(track.id)
                events.append(self._event(EventKind.TRACK_LABELLED, Severity.INFO, ref, track))
        return events

    def _event(self, kind: EventKind, severity: Severity, ref: FrameRef, track: Track) -> Event:
        return Event(
            id=derived_ulid(ref.received_utc_ns, self._camera, self._session, kind, str(track.id), str(ref.seq)),
            kind=kind,
            severity=severity,
            camera=self._camera,
            time_utc_ns=ref.received_utc_ns,
            pts_s=ref.pts_s,
            frame=ref.seq,
            session=self._session,
            track=track,
            alert=self._alerts.get(track.id),
        )
