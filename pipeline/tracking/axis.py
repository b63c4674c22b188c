"""Where a camera that turns looked when a frame was taken, from what it told before and after.  Pure.

Between two samples the axis is taken to have turned evenly; after the newest one, to turn on as it did, if it moves.
The error grows with the speed, since neither the samples nor the frames are from an exact moment, with the distance to
the samples, and with the age of the newest one.  Where no sample is near enough the direction is unknown.
"""

import math
from collections import deque
from dataclasses import dataclass

from pipeline.tracking.bearing import Orientation
from pipeline.types import AxisSample

MAX_SAMPLES = 64
MAX_GAP_S = 2.0  # between the two samples around a frame, and from the newest one to it
TIME_SIGMA_S = 0.1  # of the delay between a camera's video and its answers
START_DEG_S = 2.0  # by how much a camera that stood still, or does not say, may have begun to turn since
MOVING_DEG_S = 20.0  # likewise, one that says that it moves
MAX_SIGMA_DEG = 45.0  # a direction that is less certain is none


@dataclass(frozen=True)
class Mount:
    """What does not turn with the camera.

    Attributes:
        roll_deg: of the camera about its axis, clockwise as seen from behind it.
        sigma_deg: standard deviation of the axis in each direction, at rest.
        delay_s: by which frames arrive later than samples.
    """

    roll_deg: float
    sigma_deg: float
    delay_s: float = 0.0


class AxisHistory:
    """The newest samples of one camera."""

    def __init__(self) -> None:
        self._samples: deque[AxisSample] = deque(maxlen=MAX_SAMPLES)

    def add(self, sample: AxisSample) -> None:
        """Add a sample; one that is not newer than the last is left out."""
        if not self._samples or sample.mono_ns > self._samples[-1].mono_ns:
            self._samples.append(sample)

    def orientation(self, mount: Mount, received_mono_ns: int) -> Orientation | None:
        """Return where the camera looked at a frame; None: unknown.

        Args:
            mount: of the camera.
            received_mono_ns: when the frame was received, on the samples' clock.
        """
        time_ns = received_mono_ns - round(mount.delay_s * 1e9)
        after = next((n for n, sample in enumerate(self._samples) if sample.mono_ns >= time_ns), len(self._samples))
        if after == 0:  # before the first sample
            first = self._samples[0] if self._samples else None
            return self._oriented(mount, first, 0.0) if first is not None and first.mono_ns == time_ns else None
        if after == len(self._samples):
            return self._continued(mount, time_ns)
        before, next_ = self._samples[after - 1], self._samples[after]
        gap_ns = next_.mono_ns - before.mono_ns
        if gap_ns > MAX_GAP_S * 1e9:
            return None
        share = (time_ns - before.mono_ns) / gap_ns
        turn = _Turn.between(before, next_)
        # How far off a sudden turn at any moment between the two would be on average; an even one is not.
        uneven_deg = turn.angle_deg * math.sqrt(share * (1 - share))
        error_deg = math.hypot(uneven_deg, turn.deg_s * _time_error_s(before, next_))
        return self._oriented(mount, turn.after(before, share), error_deg)

    def _continued(self, mount: Mount, time_ns: int) -> Orientation | None:
        """Return where it looks after the newest sample."""
        newest = self._samples[-1]
        age_s = (time_ns - newest.mono_ns) / 1e9
        if age_s > MAX_GAP_S:
            return None
        last = self._samples[-2] if len(self._samples) > 1 else newest
        is_known = 0 < newest.mono_ns - last.mono_ns <= MAX_GAP_S * 1e9
        turn = _Turn.between(last, newest) if is_known else _Turn.none()
        error_s = _time_error_s(last, newest)
        if newest.is_moving is False or not turn.deg_s:
            expected, deg_s = newest, MOVING_DEG_S if newest.is_moving else START_DEG_S
            error_s = max(0.0, error_s - age_s)  # that a frame may be of the time before it stood still
        else:
            expected, deg_s = turn.after(newest, age_s / turn.duration_s), max(turn.deg_s, START_DEG_S)
        error_deg = math.hypot(deg_s * age_s, turn.deg_s * error_s)
        return self._oriented(mount, expected, error_deg)

    @staticmethod
    def _oriented(mount: Mount, axis: AxisSample, error_deg: float) -> Orientation | None:
        sigma_deg = math.hypot(mount.sigma_deg, error_deg)
        if sigma_deg > MAX_SIGMA_DEG:
            return None
        return Orientation(axis.azimuth_deg % 360, axis.elevation_deg, mount.roll_deg, axis.hfov_deg, sigma_deg)


@dataclass(frozen=True)
class _Turn:
    """From one sample to the next: differences in degrees, and seconds."""

    azimuth_deg: float
    elevation_deg: float
    hfov_deg: float
    angle_deg: float  # by which what is farthest from the axis moved
    duration_s: float

    @classmethod
    def none(cls) -> "_Turn":
        return cls(0.0, 0.0, 0.0, 0.0, 1.0)

    @classmethod
    def between(cls, first: AxisSample, second: AxisSample) -> "_Turn":
        azimuth_deg = (second.azimuth_deg - first.azimuth_deg + 180) % 360 - 180  # the short way round
        elevation_deg = second.elevation_deg - first.elevation_deg
        hfov_deg = second.hfov_deg - first.hfov_deg
        level_deg = azimuth_deg * math.cos(math.radians(first.elevation_deg))
        angle_deg = math.hypot(level_deg, elevation_deg) + abs(hfov_deg) / 2
        return cls(azimuth_deg, elevation_deg, hfov_deg, angle_deg, (second.mono_ns - first.mono_ns) / 1e9)

    @property
    def deg_s(self) -> float:
        return self.angle_deg / self.duration_s

    def after(self, start: AxisSample, share: float) -> AxisSample:
        """Return where this share of the turn leads."""
        return AxisSample(
            camera=start.camera,
            mono_ns=start.mono_ns + round(share * self.duration_s * 1e9),
            error_ns=start.error_ns,
            azimuth_deg=start.azimuth_deg + share * self.azimuth_deg,
            elevation_deg=start.elevation_deg + share * self.elevation_deg,
            hfov_deg=min(179.0, max(0.1, start.hfov_deg + share * self.hfov_deg)),
            is_moving=start.is_moving,
        )


def _time_error_s(first: AxisSample, second: AxisSample) -> float:
    """Return the standard deviation of the moment, between what frames show and what samples say."""
    return math.hypot(TIME_SIGMA_S, max(first.error_ns, second.error_ns) / 1e9 / math.sqrt(3))
