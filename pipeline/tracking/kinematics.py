"""How a target moves, as evidence for a drone against birds and aircraft.  Pure.

Observations of one track are averaged over blocks of BLOCK_S, so that frame rate and single missing frames do not
matter; the velocities between the blocks of the last seconds are in body lengths D per second.  A body length is the
target's longest side in the image, which makes them independent of distance and of the camera's scale.

The sample autocorrelation of the velocity at two points, 0 and BLOCK_S, separates objects by their inertia and control
(Petrizze, Koorehdavoudi, Xue & Roy, 2021, arXiv:2105.07505): an aircraft's velocity hardly varies; a drone's does, and
lastingly.  Variation that does not last is noise of measurement or of a camera whose own motion is not known: the more
of it, the closer the log-odds are to 0.

They are a score, never a veto: LIMIT bounds what speaks for a drone, EXCEPTIONS what speaks against it.
"""

import math
from collections import deque
from itertools import pairwise
from typing import NamedTuple

BLOCK_S = 0.4  # two observations at 5 frames/s
BLOCKS = 10  # the last 4 s
MIN_BLOCKS = 4  # 1.6 s: three velocities, two pairs of successive ones
MAX_GAP_BLOCKS = 2  # without an observation; after a longer gap the motion is observed anew
SPEED_FLOOR = 0.2  # D/s: less variation does not stand out of measurement noise
SMOOTH_RATIO = 3.0  # of the variance of the velocity to its autocovariance; more of it is noise
NOISE_SCALE = 1.0  # D/s: noise of the velocity that halves the log-odds
EXCEPTIONS = 0.5  # share of drones that may move like anything else: in transit, hovering; bounds the log-odds by -0.7
LIMIT = 1.5  # of the log-odds

# Logistic regression, fitted by `python3 -m training.kinematics --data FOLDER`.
CONSTANT, WEIGHT = -1.10, 4.32


class Features(NamedTuple):
    """Features of the motion over the last seconds."""

    velocity_autocorrelation: float  # -1 to 1, at BLOCK_S; towards 0 the less the velocity varies
    noise: float  # variance of the velocity beyond that of smooth motion, D^2/s^2


class _Block(NamedTuple):
    """Means of the observations of one block."""

    number: int
    time_s: float
    x_px: float
    y_px: float
    log_length: float


class Kinematics:
    """Features and log-odds of one track's motion; the features change once per block."""

    def __init__(self) -> None:
        self.features: Features | None = None  # None: observed for too short
        self.log_odds = 0.0  # of a drone against birds and aircraft; 0 while observed for too short
        self._blocks: deque[_Block] = deque(maxlen=BLOCKS)
        self._number = 0  # of the block that is being filled
        self._count = 0
        self._sums = [0.0] * 4

    def update(self, time_s: float, x_px: float, y_px: float, length_px: float) -> None:
        """Add an observation.  One that is not finite, has no size or is earlier than its block is ignored.

        Args:
            time_s: presentation time.
            x_px: centre, relative to the background: the camera's motion is removed.
            y_px: likewise, downwards.
            length_px: longest side of the target.
        """
        if not all(map(math.isfinite, (time_s, x_px, y_px, length_px))) or length_px <= 0:
            return
        number = math.floor(time_s / BLOCK_S + 1e-6)  # 1.2 / 0.4 is less than 3
        if self._count and number < self._number:
            return
        if self._count and number > self._number:
            self._close_block()
        self._number = number
        self._count += 1
        for index, value in enumerate((time_s, x_px, y_px, math.log(length_px))):
            self._sums[index] += value

    def _close_block(self) -> None:
        block = _Block(self._number, *(value / self._count for value in self._sums))
        self._count, self._sums = 0, [0.0] * 4
        last = self._blocks[-1] if self._blocks else None
        if last and block.number - last.number > MAX_GAP_BLOCKS + 1:
            self._blocks.clear()
        elif last and block.time_s - last.time_s < BLOCK_S / 2:
            return  # too close for a velocity: both hold observations from next to their common edge
        self._blocks.append(block)
        self.features = _features(self._blocks) if len(self._blocks) >= MIN_BLOCKS else None
        self.log_odds = log_odds(self.features) if self.features else 0.0


def _features(blocks: deque[_Block]) -> Features:
    length_px = math.exp(sum(block.log_length for block in blocks) / len(blocks))
    velocities = []  # D/s
    for before, after in pairwise(blocks):
        scale = 1 / ((after.time_s - before.time_s) * length_px)
        velocities.append(((after.x_px - before.x_px) * scale, (after.y_px - before.y_px) * scale))
    count = len(velocities)
    mean_x, mean_y = (sum(values) / count for values in zip(*velocities, strict=True))
    deviations = [(x - mean_x, y - mean_y) for x, y in velocities]
    varying = sum(x * x + y * y for x, y in deviations)
    lasting = sum(x0 * x1 + y0 * y1 for (x0, y0), (x1, y1) in pairwise(deviations))
    return Features(
        velocity_autocorrelation=lasting / (varying + count * SPEED_FLOOR**2),
        noise=max(0.0, varying - SMOOTH_RATIO * max(0.0, lasting)) / count,
    )


def log_odds(features: Features, constant: float = CONSTANT, weight: float = WEIGHT) -> float:
    """Return the log-odds of a drone against birds and aircraft, equally likely; within ln EXCEPTIONS and LIMIT."""
    likelihood_ratio = math.exp(constant + weight * features.velocity_autocorrelation)
    robust = math.log(EXCEPTIONS + (1 - EXCEPTIONS) * likelihood_ratio)
    return min(LIMIT, robust) / (1 + features.noise / NOISE_SCALE**2)
