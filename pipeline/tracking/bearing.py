"""Where a target is seen: azimuth and elevation from a camera's pose, with their errors.  Pure.

A pinhole camera without distortion.  One bearing is not a position: that takes a second camera or a measured range.
"""

import math
from dataclasses import dataclass

from pipeline.geodesy import camera_axes
from pipeline.tracking.association import measurement_std
from pipeline.types import Bearing


@dataclass(frozen=True)
class Orientation:
    """Where a camera looks.

    Attributes:
        azimuth_deg: of the optical axis, clockwise from true north.
        elevation_deg: of the optical axis, above the horizon.
        roll_deg: of the camera about its axis, clockwise as seen from behind it.
        hfov_deg: horizontal field of view of the whole frame.
        sigma_deg: standard deviation of the axis in each direction.
    """

    azimuth_deg: float
    elevation_deg: float
    roll_deg: float
    hfov_deg: float
    sigma_deg: float

    def bearing_of(self, xyxy: tuple[float, float, float, float], size_px: tuple[int, int]) -> Bearing:
        """Return the bearing of a box's middle in a frame of this width and height, all in pixels."""
        x0, y0, x1, y1 = xyxy
        std_px = measurement_std(math.sqrt(max(0.0, (x1 - x0) * (y1 - y0))))
        return self.bearing((x0 + x1) / 2, (y0 + y1) / 2, std_px, size_px)

    def rad_per_px(self, size_px: tuple[int, int]) -> float:
        """Return the angle of a pixel in the middle of a frame of this width and height."""
        return 2 * math.tan(math.radians(self.hfov_deg) / 2) / size_px[0]

    def bearing(self, x_px: float, y_px: float, std_px: float, size_px: tuple[int, int]) -> Bearing:
        """Return the bearing of a point.

        Args:
            x_px: frame pixels.
            y_px: frame pixels.
            std_px: standard deviation of the point in each direction.
            size_px: width and height of the frame.
        """
        width, height = size_px
        focal_px = width / 2 / math.tan(math.radians(self.hfov_deg) / 2)
        right, down = (x_px - width / 2) / focal_px, (y_px - height / 2) / focal_px
        east, north, up = camera_axes(self.azimuth_deg, self.elevation_deg, self.roll_deg) @ (right, -down, 1.0)
        distance = math.sqrt(right**2 + down**2 + 1)
        # A pixel spans the less of an angle the farther it is from the axis: the middle's is the largest.
        sigma_deg = math.hypot(self.sigma_deg, math.degrees(math.atan(std_px / focal_px)))
        elevation = math.asin(max(-1.0, min(1.0, up / distance)))
        return Bearing(
            azimuth_deg=round(math.degrees(math.atan2(east, north)), 4) % 360,
            elevation_deg=round(math.degrees(elevation), 4),
            azimuth_sigma_deg=round(min(180.0, sigma_deg / max(math.cos(elevation), 1e-6)), 4),
            elevation_sigma_deg=round(sigma_deg, 4),
        )
