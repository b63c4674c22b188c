"""Kalman filter with constant velocity in the image plane.  Pure.

State [x, y, vx, vy] in frame pixels and seconds.  Process noise is continuous white-noise acceleration,
Q = q [[dt^3/3, dt^2/2], [dt^2/2, dt]] for each axis (Bar-Shalom, Li, Kirubarajan, Estimation with Applications to
Tracking and Navigation, 2001, section 6.2.2): one step of 0.2 s equals five of 0.04 s, so dropped frames do not
change the result.
"""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
_H = np.eye(2, 4)


class ConstantVelocity:
    """State estimate of one track: mean (4,) and covariance (4, 4)."""

    def __init__(self, position: Vector, position_std: float, velocity_std: float) -> None:
        self.mean = np.array([position[0], position[1], 0.0, 0.0])
        self.covariance = np.diag([position_std**2, position_std**2, velocity_std**2, velocity_std**2])

    def predict(self, dt_s: float, intensity: float) -> None:
        """Predict the state `dt_s` ahead, with noise `intensity` q in px^2/s^3."""
        transition = np.eye(4)
        transition[0, 2] = transition[1, 3] = dt_s
        noise = np.zeros((4, 4))
        for axis in (0, 1):
            noise[axis, axis] = dt_s**3 / 3
            noise[axis, axis + 2] = noise[axis + 2, axis] = dt_s**2 / 2
            noise[axis + 2, axis + 2] = dt_s
        self.mean = transition @ self.mean
        self.covariance = transition @ self.covariance @ transition.T + intensity * noise

    def shift(self, dx: float, dy: float, std: float) -> None:
        """Compensate a camera motion of this many pixels, known to within `std` pixels."""
        self.mean[:2] += (dx, dy)
        self.covariance[[0, 1], [0, 1]] += std**2

    def distance(self, points: Vector, std: Vector) -> tuple[Vector, Vector]:
        """Return the squared Mahalanobis distance to points (N, 2) measured with `std` (N,), and ln|S| (N,)."""
        residuals = points - self.mean[:2]
        a = self.covariance[0, 0] + std**2
        b = self.covariance[0, 1]
        c = self.covariance[1, 1] + std**2
        determinant = a * c - b * b
        x, y = residuals[:, 0], residuals[:, 1]
        squared = (c * x * x - 2 * b * x * y + a * y * y) / determinant
        return squared, np.log(determinant)

    def update(self, point: Vector, std: float) -> None:
        """Correct the state with a measured point (2,)."""
        innovation = self.covariance[:2, :2] + np.eye(2) * std**2
        gain = self.covariance[:, :2] @ np.linalg.inv(innovation)
        self.mean = self.mean + gain @ (point - self.mean[:2])
        remaining = np.eye(4) - gain @ _H  # Joseph form: keeps the covariance symmetric and positive definite
        self.covariance = remaining @ self.covariance @ remaining.T + gain @ gain.T * std**2
