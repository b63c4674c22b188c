"""Mask metrics against slow references that follow the definitions word by word."""

from math import isclose

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.evaluation.mask_metrics import (
    EPSILON,
    NO_TARGET,
    SIZE_BINS,
    THRESHOLDS,
    count,
    diameter_px,
    image_metrics,
    pooled_metrics,
    precision_recall,
    size_bin,
    threshold_histogram,
)

SHAPE = (5, 7)
MASKS = st.tuples(arrays(bool, SHAPE), arrays(bool, SHAPE))


def naive_metrics(predicted: np.ndarray, truth: np.ndarray) -> list[float]:
    """Pixel by pixel, the four formulae of the original's test scripts."""
    tp = fp = fn = both = either = 0
    for p, t in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True):
        tp += p and t
        fp += p and not t
        fn += t and not p
        both += p and t
        either += p or t
    areas = int(predicted.sum()) + int(truth.sum())
    return [
        (tp + EPSILON) / (tp + fp + EPSILON),
        (tp + EPSILON) / (tp + fn + EPSILON),
        (2 * both + EPSILON) / (areas + EPSILON),
        (both + EPSILON) / (either + EPSILON),
    ]


@given(st.lists(MASKS, min_size=1, max_size=4))
@settings(deadline=None)
def test_metrics_of_images_are_the_naive_ones(pairs: list[tuple[np.ndarray, np.ndarray]]):
    counts = np.stack([count(predicted, truth) for predicted, truth in pairs])
    expected = [naive_metrics(predicted, truth) for predicted, truth in pairs]
    np.testing.assert_allclose(image_metrics(counts), expected, rtol=1e-12)


@given(st.lists(MASKS, min_size=1, max_size=4))
@settings(deadline=None)
def test_pooled_metrics_are_those_of_one_large_image(pairs: list[tuple[np.ndarray, np.ndarray]]):
    pooled = pooled_metrics(np.stack([count(predicted, truth) for predicted, truth in pairs]))
    predicted, truth = (np.concatenate(masks) for masks in zip(*pairs, strict=True))
    wholes = (predicted.sum(), truth.sum(), predicted.sum() + truth.sum(), (predicted | truth).sum())
    for value, whole, expected in zip(pooled, wholes, naive_metrics(predicted, truth), strict=True):
        assert (value is None) == (whole == 0)
        assert value is None or isclose(value, expected, abs_tol=2e-6)  # the reference has its epsilon


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((9, 0, 0), (1, 1, 1, 1)),
        ((0, 0, 0), (1, 1, 1, 1)),  # no target, nothing predicted
        ((0, 4, 0), (0, 1, 0, 0)),  # no target, something predicted
        ((0, 0, 4), (1, 0, 0, 0)),  # a target, nothing predicted
        ((0, 4, 4), (0, 0, 0, 0)),
        ((2, 2, 4), (0.5, 1 / 3, 0.4, 0.25)),
    ],
)
def test_what_an_image_counts(counts: tuple[int, ...], expected: tuple[float, ...]):
    np.testing.assert_allclose(image_metrics(np.array([counts]))[0], expected, atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, len(THRESHOLDS)), st.booleans()), min_size=1, max_size=40))
@settings(deadline=None)
def test_curve_and_average_precision_are_the_naive_ones(pixels: list[tuple[int, bool]]):
    """Probabilities on and between the thresholds, so that no step of the curve is missed."""
    between = np.concatenate([[0.0], (THRESHOLDS[:-1] + THRESHOLDS[1:]) / 2, [1.0]]).astype(np.float32)
    probabilities = np.array([[between[place] for place, _ in pixels]], np.float32)
    truth = np.array([[is_target for _, is_target in pixels]])
    curve = precision_recall(threshold_histogram(probabilities, truth))
    average, last_recall = 0.0, 0.0
    for index in reversed(range(len(THRESHOLDS))):
        predicted = probabilities > THRESHOLDS[index]
        tp = int((predicted & truth).sum())
        precision = tp / predicted.sum() if predicted.any() else 1.0
        recall = tp / truth.sum() if truth.any() else 1.0
        assert isclose(curve.precision[index], precision) and isclose(curve.recall[index], recall)
        average += (recall - last_recall) * precision
        last_recall = recall
    if truth.any():
        assert curve.average_precision is not None and isclose(curve.average_precision, average, abs_tol=1e-12)
    else:
        assert curve.average_precision is None


def test_histograms_add_up_over_images():
    rng = np.random.default_rng(0)
    images = [(rng.random(SHAPE, np.float32), rng.random(SHAPE) < 0.3) for _ in range(3)]
    apart = sum(threshold_histogram(*image) for image in images)
    together = threshold_histogram(*(np.concatenate(parts) for parts in zip(*images, strict=True)))
    np.testing.assert_array_equal(apart, together)


def test_diameter_is_of_the_largest_target():
    truth = np.zeros((40, 40), bool)
    assert diameter_px(truth) is None and size_bin(None) == NO_TARGET
    truth[2:5, 2:5] = True
    assert diameter_px(truth) == 3
    truth[10:26, 10:19] = True  # 144 px, apart from the other
    assert diameter_px(truth) == 12


def test_a_bin_holds_its_lower_edge():
    assert [size_bin(d) for d in (1, 7.9, 8, 15.9, 16, 31.9, 32, 500)] == [name for name in SIZE_BINS for _ in range(2)]
