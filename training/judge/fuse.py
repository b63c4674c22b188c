"""Fit the fusion of scores: `python3 -m training.judge.fuse CHECKPOINT --data FOLDER --sets val --out FILE`.

In: a checkpoint with a judge, and labelled videos that the judge has not learned from.  They are replayed through the
pipeline, and what the judge, the mask and the motion say of every judged proposal is compared with the labels.  Out:
the checkpoint with the weights of `model.metadata.Fusion`, fitted by logistic regression in which every video weighs
the same; printed: how well probabilities are calibrated on videos that they were not fitted on.  `--operating-point`
also sets the thresholds, which are chosen by `dasnet evaluate-clips`.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from model.checkpoint import Loaded, load, save
from model.description import validated_thresholds
from model.engine.engine import Engine
from model.errors import CheckpointError
from model.metadata import BandThresholds, Fusion, JudgeConfig
from pipeline.errors import ConfigError
from pipeline.runtime.interruption import end_quietly
from pipeline.segmentation.batch import Batch
from pipeline.segmentation.judging import PROBABILITY_FLOOR
from pipeline.segmentation.segmenter import Segmenter
from pipeline.types import Band, Detections, Frame, FrameRef
from training.command_line import exit_code, program
from training.datasets import LabelledObject, open_dataset
from training.datasets.clip import Clip
from training.evaluation.calibration import calibration_error, score_bins
from training.judge.chips import videos
from training.logistic import logistic_regression

STRIDE = 2  # of frames: 12.5 and 15 frames/s are within what the pipeline is used at
MARGIN_PX = 2.0  # of a label's box around the centroid of a right detection
LIMIT = 15.0  # of the judge's log-odds, as they are read back from probabilities
WEIGHT_DECAY = 1.0
WEIGHTS = ("bias", "judge", "mask", "mask_log_odds", "motion", "motion_log")  # of the terms, in their order
Floats = NDArray[np.float64]


@dataclass
class Judged:
    """What is known of the judged proposals of one video: terms (N, 6) of the regression, and which are right (N,)."""

    terms: Floats
    right: NDArray[np.bool_]


def judged_proposals(clip: Clip, engine: Engine) -> Judged:
    """Replay a video; return what is known of its judged proposals.  The engine's fusion must be `judge_alone`."""
    segmenter = Segmenter(engine)
    parts = [(np.zeros((0, len(WEIGHTS))), np.zeros(0, np.bool_))]
    for detections in _detections(clip, segmenter):
        parts.append((terms(detections), right(detections, clip.frames[detections.ref.seq])))
    return Judged(np.concatenate([part for part, _ in parts]), np.concatenate([part for _, part in parts]))


def _detections(clip: Clip, segmenter: Segmenter) -> Iterator[Detections]:
    waiting: list[Batch] = []  # one: inference of a frame runs while the one before is judged
    for decoded in clip.decoded():
        if decoded.number % STRIDE:
            continue
        ref = FrameRef(clip.name, "fuse", decoded.number, decoded.pts_s, 0, 0)
        waiting.append(segmenter.submit([Frame(ref, Band(clip.sensor), decoded.pixels)]))
        if len(waiting) > 1:
            yield from segmenter.finish(waiting.pop(0))
    for batch in waiting:
        yield from segmenter.finish(batch)


def judge_alone(loaded: Loaded) -> Loaded:
    """Return the checkpoint with a fusion that keeps every proposal, scored by the judge alone."""
    config = replace(loaded.metadata.judge or JudgeConfig(), fusion=Fusion(min_score=0.0))
    return replace(loaded, metadata=replace(loaded.metadata, judge=config))


