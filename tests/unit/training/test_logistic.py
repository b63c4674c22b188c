"""Logistic regression: known coefficients, separable data, weights and penalties."""

import numpy as np
import pytest

from training.logistic import logistic_regression


def drawn(count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = np.column_stack([np.ones(count), rng.normal(0, 1, count)])
    return x, (rng.random(count) < 1 / (1 + np.exp(-(x @ (0.5, 1.5))))).astype(float)


def test_it_finds_the_coefficients() -> None:
    x, wanted = drawn()
    np.testing.assert_allclose(logistic_regression(x, wanted, np.ones(len(x)), 1e-6), (0.5, 1.5), atol=0.1)


def test_a_weight_is_a_number_of_samples() -> None:
    x, wanted = drawn(500)
    weights = 1.0 + np.arange(500) % 3
    repeated = np.repeat(np.arange(500), weights.astype(int))
    once = logistic_regression(x, wanted, weights, 1e-6)
    np.testing.assert_allclose(once, logistic_regression(x[repeated], wanted[repeated], np.ones(len(repeated)), 1e-6))


def test_only_what_is_penalised_shrinks() -> None:
    x, wanted = drawn(2000)
    free = logistic_regression(x, wanted, np.ones(2000), 1e-6)
    shrunk = logistic_regression(x, wanted, np.ones(2000), [1e-6, 1e6])
    assert abs(shrunk[1]) < 1e-3 < abs(free[1])
    share = wanted.mean()
    assert shrunk[0] == pytest.approx(np.log(share / (1 - share)), abs=1e-3)


def test_separable_data_give_bounded_coefficients() -> None:
    x = np.column_stack([np.ones(100), np.linspace(-1, 1, 100)])
    found = logistic_regression(x, (x[:, 1] > 0).astype(float), np.ones(100), 0.01)
    assert np.isfinite(found).all() and found[1] > 10
