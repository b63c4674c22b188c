"""Whether the tracks of two cameras are one target: their bearings over the last seconds.  Pure.

In: for each frame of a camera with a pose, the bearings and sizes of its tracks.  Out: whether two tracks agree, and
where their target is.  They agree if their lines of sight cross, at a possible distance, miss each other by no more
than their errors, show a target of one size, and cross where something may fly: all of that for a while.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np

from pipeline.alerting.target import apparent_px
from pipeline.alerting.triangulation import Crossing, Place, crossing, line_of_sight
from pipeline.types import Bearing, FrameRef, Position, Track, TrackState

WINDOW_S = 3.0
MAX_SAMPLES = 100  # of a track; at higher frame rates the window is shorter
MAX_TRACKS = 64  # of a camera
MAX_PAIRS = 16  # that are compared
MAX_GAP_S = 0.5  # between two detections that a bearing is interpolated between
TIME_SIGMA_S = 0.1  # of the delay between two cameras
MIN_PAIRS, MIN_S = 3, 0.09  # simultaneous bearings that may agree, and the time that they span
PART_PAIRS, PART_S = 5, 1.0  # likewise, to say of two that agreed that they do not
MAX_RANGE_M = 5000.0
MAX_MISS_SIGMAS = 3.0  # root mean square: errors of poses do not average out
MAX_SIZE_RATIO = 3.0  # of the sizes in m that the two cameras see: of a target that turns
MAX_SPEED_M_S = 100.0
MAX_SIGMA_SHARE = 0.5  # of the distance: a position that is less certain is none


class Sample(NamedTuple):
    """A target in one frame."""

    time_s: float  # monotonic, of the inference host
    bearing: Bearing
    size_rad: float


class Agreement(Enum):
    """What the bearings of two tracks say."""

    ONE = "they may be one target"
    APART = "they do not seem to be one"
    TWO = "they are two targets: they have not seemed to be one for a while"
    OPEN = "too few were seen at the same time"


class Sightings:
    """The newest bearings of all tracks, by camera and ULID."""

    def __init__(self) -> None:
        self.places: Mapping[str, Place] = {}  # by camera; may be replaced at any time
        self._samples: dict[str, dict[str, deque[Sample]]] = {}

    def add(self, ref: FrameRef, tracks: Sequence[Track], rad_per_px: float) -> None:
        """Take the tracks that have a detection in this frame; forget those that are lost."""
        if ref.camera not in self.places:
            return
        kept = self._samples.get(ref.camera, {})
        current: dict[str, deque[Sample]] = {}
        time_s = ref.received_mono_ns / 1e9
        for track in sorted(tracks, key=lambda track: track.state is TrackState.TENTATIVE)[:MAX_TRACKS]:
            if track.state is TrackState.LOST:
                continue
            samples = current[track.ulid] = kept.get(track.ulid) or deque(maxlen=MAX_SAMPLES)
            if track.bearing is not None and track.last_seen.seq == ref.seq:
                samples.append(Sample(time_s, track.bearing, apparent_px(track) * rad_per_px))
            while samples and samples[0].time_s < time_s - WINDOW_S:
                samples.popleft()
        self._samples[ref.camera] = current

    def close(self, camera: str) -> None:
        """Forget a camera whose session ended."""
        self._samples.pop(camera, None)

    def of(self, camera: str) -> list[str]:
        """Return the tracks that a camera has seen lately."""
        return [ulid for ulid, samples in self._samples.get(camera, {}).items() if samples]

    def agreement(self, camera: str, ulid: str, other: str, other_ulid: str) -> Agreement:
        """Compare two tracks of two cameras."""
        first, second = self._of_track(camera, ulid), self._of_track(other, other_ulid)
        pairs = [(one, two) for one in first if (two := _at(second, one.time_s)) is not None]
        span_s = pairs[-1][0].time_s - pairs[0][0].time_s if pairs else 0.0
        if len(pairs) < MIN_PAIRS or span_s < MIN_S:
            return Agreement.OPEN
        pairs = pairs[:: -(-len(pairs) // MAX_PAIRS)]
        rates = _rate(first), _rate(second)
        if _fits(pairs, [self._crossing(camera, other, pair, rates) for pair in pairs]):
            return Agreement.ONE
        return Agreement.TWO if len(pairs) >= PART_PAIRS and span_s >= PART_S else Agreement.APART

    def position(self, camera: str, ulid: str, other: str, other_ulid: str) -> Position | None:
        """Return where the target of two tracks that agree was when both cameras saw it last, if that is certain."""
        first, second = self._of_track(camera, ulid), self._of_track(other, other_ulid)
        if not first or not second:
            return None
        time_s = min(first[-1].time_s, second[-1].time_s)
        one, two = _at(first, time_s), _at(second, time_s)
        if one is None or two is None or max(first[-1].time_s, second[-1].time_s) - time_s > MAX_GAP_S:
            return None
        found = self._crossing(camera, other, (one, two), (_rate(first), _rate(second)))
        if found is None or max(found.ranges_m) > MAX_RANGE_M or found.miss_sigmas > MAX_MISS_SIGMAS:
            return None
        position = found.position()
        sigma_m = max(position.horizontal_sigma_m, position.height_sigma_m)
        return position if sigma_m <= MAX_SIGMA_SHARE * min(found.ranges_m) else None

    def _of_track(self, camera: str, ulid: str) -> Sequence[Sample]:
        return self._samples.get(camera, {}).get(ulid, ()) if camera in self.places else ()

    def _crossing(
        self, camera: str, other: str, pair: tuple[Sample, Sample], rates: tuple[float, float]
    ) -> Crossing | None:
        return crossing(
            line_of_sight(self.places[camera], pair[0].bearing, TIME_SIGMA_S * rates[0]),
            line_of_sight(self.places[other], pair[1].bearing, TIME_SIGMA_S * rates[1]),
        )


def _fits(pairs: Sequence[tuple[Sample, Sample]], crossings: Sequence[Crossing | None]) -> bool:
    """Return whether all bearings may be of one target."""
    found = [each for each in crossings if each is not None and max(each.ranges_m) <= MAX_RANGE_M]
    if not found or len(found) < len(crossings):
        return False
    miss_sigmas = math.sqrt(sum(each.miss_sigmas**2 for each in found) / len(found))
    sizes_m = [
        (one.size_rad * each.ranges_m[0], two.size_rad * each.ranges_m[1])
        for (one, two), each in zip(pairs, found, strict=True)
    ]
    mine_m, other_m = (median(size_m[side] for size_m in sizes_m) for side in (0, 1))
    is_one_size = max(mine_m, other_m) <= MAX_SIZE_RATIO * min(mine_m, other_m)
    return miss_sigmas <= MAX_MISS_SIGMAS and is_one_size and _may_fly(pairs, found)


def _may_fly(pairs: Sequence[tuple[Sample, Sample]], found: Sequence[Crossing]) -> bool:
    """Return whether something may fly from the first crossing to the last, as far as their errors tell."""
    passed_s = pairs[-1][0].time_s - pairs[0][0].time_s
    sigma_m = math.sqrt(sum(float(np.trace(each.covariance)) for each in (found[0], found[-1])))
    distance_m = float(np.linalg.norm(found[-1].point - found[0].point))
    return distance_m <= MAX_SPEED_M_S * passed_s + 3 * sigma_m


def _at(samples: Sequence[Sample], time_s: float) -> Sample | None:
    """Return where a target was at a time, between two detections that are near to it."""
    if samples and samples[-1].time_s == time_s:
        return samples[-1]
    for before, after in pairwise(samples):
        if before.time_s <= time_s <= after.time_s and after.time_s - before.time_s <= MAX_GAP_S:
            share = (time_s - before.time_s) / max(1e-9, after.time_s - before.time_s)
            one, two = before.bearing, after.bearing
            turn_deg = (two.azimuth_deg - one.azimuth_deg + 180) % 360 - 180
            bearing = Bearing(
                (one.azimuth_deg + share * turn_deg) % 360,
                one.elevation_deg + share * (two.elevation_deg - one.elevation_deg),
                max(one.azimuth_sigma_deg, two.azimuth_sigma_deg),
                max(one.elevation_sigma_deg, two.elevation_sigma_deg),
            )
            return Sample(time_s, bearing, before.size_rad + share * (after.size_rad - before.size_rad))
    return None


def _rate(samples: Sequence[Sample]) -> float:
    """Return how fast a target moves across the sky, rad/s."""
    if len(samples) < 2 or samples[-1].time_s <= samples[0].time_s:
        return 0.0
    one, two = samples[0].bearing, samples[-1].bearing
    turn_deg = (two.azimuth_deg - one.azimuth_deg + 180) % 360 - 180
    across_deg = turn_deg * math.cos(math.radians(one.elevation_deg))
    turned_rad = math.radians(math.hypot(across_deg, two.elevation_deg - one.elevation_deg))
    return turned_rad / (samples[-1].time_s - samples[0].time_s)
