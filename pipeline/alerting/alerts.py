"""Tracks -> events of tracks and alerts, for one camera and session.  Pure.

A confirmed target is reported as `track.confirmed` and raises an alert, unless it is a further piece of a target that
already has one, or a rule says that it is only recorded; then its alert opens when another rule applies.  A track that
is classified as a distractor is reported once as `track.labelled` and suppressed; if its label changes to uav or
unknown, it is confirmed then.  `pipeline.alerting.incidents` follows each target to its end.
"""

from collections.abc import Mapping, Sequence

from pipeline.alerting.incidents import Change, Incident, IncidentState
from pipeline.alerting.rules import DEFAULT, Cooldowns, Rule, decide, worst, zones_of
from pipeline.alerting.zones import History
from pipeline.geometry import Point
from pipeline.ids import derived_ulid
from pipeline.types import EscalationReason, Event, EventKind, FrameRef, Severity, Track, TrackState


class Alerting:
    """Open, change and end the alerts of one camera, for one session.

    Attributes:
        rules: of the camera, in their order; may be replaced at any time.
        armed: whether rules apply that need arming; likewise.
    """

    def __init__(self, camera: str, session: str) -> None:
        self.rules: Sequence[Rule] = ()
        self.armed = True
        self._camera = camera
        self._session = session
        self._incidents: list[Incident] = []  # oldest first
        self._confirmed: dict[int, Incident] = {}  # by id of a track that was not lost yet
        self._continued: dict[int, Incident | None] = {}  # by id of a track: of what it seemed a piece when it began
        self._labelled: set[int] = set()
        self._history = History()
        self._cooldowns = Cooldowns()
        self._last_s: float | None = None

    def update(self, ref: FrameRef, tracks: Sequence[Track], shift_px: Point | None = None) -> list[Event]:
        """Return the events of frame `ref`: of lost tracks, of new ones by id, then of alerts that changed or ended.

        Args:
            ref: the frame.
            tracks: all at this frame, including those that were lost with it.
            shift_px: how far the image moved since the frame before; None: unknown.
        """
        ordered = self._follow(ref, tracks, shift_px)
        decided = self._decided(ref, ordered)
        events = [*self._lost(ref, ordered), *self._named(ref, ordered, decided)]
        return [*events, *self._changed(ref, decided), *self._ended(ref, is_closing=False)]

    def state(self) -> tuple[list[IncidentState], list[int]]:
        """Return the targets, and the ids of tracks that were reported as distractors, for the next owner."""
        return [incident.state() for incident in self._incidents], sorted(self._labelled)

    def inherit(self, incidents: Sequence[IncidentState], labelled: Sequence[int], pts_s: float) -> None:
        """Continue the targets of an earlier session, whose tracks have this session's times.

        To be called before the first frame.
        """
        self._incidents = [Incident.inherited(state, self.rules, pts_s) for state in incidents]
        self._labelled = set(labelled)
        for incident in self._incidents:
            there = [track.id for track in incident.tracks if track.state is not TrackState.LOST]
            self._confirmed |= dict.fromkeys(there, incident)
        self._continued = dict.fromkeys((*self._confirmed, *self._labelled), None)

    def close(self, ref: FrameRef, tracks: Sequence[Track]) -> list[Event]:
        """End the session, with its tracks as lost; return the events as of its last frame `ref`."""
        return [*self._lost(ref, self._follow(ref, tracks, None)), *self._ended(ref, is_closing=True)]

    def _follow(self, ref: FrameRef, tracks: Sequence[Track], shift_px: Point | None) -> list[Track]:
        """Take the state of all tracks at this frame; return them by id."""
        ordered = sorted(tracks, key=lambda track: track.id)
        passed_s = ref.pts_s - self._last_s if self._last_s is not None else 0.0
        self._last_s = ref.pts_s
        for incident in self._incidents:
            incident.move(max(0.0, passed_s), shift_px or (0.0, 0.0))
            incident.follow(ordered)
        self._continued = {
            track.id: self._continued[track.id] if track.id in self._continued else self._begun(track, ref.pts_s)
            for track in ordered
        }
        return ordered

    def _begun(self, track: Track, pts_s: float) -> Incident | None:
        """Return the target of which a track that begins here is a piece, and continue its past."""
        nearest = min(self._incidents, key=lambda incident: incident.apart(track, pts_s), default=None)
        if nearest is None or nearest.apart(track, pts_s) > 1:
            return None
        if self.rules:
            self._history.continue_from(track, nearest.last)
        return nearest

    def _decided(self, ref: FrameRef, tracks: Sequence[Track]) -> dict[int, Rule]:
        """Return the rule that decides each visible target; empty without rules."""
        if not self.rules:
            return {}
        self._history.update(ref, tracks, zones_of(self.rules))
        pieces = [track.id for incident in self._incidents for track in incident.tracks]
        self._history.keep({*pieces, *(track.id for track in tracks)})
        targets = [track for track in tracks if track.state is TrackState.CONFIRMED and track.is_target]
        return decide(self.rules, ref, targets, self._history, armed=self.armed)

    def _lost(self, ref: FrameRef, tracks: Sequence[Track]) -> list[Event]:
        lost = [track for track in tracks if track.state is TrackState.LOST]
        self._labelled -= {track.id for track in lost}
        ended = [(track, self._confirmed.pop(track.id)) for track in lost if track.id in self._confirmed]
        kind, severity = EventKind.TRACK_LOST, Severity.INFO
        return [self._event(kind, severity, ref, track, incident.opened_alert) for track, incident in ended]

    def _named(self, ref: FrameRef, tracks: Sequence[Track], decided: Mapping[int, Rule]) -> list[Event]:
        """Confirm the tracks that are new, or report them as labelled."""
        events: list[Event] = []
        for track in tracks:
            if track.state is not TrackState.CONFIRMED or track.id in self._confirmed:
                continue
            if track.is_target:
                events += self._confirm(ref, track, decided.get(track.id, DEFAULT))
            elif track.id not in self._labelled:
                self._labelled.add(track.id)
                events.append(self._event(EventKind.TRACK_LABELLED, Severity.INFO, ref, track, None))
        return events

    def _confirm(self, ref: FrameRef, track: Track, rule: Rule) -> list[Event]:
        incident = self._incident_of(track)
        if incident is None:
            alert = self._event_id(EventKind.TRACK_CONFIRMED, ref, track)
            incident = Incident(alert, track, ref.pts_s)
            self._incidents.append(incident)
        else:
            incident.add(track)
        self._confirmed[track.id] = incident
        opened = self._opened(ref, incident, track, rule)
        severity = rule.severity_of(track.label) if incident.is_open else Severity.INFO
        kind, alert_id = EventKind.TRACK_CONFIRMED, incident.opened_alert
        return [self._event(kind, severity, ref, track, alert_id, rule=rule.name), *opened]

    def _incident_of(self, track: Track) -> Incident | None:
        """Return the target of which a track that is confirmed now is a further piece."""
        beside = next((incident for incident in self._incidents if incident.is_beside(track)), None)
        continued = self._continued[track.id]
        return beside or (continued if continued in self._incidents else None)

    def _opened(self, ref: FrameRef, incident: Incident, track: Track, rule: Rule) -> list[Event]:
        """Open the alert of a target that has none, if the rule of one of its tracks does and is not cooling down."""
        severity = rule.severity_of(track.label)
        may_open = rule.alerts and self._cooldowns.may_open(rule, severity, ref.pts_s)
        if incident.is_open or not may_open:
            return []
        incident.open(rule, track, ref.pts_s)
        self._cooldowns.start(rule, severity, ref.pts_s)
        return [self._event(EventKind.ALERT_OPENED, severity, ref, track, incident.alert, rule=rule.name)]

    def _changed(self, ref: FrameRef, decided: Mapping[int, Rule]) -> list[Event]:
        """Open the alerts of targets that were only recorded, and change those that are open."""
        events: list[Event] = []
        for incident in self._incidents:
            if incident.is_open:
                change = incident.change(ref.pts_s, decided)
                events += [self._change(ref, incident, change)] if change is not None else []
            elif (alerted := worst(decided, incident.tracks)) is not None:
                events += self._opened(ref, incident, *alerted)
        return events

    def _change(self, ref: FrameRef, incident: Incident, change: Change) -> Event:
        severity, rule = incident.severity, incident.rule.name
        return self._event(change.kind, severity, ref, change.track, incident.alert, change.was, change.reason, rule)

    def _ended(self, ref: FrameRef, *, is_closing: bool) -> list[Event]:
        gone = [incident for incident in self._incidents if is_closing or incident.is_gone(ref.pts_s)]
        self._incidents = [incident for incident in self._incidents if incident not in gone]
        ended = [incident for incident in gone if incident.is_open and not incident.is_ended]
        kind, severity = EventKind.ALERT_ENDED, Severity.INFO
        return [self._event(kind, severity, ref, incident.last, incident.alert) for incident in ended]

    def _event(
        self,
        kind: EventKind,
        severity: Severity,
        ref: FrameRef,
        track: Track,
        alert: str | None,
        was: str | None = None,
        reason: EscalationReason | None = None,
        rule: str | None = None,
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
            rule=rule,
        )

    def _event_id(self, kind: EventKind, ref: FrameRef, track: Track) -> str:
        return derived_ulid(ref.received_utc_ns, self._camera, self._session, kind, str(track.id), str(ref.seq))
