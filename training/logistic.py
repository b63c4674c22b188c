"""Logistic regression by Newton's method: fusion of scores, their calibration, class evidence from motion."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

STEPS = 60
Floats = NDArray[np.float64]


def logistic_regression(x: Floats, wanted: Floats, weights: Floats, penalties: ArrayLike) -> Floats:
    """Return the coefficients (F,) of least weighted loss and penalty.

    Args:
        x: terms (N, F).
        wanted: probabilities (N,).
        weights: of the samples (N,).
        penalties: of half the squared coefficients (F,), or one for all; above 0, so that they are bounded.
    """
    penalty = np.broadcast_to(np.asarray(penalties, float), x.shape[1:])
    coefficients = np.zeros(x.shape[1])

    def loss(tried: Floats) -> float:
        total = x @ tried
        return float((weights * (np.logaddexp(0, total) - wanted * total)).sum() + (penalty * tried**2).sum() / 2)

    for _ in range(STEPS):
        probability = 0.5 * (1 + np.tanh(0.5 * (x @ coefficients)))
        gradient = x.T @ (weights * (probability - wanted)) + penalty * coefficients
        curvature = (x.T * (weights * probability * (1 - probability))) @ x + np.diag(penalty)
        step, before = np.linalg.solve(curvature, gradient), loss(coefficients)
        while loss(coefficients - step) > before and np.abs(step).max() > 1e-9:
            step = step / 2
        coefficients = coefficients - step
        if np.abs(step).max() < 1e-8:
            break
    return coefficients
