"""One alert for a target that several cameras with poses see.  Pure.

In: per frame the tracks and events of one camera, each camera with its own alerts.  Out: the same, where the alert of a
target that another camera's alert is about becomes a part of that one: it is not opened, it escalates it
(`second_camera`); its tracks are the other alert's; and that alert ends with the last of its parts.  Tracks of such an
alert have a position where the two bearings give one.

A target that was seen too shortly to tell waits for WAIT_S, if another camera has an alert that it may be part of.  If
the two turn out to be two targets, the part's own alert opens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from pipeline.alerting.sightings import Agreement, Sightings
from pipeline.alerting.target import SEVERITIES, rank
from pipeline.alerting.triangulation import Place
from pipeline.ids import derived_ulid
from pipeline.types import EscalationReason, Event, EventKind, FrameRef, Position, Severity, Track, TrackState

WAIT_S = 0.5  # before an alert opens that may be part of another camera's
CHECK_S = 1.0  # how often it is checked that two tracks still agree


@dataclass
class _Part:
    """What one camera knows of an alert: an alert of its own, were there no other camera.

    Attributes:
        own: id of that alert.
        alert: id of the alert that it is part of; of the first part, its own.
        event: that opened it.
        ref: frame that its camera saw last.
        track: newest state of its newest track.
        severity: at present.
        ulids: of its tracks that are not lost; it is kept for as long as there are any.
        is_active: its camera's alert has not ended.
        checked_s: when the tracks were compared last, monotonic; from its opening on.
        held: its events, while it is not known whether it is part of another alert.
    """

    own: str
    alert: str
    event: Event
    ref: FrameRef
    track: Track
    severity: Severity
    checked_s: float
    ulids: set[str] = field(default_factory=set)
    is_active: bool = True
    held: list[Event] | None = None


class PairedAlerts:
    """The alerts of all cameras.

    Attributes:
        places: of the cameras that are paired, by id; may be replaced at any time.
    """

    def __init__(self) -> None:
        self.places: Mapping[str, Place] = {}
        self._sightings = Sightings()
        self._parts: dict[str, _Part] = {}  # by their own id

    def update(
        self, ref: FrameRef, tracks: Sequence[Track], events: Sequence[Event], rad_per_px: float
    ) -> tuple[list[Track], list[Event]]:
        """Return the tracks of a frame with their positions, and its events as those of shared alerts.

        Args:
            ref: the frame.
            tracks: all at this frame, including those that were lost with it.
            events: of this camera.
            rad_per_px: angle of a pixel in the middle of the frame.
        """
        if len(self.places) < 2 and not self._parts:
            return list(tracks), list(events)
        self._sightings.places = self.places
        self._sightings.add(ref, tracks, rad_per_px)
        changed = [*self._changed(ref, tracks, events, WAIT_S), *self._parted(ref)]
        positions = {track.ulid: self._position(track) for track in tracks}
        placed = {track.ulid: replace(track, position=positions[track.ulid]) for track in tracks}
        told = [
            replace(event, track=placed[event.track.ulid]) if event.track and event.track.ulid in placed else event
            for event in changed
        ]
        return list(placed.values()), told

    def close(self, ref: FrameRef, tracks: Sequence[Track], events: Sequence[Event]) -> list[Event]:
        """Return the events of the end of a camera's session."""
        changed = self._changed(ref, tracks, events, wait_s=0.0)
        self._sightings.close(ref.camera)
        return changed

    def joined(self, camera: str) -> frozenset[str]:
        """Return the alerts of other cameras that targets of this camera are part of."""
        return frozenset(
            part.alert for part in self._parts.values() if part.alert != part.own and part.ref.camera == camera
        )

    def _changed(self, ref: FrameRef, tracks: Sequence[Track], events: Sequence[Event], wait_s: float) -> list[Event]:
        self._follow(ref, tracks)
        events = [*self._released(ref, wait_s), *events]
        for event in events:
            is_opened = event.kind is EventKind.ALERT_OPENED and event.alert not in self._parts
            if is_opened and event.alert is not None and event.track is not None:
                self._open(ref, event, event.alert, event.track, wait_s)
        changed = [told for event in events if (told := self._told(event)) is not None]
        active = {part.alert for part in self._parts.values() if part.is_active}
        active |= {part.alert for part in self._parts.values() if part.ulids}
        self._parts = {own: part for own, part in self._parts.items() if part.alert in active}
        return changed

    def _follow(self, ref: FrameRef, tracks: Sequence[Track]) -> None:
        """Take the newest state of the parts that this camera sees."""
        for part in self._parts.values():
            if part.ref.camera == ref.camera:
                part.ref = ref
                own = [track for track in tracks if track.ulid in part.ulids]
                part.track = max(own, key=lambda track: track.last_seen.seq, default=part.track)
                part.ulids -= {track.ulid for track in own if track.state is TrackState.LOST}

    def _open(self, ref: FrameRef, event: Event, own: str, track: Track, wait_s: float) -> None:
        alert, may_tell = self._match(ref.camera, track.ulid)
        part = _Part(own, alert or own, event, ref, track, event.severity, ref.received_mono_ns / 1e9, {track.ulid})
        part.held = [] if alert is None and may_tell and wait_s else None
        self._parts[own] = part

    def _released(self, ref: FrameRef, wait_s: float) -> list[Event]:
        """Return the events that need not wait any longer, as of this frame."""
        events: list[Event] = []
        for part in self._parts.values():
            if part.held is None or part.ref.camera != ref.camera:
                continue
            alert, may_tell = self._match(ref.camera, part.track.ulid)
            waited_s = ref.received_mono_ns / 1e9 - part.checked_s
            if alert is None and may_tell and waited_s < wait_s:
                continue
            part.alert = alert or part.own
            events += [_as_of(event, ref, part.track) for event in part.held]
            part.held = None
        return events

    def _match(self, camera: str, ulid: str) -> tuple[str | None, bool]:
        """Return the alert of the only target of other cameras that a track agrees with, if it is the only one.

        The second value says whether more bearings may tell.
        """
        found: set[str] = set()
        may_tell = False
        for other in sorted(self.places.keys() - {camera}):
            agreements = [
                (self._target(each), each, self._sightings.agreement(camera, ulid, other, each))
                for each in self._sightings.of(other)
            ]
            agreeing = {target: each for target, each, agreement in agreements if agreement is Agreement.ONE}
            may_tell |= any(self._is_told(target) for target, _, agreement in agreements if agreement is Agreement.OPEN)
            if len(agreeing) > 1:
                return None, False
            for target, each in agreeing.items():
                if self._is_told(target) and self._is_alone(camera, ulid, other, each):
                    found.add(self._parts[target].alert)
        free = {alert for alert in found if not self._has_part(alert, camera)}
        return (free.pop() if len(found) == len(free) == 1 else None), may_tell

    def _is_told(self, target: str) -> bool:
        return target in self._parts and self._parts[target].held is None

    def _is_alone(self, camera: str, ulid: str, other: str, other_ulid: str) -> bool:
        """Return whether no further track of this camera agrees with the other camera's."""
        return not any(
            self._sightings.agreement(camera, each, other, other_ulid) is Agreement.ONE
            for each in self._sightings.of(camera)
            if each != ulid
        )

    def _target(self, ulid: str) -> str:
        """Return the part that a track belongs to, else the track."""
        return next((part.own for part in self._parts.values() if part.is_active and ulid in part.ulids), ulid)

    def _has_part(self, alert: str, camera: str) -> bool:
        return any(part.is_active and part.ref.camera == camera for part in self._of(alert))

    def _of(self, alert: str) -> list[_Part]:
        return [part for part in self._parts.values() if part.alert == alert]

    def _told(self, event: Event) -> Event | None:
        """Return what becomes of an event; None: the alert stays as it is."""
        part = self._parts.get(event.alert or "")
        if part is None:
            return event
        if part.held is not None:
            part.held.append(event)
            return None
        if event.track is not None and event.track.state is not TrackState.LOST:
            part.ulids.add(event.track.ulid)
        if not event.is_alert:
            return replace(event, alert=part.alert)
        before = self._severity(part.alert)
        part.is_active = not event.ends_alert
        part.severity = part.severity if event.kind is EventKind.ALERT_ENDED else event.severity
        if self._of(part.alert) == [part]:
            return replace(event, alert=part.alert)
        if event.kind is EventKind.ALERT_OPENED and part.alert != part.own:
            joining = replace(event, kind=EventKind.ALERT_ESCALATED, reason=EscalationReason.SECOND_CAMERA)
            return self._seen_best(joining, part)
        if event.ends_alert:
            return self._ended(event, part)
        if event.kind is EventKind.ALERT_LOWERED and self._severity(part.alert) is before:
            return None  # another camera still says so
        return self._seen_best(event, part)

    def _ended(self, event: Event, part: _Part) -> Event | None:
        """Return the end of an alert, as of the camera that opened it, with the last of its parts."""
        parts = self._of(part.alert)
        if any(each.is_active for each in parts):
            return None
        first = next((each for each in parts if each.own == each.alert), part)
        return self._seen_by(first, event)

    def _severity(self, alert: str) -> Severity:
        active = [part.severity for part in self._of(alert) if part.is_active]
        return max(active, key=SEVERITIES.index, default=Severity.INFO)

    def _seen_best(self, event: Event, part: _Part) -> Event:
        """Return an event as of the camera with the highest label, at the highest severity."""
        active = [each for each in self._of(part.alert) if each.is_active]
        best = max(active, key=lambda each: (rank(each.track.label), each is part), default=part)
        return replace(self._seen_by(best, event), severity=self._severity(part.alert))

    def _seen_by(self, part: _Part, event: Event) -> Event:
        if part.own == event.alert:
            return replace(event, alert=part.alert)
        ref = part.ref
        return replace(
            event,
            camera=ref.camera,
            session=ref.session,
            pts_s=ref.pts_s,
            frame=ref.seq,
            track=part.track,
            alert=part.alert,
        )

    def _parted(self, ref: FrameRef) -> list[Event]:
        """Open the own alerts of parts that are another target after all."""
        events = []
        now_s = ref.received_mono_ns / 1e9
        for part in self._parts.values():
            is_due = now_s - part.checked_s >= CHECK_S
            if part.alert == part.own or not part.is_active or part.ref.camera != ref.camera or not is_due:
                continue
            part.checked_s = now_s
            others = [each for each in self._of(part.alert) if each.is_active and each is not part]
            compared = ((ref.camera, part.track.ulid, each.ref.camera, each.track.ulid) for each in others)
            if any(self._sightings.agreement(*tracks) is Agreement.TWO for tracks in compared):
                part.alert = part.own
                events.append(self._opened(part))
        return events

    def _opened(self, part: _Part) -> Event:
        ref = part.ref
        return replace(
            part.event,
            id=derived_ulid(ref.received_utc_ns, part.own, "parted", str(ref.seq)),
            time_utc_ns=ref.received_utc_ns,
            pts_s=ref.pts_s,
            frame=ref.seq,
            track=part.track,
            severity=part.severity,
        )

    def _position(self, track: Track) -> Position | None:
        """Return where a track's target is, from the other part of its alert that is most certain."""
        part = self._parts.get(self._target(track.ulid))
        if part is None:
            return None
        found = [
            position
            for other in self._of(part.alert)
            if other.is_active
            and other.ref.camera != track.camera
            and (position := self._sightings.position(track.camera, track.ulid, other.ref.camera, other.track.ulid))
        ]
        return min(found, key=lambda position: position.horizontal_sigma_m, default=None)


def _as_of(event: Event, ref: FrameRef, track: Track) -> Event:
    """Return an event that waited, as of a later frame of its camera."""
    is_of_track = event.track is not None and event.track.ulid == track.ulid
    return replace(
        event,
        time_utc_ns=ref.received_utc_ns,
        pts_s=ref.pts_s,
        frame=ref.seq,
        track=track if is_of_track and track.state is not TrackState.LOST else event.track,
    )
