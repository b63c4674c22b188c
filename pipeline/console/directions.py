"""Which directions a camera's field of view, zones and sectors cover, for the map.  Pure.

In: the camera's pose, what is in frame pixels or in azimuth and elevation.  Out: each as its outline on the sky and as
the ranges of azimuth and elevation that it spans.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.config.camera import Pose
from pipeline.config.rules import SectorConfig
from pipeline.geodesy import camera_axes
from pipeline.geometry import Point

STEPS = 16  # into which an edge is divided: straight in the frame, it is curved on the sky
MAX_STEP_DEG = 5.0

Direction = tuple[float, float]
"""Azimuth, clockwise from true north, and elevation above the horizon, degrees."""


class Directions(msgspec.Struct, frozen=True):
    """A part of the sky, as its camera sees it."""

    azimuth_deg: tuple[float, float]  # clockwise from the first to the second, which may exceed 360
    elevation_deg: tuple[float, float]  # from, to
    outline: list[Direction]  # closed by its first point; of a line its points


def seen_directions(pose: Pose, points: Sequence[Point], size_px: tuple[int, int]) -> Directions:
    """Return the directions of a polygon, or of a line of two points, in a frame.

    Args:
        pose: of the camera.
        points: frame pixels.
        size_px: width and height of the frame.
    """
    corners = np.array([*points, points[0]] if len(points) > 2 else points, dtype=float)
    shares = np.linspace(0, 1, STEPS, endpoint=False)[:, None]
    edges = [start + shares * (end - start) for start, end in pairwise(corners)]
    return _spanned(_sky(pose, np.vstack([*edges, corners[-1:]]), size_px))


def field_of_view(pose: Pose, size_px: tuple[int, int] | None) -> Directions:
    """Return the directions of a whole frame; of one whose size is not known yet, of the row in its middle."""
    if size_px is None:
        return seen_directions(pose, [(0, 0), (1, 0)], (1, 0))
    width, height = size_px
    return seen_directions(pose, [(0, 0), (width, 0), (width, height), (0, height)], size_px)


def sector_directions(sector: SectorConfig) -> Directions:
    """Return the directions of a sector."""
    (start, end), (low, high) = sector.azimuth_deg, sector.elevation_deg
    across = (end - start) % 360 or 360.0
    azimuths = np.linspace(start, start + across, math.ceil(across / MAX_STEP_DEG) + 1).tolist()
    outline = [*((azimuth, low) for azimuth in azimuths), *((azimuth, high) for azimuth in reversed(azimuths))]
    return Directions((start, start + across), (low, high), [(round(azimuth % 360, 3), up) for azimuth, up in outline])


def _sky(pose: Pose, points: NDArray[np.float64], size_px: tuple[int, int]) -> NDArray[np.float64]:
    """Return azimuth and elevation, degrees (N, 2), of points of a frame: a pinhole camera without distortion."""
    width, height = size_px
    focal_px = width / 2 / math.tan(math.radians(pose.hfov_deg) / 2)
    right, down = (points - (width / 2, height / 2)).T / focal_px
    axes = camera_axes(pose.azimuth_deg, pose.elevation_deg, pose.roll_deg)
    east, north, up = axes @ np.stack([right, -down, np.ones_like(right)])
    sky = np.stack([np.arctan2(east, north), np.arctan2(up, np.hypot(east, north))], axis=1)
    return np.asarray(np.degrees(sky), np.float64)


def _spanned(sky: NDArray[np.float64]) -> Directions:
    """Return a line, closed or not, with the ranges that it spans."""
    azimuths, elevations = np.unwrap(sky[:, 0], period=360), sky[:, 1]
    low, high = float(elevations.min()), float(elevations.max())
    first, last = float(azimuths.min()), float(azimuths.max())
    if abs(azimuths[-1] - azimuths[0]) > 180:  # around the zenith, or the nadir
        first, last = 0.0, 360.0
        low, high = (low, 90.0) if high > -low else (-90.0, high)
    turns = math.floor(first / 360) * 360
    outline = [(round(azimuth % 360, 3), round(elevation, 3)) for azimuth, elevation in sky.tolist()]
    return Directions((round(first - turns, 3), round(last - turns, 3)), (round(low, 3), round(high, 3)), outline)
