"""Zones of a camera, and what became of a track with respect to each.  Pure.

A target is where the centre of its box is.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass

from pipeline.alerting.target import Approach, apparent_px, centre
from pipeline.geometry import Point, crosses, is_inside
from pipeline.types import FrameRef, Track, TrackState

STAY_S = 4.0  # a target that is outside, or not seen, for no longer than this has not interrupted its stay


@dataclass(frozen=True)
class Area:
    """A polygon in frame pixels."""

    points: tuple[Point, ...]

    def holds(self, track: Track) -> bool:
        """Return whether a track is inside."""
        return is_inside(centre(track), self.points)


@dataclass(frozen=True)
class Line:
    """A line in frame pixels, to be crossed from left to right, seen from its first point to the second."""

    first: Point
    second: Point

    def holds(self, _: Track) -> bool:
        """Return False: a line has no inside."""
        return False


@dataclass(frozen=True)
class Sector:
    """A range of directions, each from the first to the second: azimuth clockwise from north, elevation upwards."""

    azimuth_deg: tuple[float, float]
    elevation_deg: tuple[float, float]

    def holds(self, track: Track) -> bool:
        """Return whether a track is seen in these directions; one without a bearing is not."""
        if track.bearing is None:
            return False
        (first, last), (lowest, highest) = self.azimuth_deg, self.elevation_deg
        is_all_round = last - first >= 360
        is_beside = (track.bearing.azimuth_deg - first) % 360 <= (last - first) % 360
        return (is_all_round or is_beside) and lowest <= track.bearing.elevation_deg <= highest


Zone = Area | Line | Sector


class Visit:
    """What became of one track with respect to one zone.

    Attributes:
        is_inside: at the last frame in which it was seen.
        has_entered: it came inside from outside.
        has_left: it went outside from inside.
        has_crossed: it crossed the line in its direction.
    """

    def __init__(self) -> None:
        self.is_inside = self.has_entered = self.has_left = self.has_crossed = False
        self._was_outside = False
        self._stay_s: tuple[float, float] | None = None  # the last one's first and last frame inside

    @property
    def stay_s(self) -> float:
        """Return how long the last stay inside has lasted."""
        return self._stay_s[1] - self._stay_s[0] if self._stay_s is not None else 0.0

    def update(self, pts_s: float, *, is_inside: bool, has_crossed: bool) -> None:
        """Add a frame in which the track was seen."""
        self.is_inside = is_inside
        self.has_crossed |= has_crossed
        if is_inside:
            self.has_entered |= self._was_outside
            goes_on = self._stay_s is not None and 0 <= pts_s - self._stay_s[1] <= STAY_S
            self._stay_s = self._stay_s[0] if self._stay_s is not None and goes_on else pts_s, pts_s
        else:
            self.has_left |= self._stay_s is not None
            self._was_outside = True


class Past:
    """What rules must know of one track's past.

    Attributes:
        visits: by zone.
        has_approached: it has grown since it was first seen.
    """

    def __init__(self, first_s: float) -> None:
        self.visits: dict[Zone, Visit] = {}
        self.has_approached = False
        self._approach = Approach(first_s)
        self._place: Point | None = None  # when it was last seen

    def update(self, pts_s: float, track: Track, zones: Iterable[Zone]) -> None:
        """Add a frame in which the track was seen."""
        place = centre(track)
        for zone in zones:
            has_crossed = (
                isinstance(zone, Line)
                and self._place is not None
                and crosses(zone.first, zone.second, self._place, place)
            )
            self.visits.setdefault(zone, Visit()).update(pts_s, is_inside=zone.holds(track), has_crossed=has_crossed)
        self.has_approached |= self._approach.update(pts_s, apparent_px(track))
        self._place = place


class History:
    """The past of a camera's tracks, for one session."""

    def __init__(self) -> None:
        self._pasts: dict[int, Past] = {}  # by id of a track

    def past(self, track: Track) -> Past:
        """Return the past of a track."""
        return self._pasts.setdefault(track.id, Past(track.first_seen.pts_s))

    def continue_from(self, track: Track, earlier: Track) -> None:
        """Let a track that begins have the past of an earlier piece of the same target."""
        self._pasts[track.id] = deepcopy(self.past(earlier))

    def update(self, ref: FrameRef, tracks: Iterable[Track], zones: Iterable[Zone]) -> None:
        """Add a frame; zones that are new have no past."""
        for track in tracks:
            if track.last_seen.seq == ref.seq and track.state is not TrackState.LOST:
                self.past(track).update(ref.pts_s, track, zones)

    def keep(self, tracks: Iterable[int]) -> None:
        """Forget all tracks but these, by id."""
        self._pasts = {number: self._pasts[number] for number in tracks if number in self._pasts}
