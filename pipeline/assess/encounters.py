"""Seeded encounters: when a recorded drone flies through a camera's view, how large, how fast and where.  Pure.

In: a seed, the camera's id, the frame's size and what of it is watched.  Out: encounters, the same for the same seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.assess.drones import Drone

SIZES_PX = (5.0, 20.0)
DURATIONS_S = (3.0, 6.0)
SPEEDS_D_S = (0.5, 6.0)  # in apparent sizes per s
CONTRASTS = (5.0, 30.0)  # in standard deviations of the background; 95% of labelled recorded drones have more than 7
SWAY_D = (0.2, 1.0)  # amplitude across the direction of flight, in apparent sizes
SWAY_PERIODS_S = (1.5, 4.0)
WARM_UP_S = 1.0  # of the stream, before its first encounter
MAX_PER_HOUR = 3600 / (WARM_UP_S + DURATIONS_S[1])
PLACING_TRIES = 100
PATH_STEPS = 20

Region = tuple[int, int, int, int]
Polygon = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Path:
    """A straight flight with a sway across it, in frame pixels and seconds."""

    start: tuple[float, float]
    velocity_px_s: tuple[float, float]
    sway_px: float
    sway_period_s: float
    sway_phase: float

    def at(self, time_s: float) -> tuple[float, float]:
        """Return x, y of the drone's centre, in frame pixels."""
        vx, vy = self.velocity_px_s
        speed = math.hypot(vx, vy)
        turn = self.sway_phase + 2 * math.pi * time_s / self.sway_period_s
        across = self.sway_px * (math.sin(turn) - math.sin(self.sway_phase)) / speed
        return self.start[0] + vx * time_s - vy * across, self.start[1] + vy * time_s + vx * across


@dataclass(frozen=True)
class Encounter:
    """One flight.

    Attributes:
        number: 0-based, within the camera's assessment.
        start_s: presentation time of its start.
        duration_s: how long it is visible.
        size_px: apparent size, the square root of width times height, in frame pixels.
        contrast: of the drone against the background, in the background's standard deviations.
        speed_px_s: along its direction, at most.
        drone: which one of the band's recorded drones.
        seed: of its random draws.
    """

    number: int
    start_s: float
    duration_s: float
    size_px: float
    contrast: float
    speed_px_s: float
    drone: Drone
    seed: tuple[int, int, int]

    def generator(self, step: int) -> np.random.Generator:
        """Return a generator for one step of the encounter: 0, its path; further ones, its frames."""
        return np.random.default_rng([*self.seed, step])


def schedule(seed: int, camera: str, number: int, per_hour: float, drones: Sequence[Drone]) -> Encounter:
    """Return encounter `number` of a camera: one in each period of 3600 / per_hour s, at a random time of it."""
    key = (seed, crc32(camera.encode()), number)
    random = np.random.default_rng([*key, 0])
    period_s = 3600 / per_hour
    size_px, duration_s = _log_uniform(random, SIZES_PX), float(random.uniform(*DURATIONS_S))
    start_s = number * period_s + float(random.uniform(WARM_UP_S, period_s - duration_s))
    contrast, speed_px_s = _log_uniform(random, CONTRASTS), size_px * _log_uniform(random, SPEEDS_D_S)
    drone = drones[int(random.integers(len(drones)))]
    return Encounter(number, start_s, duration_s, size_px, contrast, speed_px_s, drone, key)


def place(encounter: Encounter, region: Region, ignored: Sequence[Polygon]) -> Path | None:
    """Return a path that stays within a region of the frame and outside of polygons; None where none was found.

    Where the drone would fly out of the region at its speed, it is slower.
    """
    random = encounter.generator(1)
    polygons = [np.asarray(polygon, np.float32) for polygon in ignored]
    times_s = np.linspace(0, encounter.duration_s, PATH_STEPS)
    for tried in range(PLACING_TRIES):
        angle = float(random.uniform(0, 2 * math.pi))
        speed_px_s = encounter.speed_px_s * (1 - tried / PLACING_TRIES)
        path = Path(
            (float(random.uniform(region[0], region[2])), float(random.uniform(region[1], region[3]))),
            (speed_px_s * math.cos(angle), speed_px_s * math.sin(angle)),
            encounter.size_px * float(random.uniform(*SWAY_D)),
            float(random.uniform(*SWAY_PERIODS_S)),
            float(random.uniform(0, 2 * math.pi)),
        )
        if _is_inside(np.array([path.at(time_s) for time_s in times_s]), encounter.size_px, region, polygons):
            return path
    return None


def _is_inside(
    points: NDArray[np.float64], margin_px: float, region: Region, polygons: Sequence[NDArray[np.float32]]
) -> bool:
    low, high = np.array(region[:2]) + margin_px, np.array(region[2:]) - margin_px
    if (points < low).any() or (points > high).any():
        return False
    return not any(
        cv2.pointPolygonTest(polygon, point, False) >= 0 for polygon in polygons for point in points.tolist()
    )


def _log_uniform(random: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(random.uniform(*np.log(bounds))))
