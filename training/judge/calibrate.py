"""Calibration of a trained judge, and what it knows of its training.  Needs torch and numpy alone.

In: a judge, its training chips, and held-out chips, all unaugmented.  Out: its buffers.  From held-out chips: scale and
offset of the target's log-odds (Platt scaling: Platt, 1999; Lin et al., Machine Learning 68, 2007), and the temperature
of the classes (Guo et al., ICML 2017, arXiv 1706.04599).  From training's targets: each class's mean features and the
matrix that whitens deviations from it, whose covariance is shrunk (Ledoit and Wolf, J. Multivariate Analysis 88, 2004).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from model.judge import Judge
from pipeline.errors import ConfigError
from training.judge.chip_set import ChipSet
from training.judge.metrics import outputs
from training.logistic import logistic_regression

KNOWN_PERCENTILE = 99.0  # of training's distances: novelty 1
SCALES = np.exp(np.linspace(math.log(0.05), math.log(20.0), 241))  # of class logits
PENALTY = 1e-9
Floats = NDArray[np.float64]


def calibrate(judge: Judge, chips: ChipSet, held_out: ChipSet, device: torch.device) -> None:
    """Fit the judge's buffers in place; raise ConfigError for held-out chips without target or clutter.

    Log-odds of a target are those at equal prior probability of target and clutter.
    """
    is_target = held_out.is_target
    if is_target.all() or not is_target.any():
        raise ConfigError(f"held-out chips: {held_out.counts()}; expected targets and clutter to calibrate on")
    found = outputs(judge, held_out, np.arange(len(held_out)), device)
    scale, offset = platt_scaling(found.target, is_target, _weights(held_out, is_target))
    _set(judge, "target_scale", np.array([scale, offset]))
    kinds = held_out.kinds[is_target].astype(np.int64)
    weights = _weights(held_out, is_target)[is_target]
    _set(judge, "class_scale", np.array([class_scale(found.classes[is_target], kinds, weights)]))
    known = np.flatnonzero(chips.is_target)
    features = outputs(judge, chips, known, device).features
    means, whitening = known_features(features, chips.kinds[known].astype(np.int64), judge.classes.out_features)
    _set(judge, "means", means)
    _set(judge, "whitening", whitening)


def platt_scaling(logits: NDArray[np.float32], is_target: NDArray[np.bool_], weights: Floats) -> tuple[float, float]:
    """Return scale and offset of logits (N,) that make them log-odds, by weighted logistic regression.

    The wanted probabilities are a little within 0 and 1, as Platt has them, so that the scale is bounded.
    """
    counts = is_target.sum(), (~is_target).sum()
    wanted = np.where(is_target, (counts[0] + 1) / (counts[0] + 2), 1 / (counts[1] + 2))
    terms = np.stack([logits.astype(float), np.ones(len(logits))], 1)
    scale, offset = logistic_regression(terms, wanted, weights, PENALTY).tolist()
    return scale, offset


def class_scale(logits: NDArray[np.float32], classes: NDArray[np.int64], weights: Floats) -> float:
    """Return the inverse temperature under which the classes' (N,) negative log-likelihood is least."""
    losses = []
    for scale in SCALES:
        scaled = scale * logits.astype(float)
        likelihood = scaled[np.arange(len(classes)), classes] - np.logaddexp.reduce(scaled, axis=1)
        losses.append(-float((weights * likelihood).sum()))
    return float(SCALES[int(np.argmin(losses))])


def known_features(features: NDArray[np.float32], classes: NDArray[np.int64], num_class: int) -> tuple[Floats, Floats]:
    """Return the classes' mean features (num_class, F) and the whitening matrix (F, F), scaled to novelty.

    A class without samples gets the mean of all: nothing is near to an empty one.
    """
    values = features.astype(float)
    means = np.stack(
        [
            values[classes == number].mean(0) if (classes == number).any() else values.mean(0)
            for number in range(num_class)
        ]
    )
    variances, axes = np.linalg.eigh(shrunk_covariance(values - means[classes]))
    whitening = (axes / np.sqrt(variances)) @ axes.T
    distances = np.linalg.norm((values[:, None] - means) @ whitening, axis=2).min(1)
    return means, whitening / max(float(np.percentile(distances, KNOWN_PERCENTILE)), 1e-6)


def shrunk_covariance(deviations: Floats) -> Floats:
    """Return the covariance (F, F) of centred samples (N, F), shrunk towards a multiple of the identity.

    The share of the identity is that which minimises the expected squared error (Ledoit and Wolf, 2004, lemma 3.3).
    """
    count, width = deviations.shape
    sample = deviations.T @ deviations / count
    variance = max(float(np.trace(sample)) / width, 1e-6)
    distance = float(((sample - variance * np.eye(width)) ** 2).sum())
    error = (float(((deviations**2).sum(1) ** 2).sum()) / count - float((sample**2).sum())) / count
    share = min(1.0, max(error, 0.0) / distance) if distance > 0 else 1.0
    # A pooled feature that is always zero has no variance of its own, but for the share of the identity.
    share = max(share, 1e-4)
    shrunk: Floats = (1 - share) * sample + share * variance * np.eye(width)
    return shrunk


def _weights(chips: ChipSet, is_target: NDArray[np.bool_]) -> Floats:
    """Return weights: target and clutter weigh the same in total, and a recording less than in proportion."""
    _, groups, counts = np.unique(2 * chips.recordings + is_target, return_inverse=True, return_counts=True)
    weights = 1 / np.sqrt(counts[groups])
    for rows in (is_target, ~is_target):
        weights[rows] /= weights[rows].sum()
    scaled: Floats = weights * len(chips) / 2
    return scaled


def _set(judge: Judge, name: str, value: Floats) -> None:
    buffer = judge.get_buffer(name)
    buffer.copy_(torch.from_numpy(value).to(buffer))
