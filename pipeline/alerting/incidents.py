"""One alert: the tracks that one target left, its label, and when it rises, falls and ends.  Pure.

A track that begins where an earlier one of the alert ended or coasts, or beside a visible one, is a further piece of
the same target.  D is a target's apparent size, sqrt(box width x height).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.types import UAV, UNKNOWN, EscalationReason, EventKind, Track, TrackState

END_S = (
    4.0  # without a detection: the tracker bridges 1 s; trees, cloud edges and gain changes hide a target for 1 to 3
)
LOWER_S = 5.0  # a lower label must last this long, twice the time constant of its evidence: else alerts would chatter
JOIN_PX = 8.0  # how far from the expected place a further piece begins: this many pixels, since tiny boxes jump, ...
JOIN_D = 2.0  # ... and this many D, since a target turns, ...
JOIN_D_S = 1.5  # ... and this many D for each second unseen; more would join what crosses the image in the meantime
BESIDE_D = 1.0  # pieces that are visible at once touch each other: their centres are this many D apart at most
SIZE_RATIO = 3.0  # largest ratio in D between two pieces, as between two detections in the tracker
APPROACH_RATIO = 2.0  # growth that escalates: half the distance ...
APPROACH_PX = 8.0  # ... and at least this much: a box of 4 px may double by one more pixel at each edge
SIZE_S = 0.5  # time constant that smooths D, since masks flicker ...
SETTLE_S = 1.0  # ... and for how long it settles before it is compared with

Point = tuple[float, float]


def rank(label: str) -> int:
    """Return 2 for a uav, 1 for an unknown target, 0 for a distractor."""
    return {UAV: 2, UNKNOWN: 1}.get(label, 0)


def centre(track: Track) -> Point:
    """Return the centre of a track's box."""
    left, top, right, bottom = track.xyxy
    return (left + right) / 2, (top + bottom) / 2


def apparent_px(track: Track) -> float:
    """Return D of a track."""
    left, top, right, bottom = track.xyxy
    return max(1.0, math.sqrt(max(0.0, right - left) * max(0.0, bottom - top)))


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


class _Approach:
    """Tell when D, smoothed, has grown by APPROACH_RATIO since it was last told, or since the alert was opened."""

    def __init__(self, opened_s: float) -> None:
        self._settled_s = opened_s + SETTLE_S
        self._smooth_px = self._reference_px = 0.0
        self._last_s: float | None = None

    def restart(self) -> None:
        """Compare with the size from here on."""
        self._reference_px = self._smooth_px

    def update(self, pts_s: float, size_px: float) -> bool:
        """Add the size at a frame; return whether it has grown by as much."""
        if self._last_s is None:
            self._smooth_px = size_px
        else:
            self._smooth_px += (1 - math.exp(-abs(pts_s - self._last_s) / SIZE_S)) * (size_px - self._smooth_px)
        self._last_s = pts_s
        if pts_s < self._settled_s:
            self._reference_px = max(self._reference_px, self._smooth_px)
        least_px = max(APPROACH_RATIO * self._reference_px, self._reference_px + APPROACH_PX)
        return self._smooth_px >= least_px


class Incident:
    """The state of one alert.

    Attributes:
        alert: its id.
        label: as it was last reported.
        is_ended: it was lowered to a distractor's label; it is kept while its tracks last, and may escalate.
    """

    def __init__(self, alert: str, track: Track, pts_s: float) -> None:
        self.alert = alert
        self.label = track.label
        self.is_ended = False
        self._pieces = {track.id: Piece(track)}
        self._lower_since_s: float | None = None
        self._approach = _Approach(pts_s)

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
        return max((piece.track for piece in self._pieces.values()), key=lambda track: (track.last_seen.seq, track.id))

    def is_gone(self, pts_s: float) -> bool:
        """Return whether no further piece can join: all are lost for long, or the presentation time was reset."""
        is_lost = all(piece.is_lost for piece in self._pieces.values())
        return is_lost and abs(pts_s - self.last.last_seen.pts_s) > END_S

    def change(self, pts_s: float) -> Change | None:
        """Return what this frame changes, and report it never again."""
        there = [piece.track for piece in self._pieces.values() if not piece.is_lost]
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
