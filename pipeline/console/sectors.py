"""Where the sectors of a camera lie in its frames.  Pure.

In: the camera's pose, and sectors in azimuth and elevation.  Out: the lines that bound them, as far as they are near
the field of view, in frame widths from the middle of the frame: x to the right, y down.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.config.camera import Camera, Pose
from pipeline.config.rules import SectorConfig
from pipeline.geodesy import camera_axes
from pipeline.geometry import Point

FORWARD = 0.05  # cosine of the angle to the axis; what is farther from it is not drawn
NEAR = 1.0  # frame widths from the middle: a frame reaches to half of one, in height also where it is upright
MAX_STEP_DEG = 2.0  # along a line, which is curved
STEPS = 4  # in a field of view, at least: no step leads across a frame from beyond NEAR to beyond it


def sector_lines(camera: Camera) -> dict[str, list[list[Point]]]:
    """Return the lines of each of a camera's sectors, by the sector's name; of one that bounds no frame none.

    Of a camera that turns none: they are elsewhere in each frame.
    """
    pose = camera.pose
    if pose is None or pose.onvif is not None:
        return {}
    return {
        name: [line for edge in _edges(sector, pose) for line in _seen(edge, pose)]
        for name, sector in camera.sectors.items()
    }


def _edges(sector: SectorConfig, pose: Pose) -> list[NDArray[np.float64]]:
    """Return the four sides as azimuth and elevation, degrees (N, 2); without those that are points or not there."""
    step_deg = min(MAX_STEP_DEG, pose.hfov_deg / STEPS)
    (start, end), (low, high) = sector.azimuth_deg, sector.elevation_deg
    across = (end - start) % 360 or 360.0
    azimuths = np.linspace(start, start + across, math.ceil(across / step_deg) + 1)
    elevations = np.linspace(low, high, math.ceil((high - low) / step_deg) + 1)
    level = [np.column_stack([azimuths, np.full_like(azimuths, side)]) for side in (low, high) if abs(side) < 90]
    upright = [np.column_stack([np.full_like(elevations, side), elevations]) for side in (start, end) if across < 360]
    return [*level, *upright]


def _seen(edge: NDArray[np.float64], pose: Pose) -> list[list[Point]]:
    """Return the parts of a line that are near the field of view."""
    azimuth, elevation = np.radians(edge).T
    directions = np.stack([np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    right, up, forward = camera_axes(pose.azimuth_deg, pose.elevation_deg, pose.roll_deg).T @ directions
    is_ahead = forward > FORWARD
    scale = 2 * math.tan(math.radians(pose.hfov_deg) / 2) * np.where(is_ahead, forward, 1.0)
    points = np.column_stack([right, -up]) / scale[:, None]
    is_near = is_ahead & (np.abs(points) <= NEAR).all(axis=1)
    breaks = np.flatnonzero(np.diff(is_near)) + 1
    parts = zip(np.split(points, breaks), np.split(is_near, breaks), strict=True)
    return [[(round(x, 4), round(y, 4)) for x, y in part.tolist()] for part, near in parts if near[0] and len(part) > 1]