def terms(detections: Detections) -> Floats:
    """Return what the fusion weighs (N, 6), in the order of WEIGHTS, of detections scored by the judge alone."""
    score = detections.score.astype(float)
    with np.errstate(divide="ignore"):
        judge = np.clip(np.log(score / (1 - score)), -LIMIT, LIMIT)
    has_mask, has_motion = detections.mask_score > 0, detections.motion_score > 0
    mask = np.clip(detections.mask_score.astype(float), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    motion = np.log(np.maximum(detections.motion_score.astype(float), 1))
    columns = [
        np.ones(len(score)),
        judge,
        has_mask,
        has_mask * np.log(mask / (1 - mask)),
        has_motion,
        has_motion * motion,
    ]
    return np.stack(columns, axis=1)


def right(detections: Detections, objects: Sequence[LabelledObject]) -> NDArray[np.bool_]:
    """Return which detections (N,) lie on a labelled object."""
    x, y = detections.centroid.T.astype(float)
    found = np.zeros(len(x), np.bool_)
    for x0, y0, x1, y1 in (item.xyxy for item in objects):
        found |= (x0 - MARGIN_PX <= x) & (x <= x1 + MARGIN_PX) & (y0 - MARGIN_PX <= y) & (y <= y1 + MARGIN_PX)
    return found


def fit_weights(clips: Sequence[Judged]) -> Floats:
    """Return the weights (6,) by ridge-penalised logistic regression (Newton), in which each video weighs the same.

    Raise ConfigError where nothing is right, or everything.
    """
    filled = [clip for clip in clips if len(clip.right)]
    everything, right_ones = sum(len(clip.right) for clip in filled), sum(int(clip.right.sum()) for clip in filled)
    if not 0 < right_ones < everything:
        raise ConfigError(f"{right_ones} of {everything} judged proposals are right; expected some of both to fit on")
    x = np.concatenate([clip.terms for clip in filled])
    y = np.concatenate([clip.right for clip in filled])
    each = np.concatenate([np.full(len(clip.right), everything / len(filled) / len(clip.right)) for clip in filled])
    return logistic_regression(x, y.astype(float), each, WEIGHT_DECAY)


def cross_calibration_error(clips: Sequence[Judged]) -> list[float]:
    """Return the expected calibration error on each half of the videos of weights that are fitted on the other half.

    Raise ConfigError as `fit_weights`.
    """
    halves = clips[::2], clips[1::2]
    fitted = [(fit_weights(one), other) for one, other in (halves, halves[::-1])]
    scores = [[(1 / (1 + np.exp(-(clip.terms @ weights))), clip.right) for clip in other] for weights, other in fitted]
    return [calibration_error(score_bins(each)) for each in scores]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", action="append", required=True, help="folder of labelled videos; may be repeated")
    parser.add_argument("--sets", nargs="+", default=["val"], metavar="SET", help="(default: val)")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, a .safetensors file")
    parser.add_argument("--mask-classes", type=float, default=Fusion.mask_classes, help="see `model.metadata.Fusion`")
    parser.add_argument("--operating-point", type=Path, metavar="YAML", help="thresholds by band")
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Fit and write the checkpoint; raise ConfigError for wrong options, and what reading data raises."""
    loaded = load(options.checkpoint)
    if loaded.judge is None or loaded.metadata.judge is None:
        raise ConfigError(f"{options.checkpoint}: has no judge; expected one whose scores are fused")
    if not 0 <= options.mask_classes <= 1:
        raise ConfigError(f"--mask-classes {options.mask_classes}; must be from 0 to 1")
    thresholds = loaded.metadata.thresholds
    if options.operating_point is not None:
        thresholds = _operating_point(options.operating_point)
    cv2.setNumThreads(1)
    clips = videos([one for folder in options.data for one in open_dataset(folder, options.sets)])
    found = []
    with Engine(judge_alone(loaded)) as engine:
        for number, clip in enumerate(clips, 1):
            found.append(judged_proposals(clip, engine))
            print(f"\r{number}/{len(clips)} {clip.name:<24}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    weights = fit_weights(found)
    print("fusion: " + ", ".join(f"{name} {weight:.4f}" for name, weight in zip(WEIGHTS, weights, strict=True)))
    with suppress(ConfigError):  # too few videos to halve
        errors = cross_calibration_error(found)
        print(f"calibration error on the other half of the videos: {errors[0]:.4f}, {errors[1]:.4f}")
    named = {name: round(float(weight), 4) for name, weight in zip(WEIGHTS, weights, strict=True)}
    config = replace(loaded.metadata.judge, fusion=Fusion(**named, mask_classes=options.mask_classes))
    metadata = replace(loaded.metadata, judge=config, thresholds=thresholds)
    save(options.out, loaded.network, metadata, loaded.judge, torch.float16)
    print(f"written: {options.out}")


def _operating_point(path: Path) -> BandThresholds:
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--operating-point {path}: cannot be read ({error})") from error
    try:
        return validated_thresholds(f"--operating-point {path}", described)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error


if __name__ == "__main__":
    end_quietly()
    sys.exit(main())
