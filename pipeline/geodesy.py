"""Points, lines and directions on the Earth: bearings on a sphere, positions on the ellipsoid.  Pure."""

import math

import numpy as np
from numpy.typing import NDArray

EARTH_RADIUS_M = 6_371_008.8  # mean


def destination(lat: float, lon: float, azimuth_deg: float, distance_m: float) -> tuple[float, float]:
    """Return latitude and longitude of a point at this distance and initial bearing, on a sphere; all in degrees."""
    latitude, longitude, azimuth = map(math.radians, (lat, lon, azimuth_deg))
    angle = distance_m / EARTH_RADIUS_M
    sine = math.sin(latitude) * math.cos(angle) + math.cos(latitude) * math.sin(angle) * math.cos(azimuth)
    east = math.sin(azimuth) * math.sin(angle) * math.cos(latitude)
    end = longitude + math.atan2(east, math.cos(angle) - math.sin(latitude) * sine)
    return round(math.degrees(math.asin(max(-1.0, min(1.0, sine)))), 7), round((math.degrees(end) + 540) % 360 - 180, 7)


Vector = NDArray[np.float64]
"""Metres, or a direction, Earth-fixed: towards latitude 0 and longitude 0, longitude 90, and the North Pole."""
_A_M = 6_378_137.0  # WGS 84
_F = 1 / 298.257223563
_E2 = _F * (2 - _F)


def earth_fixed(lat: float, lon: float, height_m: float) -> Vector:
    """Return a point, degrees and metres above the ellipsoid (WGS 84), as Earth-fixed coordinates."""
    latitude, longitude = math.radians(lat), math.radians(lon)
    normal_m = _A_M / math.sqrt(1 - _E2 * math.sin(latitude) ** 2)
    across_m = (normal_m + height_m) * math.cos(latitude)
    up_m = (normal_m * (1 - _E2) + height_m) * math.sin(latitude)
    return np.array([across_m * math.cos(longitude), across_m * math.sin(longitude), up_m])


def geodetic(point: Vector) -> tuple[float, float, float]:
    """Return latitude, longitude (degrees) and height (m) of an Earth-fixed point near the ellipsoid."""
    x, y, z = point.tolist()
    across_m = math.hypot(x, y)
    latitude = math.atan2(z, across_m * (1 - _E2))
    for _ in range(5):  # each step is about a hundred times closer
        normal_m = _A_M / math.sqrt(1 - _E2 * math.sin(latitude) ** 2)
        latitude = math.atan2(z + _E2 * normal_m * math.sin(latitude), across_m)
    sine, cosine = math.sin(latitude), math.cos(latitude)
    height_m = across_m * cosine + z * sine - _A_M * math.sqrt(1 - _E2 * sine**2)
    return math.degrees(latitude), math.degrees(math.atan2(y, x)), height_m


def local_axes(lat: float, lon: float) -> NDArray[np.float64]:
    """Return the directions east, north and up at a place, degrees, as the rows of a matrix (3, 3)."""
    sine_lat, cosine_lat = math.sin(math.radians(lat)), math.cos(math.radians(lat))
    sine_lon, cosine_lon = math.sin(math.radians(lon)), math.cos(math.radians(lon))
    return np.array(
        [
            [-sine_lon, cosine_lon, 0.0],
            [-sine_lat * cosine_lon, -sine_lat * sine_lon, cosine_lat],
            [cosine_lat * cosine_lon, cosine_lat * sine_lon, sine_lat],
        ]
    )


def camera_axes(azimuth_deg: float, elevation_deg: float, roll_deg: float) -> NDArray[np.float64]:
    """Return a camera's directions right, up and forward as the columns of a matrix (3, 3) in east, north and up.

    Args:
        azimuth_deg: of the optical axis, clockwise from true north.
        elevation_deg: of the optical axis, above the horizon.
        roll_deg: about the axis, clockwise as seen from behind the camera.
    """
    azimuth, elevation, roll = map(math.radians, (azimuth_deg, elevation_deg, roll_deg))
    forward = np.array(
        [math.sin(azimuth) * math.cos(elevation), math.cos(azimuth) * math.cos(elevation), math.sin(elevation)]
    )
    level_right = np.array([math.cos(azimuth), -math.sin(azimuth), 0.0])
    level_up = np.cross(level_right, forward)
    right = math.cos(roll) * level_right - math.sin(roll) * level_up
    up = math.sin(roll) * level_right + math.cos(roll) * level_up
    return np.stack([right, up, forward], axis=1)
