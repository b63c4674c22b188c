"""One target: the tracks that it left, and its alert: when it opens, rises, falls and ends.  Pure.

A track that begins where an earlier one of the incident ended or coasts, or beside a visible one, is a further piece of
the same target.  D is a target's apparent size, sqrt(box width x height).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from pipeline.alerting.rules import DEFAULT, Rule, worst
from pipeline.alerting.target import SEVERITIES, Approach, apparent_px, centre, rank
from pipeline.geometry import Point
from pipeline.types import EscalationReason, EventKind, Severity, Track, TrackState

END_S = (
    4.0  # without a detection: the tracker bridges 1 s; trees, cloud edges and gain changes hide a target for 1 to 3
)
LOWER_S = 5.0  # a lower label must last this long, twice the time constant of its evidence: else alerts would chatter
JOIN_PX = 8.0  # how far from the expected place a further piece begins: this many pixels, since tiny boxes jump, ...
JOIN_D = 2.0  # ... and this many D, since a target turns, ...
JOIN_D_S = 1.5  # ... and this many D for each second unseen; more would join what crosses the image in the meantime
BESIDE_D = 1.0  # pieces that are visible at once touch each other: their centres are this many D apart at most
SIZE_RATIO = 3.0  # largest ratio in D between two pieces, as between two detections in the tracker


@dataclass(frozen=True)
class Change:
    """What became of an alert with a frame."""

    kind: EventKind
    track: Track  # that caused it
    was: str | None = None  # its label before
    reason: EscalationReason | None = None


class Piece:
    """A track of an alert, and where it would be now: as it flew on, or where it was last seen."""

    def __init__(self, track: Track) -> None:
        self.track = track
        self._expected = self._seen = centre(track)

    @property
    def is_lost(self) -> bool:
        """Return whether the tracker has given it up."""
        return self.track.state is TrackState.LOST

    def move(self, passed_s: float, shift_px: Point) -> None:
        """Move along with the background, and once it is lost with its last velocity."""
        self._seen = self._seen[0] + shift_px[0], self._seen[1] + shift_px[1]
        if self.is_lost:
            (x, y), (vx, vy) = self._expected, self.track.velocity_px_s
            self._expected = x + vx * passed_s + shift_px[0], y + vy * passed_s + shift_px[1]

    def follow(self, track: Track) -> None:
        """Take the track's state at this frame; a coasting or lost one says where the tracker expects it."""
        self.track = track
        self._expected = centre(track)
        if track.state is TrackState.CONFIRMED:
            self._seen = self._expected

    def apart(self, track: Track, pts_s: float) -> float:
        """Return how far from here a track begins, as a share of what one target's pieces may be apart."""
        size, gap_s = apparent_px(self.track), abs(pts_s - self.track.last_seen.pts_s)
        if self.track.state is TrackState.CONFIRMED or not _alike(size, apparent_px(track)):
            return math.inf
        nearest_px = min(math.dist(centre(track), place) for place in (self._expected, self._seen))
        return nearest_px / (JOIN_PX + (JOIN_D + JOIN_D_S * gap_s) * size)

    def is_beside(self, track: Track) -> bool:
        """Return whether a track overlaps this one, of which both are there."""
        sizes = apparent_px(self.track), apparent_px(track)
        return not self.is_lost and math.dist(centre(track), centre(self.track)) <= BESIDE_D * max(sizes)


def _alike(one_px: float, other_px: float) -> bool:
    return max(one_px, other_px) <= SIZE_RATIO * min(one_px, other_px)


class IncidentState(msgspec.Struct, frozen=True):
    """One target, for the next owner of its camera."""

    alert: str
    label: str
    rule: str | None
    is_open: bool
    is_ended: bool
    tracks: list[Track]


