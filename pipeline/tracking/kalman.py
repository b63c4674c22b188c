"""Kalman filter with constant velocity in the image plane.  Pure.

Position and velocity in frame pixels and seconds.  Both axes have the same noise and are independent, so that one
covariance [[position, cross], [cross, velocity]] serves both.  Process noise is continuous white-noise acceleration,
Q = q [[dt^3/3, dt^2/2], [dt^2/2, dt]] (Bar-Shalom, Li, Kirubarajan, Estimation with Applications to Tracking and
Navigation, 2001, section 6.2.2): one step of 0.2 s equals five of 0.04 s, so dropped frames do not change the result.
"""


class ConstantVelocity:
    """State estimate of one track."""

    __slots__ = ("cross_covariance", "position_variance", "velocity_variance", "vx", "vy", "x", "y")

    def __init__(self, x: float, y: float, position_std: float, velocity_std: float) -> None:
        self.x, self.y, self.vx, self.vy = x, y, 0.0, 0.0
        self.position_variance, self.velocity_variance = position_std**2, velocity_std**2
        self.cross_covariance = 0.0

    def predict(self, dt_s: float, intensity: float) -> None:
        """Predict the state `dt_s` ahead, with noise `intensity` q in px^2/s^3."""
        self.x += self.vx * dt_s
        self.y += self.vy * dt_s
        cross, velocity = self.cross_covariance, self.velocity_variance
        self.position_variance += dt_s * (2 * cross + dt_s * velocity) + intensity * dt_s**3 / 3
        self.cross_covariance = cross + dt_s * velocity + intensity * dt_s**2 / 2
        self.velocity_variance = velocity + intensity * dt_s

    def shift(self, dx: float, dy: float, std: float) -> None:
        """Compensate a camera motion of this many pixels, known to within `std` pixels."""
        self.x += dx
        self.y += dy
        self.position_variance += std**2

    def update(self, x: float, y: float, std: float) -> None:
        """Correct the state with a measured point."""
        position, cross, variance = self.position_variance, self.cross_covariance, std**2
        innovation = position + variance
        gain, velocity_gain = position / innovation, cross / innovation
        dx, dy = x - self.x, y - self.y
        self.x += gain * dx
        self.y += gain * dy
        self.vx += velocity_gain * dx
        self.vy += velocity_gain * dy
        # With 1 - gain = variance / innovation nothing cancels: the variances stay positive.
        self.position_variance = position * variance / innovation
        self.cross_covariance = cross * variance / innovation
        self.velocity_variance -= velocity_gain * cross
