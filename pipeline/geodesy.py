"""Points and lines on the Earth, for lines of bearing.  Pure."""

import math

EARTH_RADIUS_M = 6_371_008.8  # mean


def destination(lat: float, lon: float, azimuth_deg: float, distance_m: float) -> tuple[float, float]:
    """Return latitude and longitude of a point at this distance and initial bearing, on a sphere; all in degrees."""
    latitude, longitude, azimuth = map(math.radians, (lat, lon, azimuth_deg))
    angle = distance_m / EARTH_RADIUS_M
    sine = math.sin(latitude) * math.cos(angle) + math.cos(latitude) * math.sin(angle) * math.cos(azimuth)
    east = math.sin(azimuth) * math.sin(angle) * math.cos(latitude)
    end = longitude + math.atan2(east, math.cos(angle) - math.sin(latitude) * sine)
    return round(math.degrees(math.asin(max(-1.0, min(1.0, sine)))), 7), round((math.degrees(end) + 540) % 360 - 180, 7)