class Incident:
    """The state of one target.

    Attributes:
        alert: id of its alert, once it has one.
        label: as it was last reported.
        rule: that decided on it last.
        is_open: it has an alert, which may have ended.
        is_ended: its alert was lowered to a distractor's label; it is kept while its tracks last, and may escalate.
    """

    def __init__(self, alert: str, track: Track, pts_s: float) -> None:
        self.alert = alert
        self.label = track.label
        self.rule = DEFAULT
        self.is_open = self.is_ended = False
        self._pieces = {track.id: Piece(track)}
        self._lower_since_s: float | None = None
        self._approach = Approach(pts_s)

    def state(self) -> IncidentState:
        """Return what the next owner of the camera needs of it."""
        return IncidentState(self.alert, self.label, self.rule.name, self.is_open, self.is_ended, self.tracks)

    @classmethod
    def inherited(cls, state: IncidentState, rules: Iterable[Rule], pts_s: float) -> "Incident":
        """Return a target of an earlier session; times of its tracks are those of this session already."""
        incident = cls(state.alert, state.tracks[0], pts_s)
        for track in state.tracks[1:]:
            incident.add(track)
        incident.label, incident.is_open, incident.is_ended = state.label, state.is_open, state.is_ended
        incident.rule = next((rule for rule in rules if rule.name == state.rule), DEFAULT)
        return incident

    @property
    def severity(self) -> Severity:
        """Return the severity of its alert."""
        return self.rule.severity_of(self.label)

    @property
    def opened_alert(self) -> str | None:
        """Return the id of its alert, or None where it has none."""
        return self.alert if self.is_open else None

    @property
    def tracks(self) -> list[Track]:
        """Return the newest states of its tracks."""
        return [piece.track for piece in self._pieces.values()]

    def open(self, rule: Rule, track: Track, pts_s: float) -> None:
        """Open its alert, for one of its tracks."""
        self.is_open, self.rule, self.label = True, rule, track.label
        self._approach = Approach(pts_s)

    def move(self, passed_s: float, shift_px: Point) -> None:
        """Let time pass for the places of its pieces, in a camera whose image moved."""
        for piece in self._pieces.values():
            piece.move(passed_s, shift_px)

    def add(self, track: Track) -> None:
        """Add a further track."""
        self._pieces[track.id] = Piece(track)

    def follow(self, tracks: Iterable[Track]) -> None:
        """Take the states of its tracks at this frame."""
        for track in tracks:
            if track.id in self._pieces:
                self._pieces[track.id].follow(track)

    def apart(self, track: Track, pts_s: float) -> float:
        """Return how far from its invisible pieces a track begins; up to 1, it is one of them."""
        return min(piece.apart(track, pts_s) for piece in self._pieces.values())

    def is_beside(self, track: Track) -> bool:
        """Return whether the track overlaps one of its pieces."""
        return any(piece.is_beside(track) for piece in self._pieces.values())

    @property
    def last(self) -> Track:
        """Return the track that was seen last."""
        return max(self.tracks, key=lambda track: (track.last_seen.seq, track.id))

    def is_gone(self, pts_s: float) -> bool:
        """Return whether no further piece can join: all are lost for long, or the presentation time was reset."""
        is_lost = all(piece.is_lost for piece in self._pieces.values())
        return is_lost and abs(pts_s - self.last.last_seen.pts_s) > END_S

    def change(self, pts_s: float, decided: Mapping[int, Rule]) -> Change | None:
        """Return what this frame changes in an open alert, and report it never again.

        Args:
            pts_s: presentation time of the frame.
            decided: the rule of each of the camera's visible targets, by the track's id.
        """
        change = self._changed(pts_s)
        raised = worst(decided, self.tracks) if not self.is_ended else None
        if raised is None:
            return change
        track, rule = raised
        if SEVERITIES.index(rule.severity_of(track.label)) <= SEVERITIES.index(self.severity):
            return change
        self.rule = rule
        return change or Change(EventKind.ALERT_ESCALATED, track, reason=EscalationReason.RULE)

    def _changed(self, pts_s: float) -> Change | None:
        there = [track for track in self.tracks if track.state is not TrackState.LOST]
        if not there:
            return None
        best = max(there, key=lambda track: (rank(track.label), track.last_seen.seq, track.id))
        rise = rank(best.label) - rank(self.label)
        if rise >= 0:
            self._lower_since_s = None
        if rise > 0:
            return self._relabelled(EventKind.ALERT_ESCALATED, best)
        if rise < 0:
            self._lower_since_s = pts_s if self._lower_since_s is None else self._lower_since_s
            if pts_s - self._lower_since_s >= LOWER_S:
                return self._relabelled(EventKind.ALERT_LOWERED, best)
        return self._approached(there, pts_s)

    def _relabelled(self, kind: EventKind, best: Track) -> Change:
        was, self.label = self.label, best.label
        self.is_ended = rank(self.label) == 0
        self._lower_since_s = None
        self._approach.restart()
        return Change(kind, best, was, EscalationReason.LABEL if kind is EventKind.ALERT_ESCALATED else None)

    def _approached(self, there: list[Track], pts_s: float) -> Change | None:
        visible = [track for track in there if track.state is TrackState.CONFIRMED and track.is_target]
        if not visible:
            return None
        largest = max(visible, key=lambda track: (apparent_px(track), track.id))
        if not self._approach.update(pts_s, apparent_px(largest)) or self.is_ended:
            return None
        self._approach.restart()
        return Change(EventKind.ALERT_ESCALATED, largest, reason=EscalationReason.APPROACH)
