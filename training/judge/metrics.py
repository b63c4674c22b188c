"""How well a judge separates chips.  Needs torch and numpy alone.

In: a judge and a `ChipSet`, unaugmented.  Out: its raw outputs, and figures: the areas under the ROC curve of targets
against moving and static clutter and of drones against other targets, and the shares found by size.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from model.judge import Judge, normalised
from training.judge.chip_set import MOTION, STATIC, ChipSet

BATCH = 256
SIZES_PX = (0.0, 5.0, 8.0, 12.0, 20.0, 1e4)
BINS = 10  # of probability
LEAST_CHIPS = 20  # of a size, for a share
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """Uncalibrated outputs of a judge for N chips."""

    target: Floats  # (N,) logits
    classes: Floats  # (N, num_class) logits
    features: Floats  # (N, F)


@torch.inference_mode()
def outputs(judge: Judge, chips: ChipSet, chosen: NDArray[np.int64], device: torch.device) -> Outputs:
    """Return the outputs of an evaluating judge for the chosen chips."""
    width = judge.target.in_features
    found = [(np.zeros(0, np.float32), np.zeros((0, judge.classes.out_features), np.float32), np.zeros((0, width)))]
    for start in range(0, len(chosen), BATCH):
        images = torch.from_numpy(chips.seen(chosen[start : start + BATCH])).to(device).float()
        features = judge.features(normalised(images))
        heads = judge.target(features)[:, 0], judge.classes(features), features
        found.append(tuple(each.cpu().numpy() for each in heads))  # type: ignore[arg-type]
    target, classes, pooled = (np.concatenate(each).astype(np.float32) for each in zip(*found, strict=True))
    return Outputs(target, classes, pooled)


def judge_metrics(judge: Judge, chips: ChipSet, device: torch.device) -> dict[str, float]:
    """Return the figures; those for which there are no chips are left out."""
    made = outputs(judge, chips, np.arange(len(chips)), device)
    kinds, is_target = chips.kinds, chips.is_target
    uav = made.classes[:, 0] - np.logaddexp.reduce(made.classes[:, 1:], axis=1)
    figures = {
        "auc_motion": area_under_roc(made.target[is_target], made.target[kinds == MOTION]),
        "auc_static": area_under_roc(made.target[is_target], made.target[kinds == STATIC]),
        "auc_uav": area_under_roc(uav[kinds == 0], uav[is_target & (kinds > 0)]),
        "clutter_passed": float(np.mean(made.target[~is_target] > 0)) if (~is_target).any() else None,
    }
    for least, most in pairwise(SIZES_PX):
        rows = is_target & (chips.lengths_px >= least) & (chips.lengths_px < most)
        if rows.sum() >= LEAST_CHIPS:
            figures[f"found_from_{least:g}_px"] = float(np.mean(made.target[rows] > 0))
    return {name: round(value, 4) for name, value in figures.items() if value is not None}


def calibration_error(judge: Judge, chips: ChipSet, device: torch.device) -> float:
    """Return the expected calibration error of the target's calibrated probability, where both kinds weigh the same.

    The mean over BINS equal intervals of |share of targets - mean probability|, weighted by their chips (Guo et al.,
    ICML 2017).
    """
    scale, offset = judge.get_buffer("target_scale").tolist()
    logits = scale * outputs(judge, chips, np.arange(len(chips)), device).target.astype(float) + offset
    probability, is_target = 0.5 * (1 + np.tanh(logits / 2)), chips.is_target
    weights = np.where(is_target, 0.5 / max(1, is_target.sum()), 0.5 / max(1, (~is_target).sum()))
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights * (is_target - probability), minlength=BINS)
    return round(float(np.abs(gaps).sum()), 4)


def metrics_line(figures: dict[str, float]) -> str:
    """Return the figures on one line."""
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def area_under_roc(positive: Floats, negative: Floats) -> float | None:
    """Return the share of pairs in which the positive one is higher, equal ones half; None without a pair."""
    if not len(positive) or not len(negative):
        return None
    values, ranks = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    counts = np.bincount(ranks, minlength=len(values))
    below = np.cumsum(np.bincount(ranks[len(positive) :], minlength=len(values)))
    ties = np.bincount(ranks[len(positive) :], minlength=len(values))
    of_positive = counts - ties
    return float((of_positive * (below - 0.5 * ties)).sum() / (len(positive) * len(negative)))
