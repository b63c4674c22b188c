"""Where two lines of sight cross, and how far they miss each other.  Pure.

Two lines in space cross nowhere: their nearest points are apart by what the angles are wrong, if both are towards one
target.  That is the only check that two bearings allow; where the target is follows from the middle between them.
"""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.geodesy import Vector, earth_fixed, geodetic, local_axes
from pipeline.types import Bearing, Position

MIN_ANGLE_DEG = 2.0  # between the two lines: less says nothing of the distance
MIN_ANGLE_SIGMAS = 3.0  # likewise, in standard deviations of the angle


@dataclass(frozen=True)
class Place:
    """Where a camera stands (WGS 84)."""

    lat: float  # degrees
    lon: float
    height_m: float  # above the ellipsoid


@dataclass(frozen=True)
class Sight:
    """A line of sight: from where, the direction (of length 1), and its error in each direction, rad."""

    origin: Vector
    direction: Vector
    sigma_rad: float


@dataclass(frozen=True)
class Crossing:
    """Where two lines of sight are nearest to each other.

    Attributes:
        point: Earth-fixed, m.
        covariance: of the point, m², (3, 3).
        ranges_m: from the two cameras.
        miss_sigmas: how far the lines are apart there, in standard deviations.
    """

    point: Vector
    covariance: Vector
    ranges_m: tuple[float, float]
    miss_sigmas: float

    def position(self) -> Position:
        """Return the point on the Earth with its errors."""
        lat, lon, height_m = geodetic(self.point)
        axes = local_axes(lat, lon)
        local = axes @ self.covariance @ axes.T
        variances_m2, directions = np.linalg.eigh(
            local[:2, :2]
        )  # of the ellipse's axes: the shorter one, the longer one
        across_m2, along_m2 = variances_m2.tolist()
        east, north = directions[:, 1].tolist()
        return Position(
            lat=round(lat, 7),
            lon=round(lon, 7),
            height_m=round(height_m, 1),
            horizontal_sigma_m=round(math.sqrt(max(0.0, along_m2)), 1),
            height_sigma_m=round(math.sqrt(max(0.0, float(local[2, 2]))), 1),
            across_sigma_m=round(math.sqrt(max(0.0, across_m2)), 1),
            sigma_azimuth_deg=round(math.degrees(math.atan2(east, north)) % 180, 1) % 180,
        )


def line_of_sight(place: Place, bearing: Bearing, extra_sigma_rad: float = 0.0) -> Sight:
    """Return the line of a bearing from a camera, with a further error as of its time."""
    azimuth, elevation = math.radians(bearing.azimuth_deg), math.radians(bearing.elevation_deg)
    level = math.cos(elevation)
    local = np.array([math.sin(azimuth) * level, math.cos(azimuth) * level, math.sin(elevation)])
    origin = earth_fixed(place.lat, place.lon, place.height_m)
    direction = local_axes(place.lat, place.lon).T @ local
    return Sight(origin, direction, math.hypot(math.radians(bearing.elevation_sigma_deg), extra_sigma_rad))


def crossing(first: Sight, second: Sight) -> Crossing | None:
    """Return where two lines cross; None: they are nearly parallel, or part from each other."""
    cosine = float(first.direction @ second.direction)
    sine_squared = 1 - cosine**2
    sigma_rad = math.hypot(first.sigma_rad, second.sigma_rad)
    least_rad = max(math.radians(MIN_ANGLE_DEG), MIN_ANGLE_SIGMAS * sigma_rad)
    if sine_squared <= math.sin(min(least_rad, math.pi / 2)) ** 2:
        return None
    between = second.origin - first.origin
    ahead, beside = float(between @ first.direction), float(between @ second.direction)
    ranges_m = (ahead - cosine * beside) / sine_squared, (cosine * ahead - beside) / sine_squared
    if min(ranges_m) <= 0:
        return None
    near = first.origin + ranges_m[0] * first.direction
    far = second.origin + ranges_m[1] * second.direction
    variances = [(range_m * sight.sigma_rad) ** 2 for range_m, sight in zip(ranges_m, (first, second), strict=True)]
    share = variances[0] / sum(variances)
    information = sum(
        (np.eye(3) - np.outer(sight.direction, sight.direction)) / variance
        for sight, variance in zip((first, second), variances, strict=True)
    )
    miss_m = float(np.linalg.norm(far - near))
    covariance = np.asarray(np.linalg.inv(information), np.float64)
    return Crossing(near + share * (far - near), covariance, ranges_m, miss_m / math.sqrt(sum(variances)))
