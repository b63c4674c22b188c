"""Tracks -> events of tracks and alerts, for one camera and session.  Pure.

A confirmed target is reported as `track.confirmed` and raises an alert, unless it is a further piece of a target that
already has one.  A track that is classified as a distractor is reported once as `track.labelled` and suppressed; if its
label changes to uav or unknown, it is confirmed then.  `pipeline.alerting.incidents` follows each alert to its end.
"""

from collections.abc import Sequence

from pipeline.alerting.incidents import Change, Incident, Point, rank
from pipeline.ids import derived_ulid
from pipeline.types import EscalationReason, Event, EventKind, FrameRef, Severity, Track, TrackState

SEVERITIES = (Severity.INFO, Severity.WARNING, Severity.ALARM)  # by rank of the label


class Alerting:
    """Open, change and end the alerts of one camera, for one session."""

    def __init__(self, camera: str, session: str) -> None:
        self._camera = camera
        self._session = session
        self._incidents: list[Incident] = []  # oldest first
        self._confirmed: dict[int, Incident] = {}  # by id of a track that was not lost yet
        self._continued: dict[int, Incident | None] = {}  # by id of a track: of what it seemed a piece when it began
        self._labelled: set[int] = set()
        self._last_s: float | None = None

    def update(self, ref: FrameRef, tracks: Sequence[Track], shift_px: Point | None = None) -> list[Event]:
        """Return the events of frame `ref`: of lost tracks, of new ones by id, then of alerts that changed or ended.

        Args:
            ref: the frame.
            tracks: all at this frame, including those that were lost with it.
            shift_px: how far the image moved since the frame before; None: unknown.
        """
        return [*self._follow(ref, tracks, shift_px), *self._changed(ref), *self._ended(ref, is_closing=False)]

    def close(self, ref: FrameRef, tracks: Sequence[Track]) -> list[Event]:
        """End the session, with its tracks as lost; return the events as of its last frame `ref`."""
        return [*self._follow(ref, tracks, None), *self._ended(ref, is_closing=True)]

    def _follow(self, ref: FrameRef, tracks: Sequence[Track], shift_px: Point | None) -> list[Event]:
        ordered = sorted(tracks, key=lambda track: track.id)
        passed_s = ref.pts_s - self._last_s if self._last_s is not None else 0.0
        self._last_s = ref.pts_s
        for incident in self._incidents:
            incident.move(max(0.0, passed_s), shift_px or (0.0, 0.0))
            incident.follow(ordered)
        self._continued = {
            track.id: self._continued[track.id] if track.id in self._continued else self._nearest(track, ref.pts_s)
            for track in ordered
        }
        events = [self._lost(ref, track) for track in ordered if track.id in self._confirmed and _is_lost(track)]
        self._labelled -= {track.id for track in ordered if _is_lost(track)}
        for track in ordered:
            if track.state is TrackState.CONFIRMED and track.id not in self._confirmed:
                events += self._named(ref, track)
        return events

    def _nearest(self, track: Track, pts_s: float) -> Incident | None:
        """Return the alert of which a track that begins here is a piece."""
        nearest = min(self._incidents, key=lambda incident: incident.apart(track, pts_s), default=None)
        return nearest if nearest is not None and nearest.apart(track, pts_s) <= 1 else None

    def _lost(self, ref: FrameRef, track: Track) -> Event:
        alert = self._confirmed.pop(track.id).alert
        return self._event(EventKind.TRACK_LOST, Severity.INFO, ref, track, alert)

    def _named(self, ref: FrameRef, track: Track) -> list[Event]:
        """Confirm a track, or report it as labelled."""
        if not track.is_target:
            is_new = track.id not in self._labelled
            self._labelled.add(track.id)
            return [self._event(EventKind.TRACK_LABELLED, Severity.INFO, ref, track, None)] if is_new else []
        severity = SEVERITIES[rank(track.label)]
        incident = self._incident_of(track)
        alert = incident.alert if incident else self._event_id(EventKind.TRACK_CONFIRMED, ref, track)
        events = [self._event(EventKind.TRACK_CONFIRMED, severity, ref, track, alert)]
        if incident is None:
            incident = Incident(alert, track, ref.pts_s)
            self._incidents.append(incident)
            events.append(self._event(EventKind.ALERT_OPENED, severity, ref, track, alert))
        else:
            incident.add(track)
        self._confirmed[track.id] = incident
        return events

    def _incident_of(self, track: Track) -> Incident | None:
        """Return the alert of which a track that is confirmed now is a further piece."""
        beside = next((incident for incident in self._incidents if incident.is_beside(track)), None)
        continued = self._continued[track.id]
        return beside or (continued if continued in self._incidents else None)

    def _changed(self, ref: FrameRef) -> list[Event]:
        changes = [(incident, incident.change(ref.pts_s)) for incident in self._incidents]
        return [self._change(ref, incident, change) for incident, change in changes if change is not None]

    def _change(self, ref: FrameRef, incident: Incident, change: Change) -> Event:
        severity = SEVERITIES[rank(incident.label)]
        return self._event(change.kind, severity, ref, change.track, incident.alert, change.was, change.reason)

    def _ended(self, ref: FrameRef, *, is_closing: bool) -> list[Event]:
        gone = [incident for incident in self._incidents if is_closing or incident.is_gone(ref.pts_s)]
        self._incidents = [incident for incident in self._incidents if incident not in gone]
        return [
            self._event(EventKind.ALERT_ENDED, Severity.INFO, ref, incident.last, incident.alert)
            for incident in gone
            if not incident.is_ended
        ]

    def _event(
        self,
        kind: EventKind,
        severity: Severity,
        ref: FrameRef,
        track: Track,
        alert: str | None,
        was: str | None = None,
        reason: EscalationReason | None = None,
    ) -> Event:
        return Event(
            id=self._event_id(kind, ref, track),
            kind=kind,
            severity=severity,
            camera=self._camera,
            time_utc_ns=ref.received_utc_ns,
            pts_s=ref.pts_s,
            frame=ref.seq,
            session=self._session,
            track=track,
            alert=alert,
            was=was,
            reason=reason,
        )

    def _event_id(self, kind: EventKind, ref: FrameRef, track: Track) -> str:
        return derived_ulid(ref.received_utc_ns, self._camera, self._session, kind, str(track.id), str(ref.seq))


def _is_lost(track: Track) -> bool:
    return track.state is TrackState.LOST
