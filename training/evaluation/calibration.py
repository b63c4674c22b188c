"""Calibration of detection scores: how often detections of a score match a label.

    dasnet evaluate-clips hard --data FOLDER
    python3 scripts/calibration.py hard --data FOLDER calibration.png

In: the detections that `dasnet evaluate-clips` stored, before tracking.  Out: a table, and a plot with a curve per
camera (needs matplotlib).  A detection matches if its centre lies in the label of an object of any class, as tracks do;
bounds are bootstrap over recordings.  The expected calibration error is the mean distance of score and share (Naeini et
al., 2015, doi 10.1609/aaai.v29i1.9602).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import load
from pipeline.checkpoints import checkpoint_path
from pipeline.types import Detections
from training.datasets import Clip
from training.evaluation.arguments import run_plot
from training.evaluation.bootstrap import Bounds, ratio_bounds
from training.evaluation.clip_metrics import centre_inside
from training.evaluation.clip_sets import stored_replays

BINS = 10

Scored = tuple[NDArray[np.float64], NDArray[np.bool_]]  # score of each detection of a clip, and whether it matches


@dataclass(frozen=True)
class ScoreBin:
    """Detections of similar scores."""

    detections: int
    score: float  # mean
    matched: float  # share
    bounds: Bounds | None  # of the share


def main() -> int:
    """Run the command line and return the exit code."""
    return run_plot(__doc__, run)


def run(splits: list[str], plot: Path, checkpoint: Path | None, data: list[Path], evaluation: Path) -> None:
    """Print the table and write the plot; raise DataError where a clip was not replayed."""
    sha256 = load(checkpoint_path(checkpoint)).metadata.sha256
    cameras: dict[str, list[Scored]] = {}
    for _, clip, detections in stored_replays(data, splits, evaluation / sha256[:12]):
        cameras.setdefault(clip.camera or clip.sensor, []).append(scored(clip, detections))
    curves = {camera: score_bins(clips) for camera, clips in sorted(cameras.items())}
    print(table(curves))
    plot_curves(curves, plot)


def scored(clip: Clip, detections: Sequence[Detections]) -> Scored:
    """Return the scores of a clip's detections in labelled frames, and whether each matches a label."""
    scores, matches = [np.zeros(0)], [np.zeros(0, bool)]
    for frame in detections:
        if frame.ref.seq < len(clip.frames):
            labels = np.array([item.xyxy for item in clip.frames[frame.ref.seq]], np.float64).reshape(-1, 4)
            scores.append(frame.score.astype(np.float64))
            matches.append(np.asarray(centre_inside(labels, frame.xyxy.astype(np.float64)).any(axis=0)))
    return np.concatenate(scores), np.concatenate(matches)


def score_bins(clips: Sequence[Scored]) -> list[ScoreBin]:
    """Return the bins of equal width that hold a detection, in ascending order of scores."""
    bins = []
    for number in range(BINS):
        inside = [np.minimum((scores * BINS).astype(int), BINS - 1) == number for scores, _ in clips]
        counts = [
            (float(matches[kept].sum()), float(kept.sum())) for kept, (_, matches) in zip(inside, clips, strict=True)
        ]
        counts = [(matched, count) for matched, count in counts if count]
        if counts:
            detections = sum(count for _, count in counts)
            score = sum(float(scores[kept].sum()) for kept, (scores, _) in zip(inside, clips, strict=True)) / detections
            matched = sum(matched for matched, _ in counts) / detections
            bins.append(ScoreBin(int(detections), score, matched, ratio_bounds(counts)))
    return bins


def calibration_error(bins: Sequence[ScoreBin]) -> float:
    """Return the expected calibration error; nan without a detection."""
    weights = [one.detections for one in bins]
    return float(np.average([abs(one.score - one.matched) for one in bins], weights=weights)) if bins else float("nan")


def table(curves: dict[str, list[ScoreBin]]) -> str:
    """Return a Markdown table, a line per camera and bin, and one with each camera's error."""
    lines = ["| camera | mean score | matched | detections |", "| --- | --- | --- | --- |"]
    for camera, bins in curves.items():
        for one in bins:
            bounds = f" ({one.bounds[0]:.3f}-{one.bounds[1]:.3f})" if one.bounds else ""
            lines.append(f"| {camera} | {one.score:.3f} | {one.matched:.3f}{bounds} | {one.detections} |")
    errors = (f"{camera} {calibration_error(bins):.3f}" for camera, bins in curves.items())
    return "\n".join([*lines, "", f"expected calibration error: {', '.join(errors)}"])


def plot_curves(curves: dict[str, list[ScoreBin]], path: Path) -> None:
    """Plot the share of detections that match against their score, with bounds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="tab:grey", linestyle=":", label="calibrated")
    for camera, bins in curves.items():
        score, matched = np.array([(one.score, one.matched) for one in bins]).reshape(-1, 2).T
        bounds = np.array([one.bounds or (one.matched, one.matched) for one in bins]).reshape(-1, 2).T
        errors = np.maximum(0, [matched - bounds[0], bounds[1] - matched])
        axes.errorbar(
            score, matched, yerr=errors, marker=".", capsize=2, label=f"{camera}, {calibration_error(bins):.3f}"
        )
    axes.set_xlabel("score of a detection")
    axes.set_ylabel("share that match a label")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
