"""The Kalman filter of one covariance for both axes, against the plain matrix form of the textbooks."""

import numpy as np
import pytest

from pipeline.tracking.kalman import ConstantVelocity


def mean_of(one: ConstantVelocity) -> list[float]:
    return [one.x, one.y, one.vx, one.vy]


def covariance_of(one: ConstantVelocity) -> np.ndarray:
    axis = [[one.position_variance, one.cross_covariance], [one.cross_covariance, one.velocity_variance]]
    return np.kron(axis, np.eye(2))


def test_one_long_prediction_equals_five_short_ones() -> None:
    long, short = (ConstantVelocity(1.0, 2.0, 2.0, 30.0) for _ in range(2))
    for one in (long, short):
        one.update(4.0, 1.0, 0.8)
    long.predict(0.2, 50.0)
    for _ in range(5):
        short.predict(0.04, 50.0)
    np.testing.assert_allclose(mean_of(long), mean_of(short), atol=1e-9)
    np.testing.assert_allclose(covariance_of(long), covariance_of(short), atol=1e-9)


def test_the_filter_is_the_textbooks() -> None:
    random = np.random.default_rng(4)
    one = ConstantVelocity(0.0, 0.0, 1.0, 10.0)
    mean, covariance = np.zeros(4), np.diag([1.0, 1.0, 100.0, 100.0])
    h = np.eye(2, 4)
    for _ in range(40):
        dt, point, (dx, dy) = random.uniform(0.02, 0.3), random.normal(0, 5, 2), random.normal(0, 2, 2)
        f = np.array([[1, 0, dt, 0], [0, 1, 0, dt], [0, 0, 1, 0], [0, 0, 0, 1]])
        axis = 7.0 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        mean, covariance = f @ mean, f @ covariance @ f.T + np.kron(axis, np.eye(2))
        one.predict(dt, 7.0)
        mean, covariance = mean + np.array([dx, dy, 0, 0]), covariance + np.diag([0.09, 0.09, 0, 0])
        one.shift(dx, dy, 0.3)
        gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + np.eye(2) * 0.49)
        mean, covariance = mean + gain @ (point - mean[:2]), (np.eye(4) - gain @ h) @ covariance
        one.update(*point, 0.7)
        np.testing.assert_allclose(mean_of(one), mean, atol=1e-9)
        np.testing.assert_allclose(covariance_of(one), covariance, atol=1e-9)


@pytest.mark.parametrize("std", [1e-6, 1e6])
def test_variances_stay_positive(std: float) -> None:
    one = ConstantVelocity(0.0, 0.0, 1.0, 1000.0)
    for _ in range(1000):
        one.predict(0.04, 100.0)
        one.update(3.0, 4.0, std)
        assert one.position_variance > 0 and one.velocity_variance > 0
        assert one.position_variance * one.velocity_variance >= one.cross_covariance**2 * (1 - 1e-9)
