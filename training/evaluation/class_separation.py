"""Separation of drones from birds, airplanes and helicopters by a checkpoint, independent of its thresholds.

    python3 scripts/class_evidence.py model/weights/dasnet.safetensors out/field/ema.safetensors --data FOLDER

The score of a clip is the log-odds of "uav" against the best other class of the detections on its labels, averaged over
a few frames as a track does.  The table has the area under the ROC curve: 1 separates all drones from all clips of that
class, 0.5 is chance.  It takes minutes where `dasnet evaluate-clips` takes an hour; masks and tracks are not evaluated.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from model.checkpoint import load
from model.engine.engine import Engine
from pipeline.segmentation.segmenter import Segmenter
from pipeline.tracking.evidence import class_log_odds
from pipeline.types import Band, Detections, Frame, FrameRef
from training.cache import CachedClip, CachedFrames, cache_frames
from training.command_line import exit_code, program
from training.datasets import CLIP_CLASSES, LABEL_OF, SENSORS, open_dataset
from training.evaluation.arguments import parse_with_data
from training.quick_eval import enlarged_box, quick_eval_frames

CACHE = Path(".cache/training")
DRONE, UAV = CLIP_CLASSES[0], 0
BOX_MARGIN = 0.5  # a detection matches a label if its centre lies in the box, enlarged by this share


@dataclass(frozen=True)
class ClipLogOdds:
    """Mean log-odds of "uav" over the detections on a clip's labels."""

    clip: str
    sensor: str
    clip_class: str
    mean: float


def main() -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--splits", type=lambda text: text.split(","), default=["val", "hard"])
    parser.add_argument("--frames", type=int, default=6, help="per clip")
    parser.add_argument("--json", type=Path, help="write the log-odds of each clip to this file")
    options = parse_with_data(parser)
    return exit_code(lambda: run(options.checkpoints, options.data, options.splits, options.frames, options.json))


def run(checkpoints: list[Path], data: Path, splits: list[str], frame_count: int, out: Path | None) -> None:
    """Print the table and write the log-odds; raise DasnetError or ModelError for unreadable data or checkpoints."""
    frames = {split: sampled_frames(data, split, frame_count) for split in splits}
    measured = {}
    for path in checkpoints:
        with Engine(load(path)) as engine:
            segmenter = Segmenter(engine)
            for split in splits:
                measured[str(path), split] = list(measure(segmenter, frames[split]))
    print(table(measured))
    if out:
        rows = {f"{path} {split}": [vars(one) for one in clips] for (path, split), clips in measured.items()}
        out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def sampled_frames(data: Path, split: str, count: int) -> CachedFrames:
    """Return `count` frames of each clip of a split."""
    recordings = open_dataset(data, [split])
    return cache_frames(CACHE, recordings, quick_eval_frames(recordings, count, count))


def measure(segmenter: Segmenter, frames: CachedFrames) -> Iterator[ClipLogOdds]:
    """Yield the log-odds of the clips whose object was detected in at least one frame."""
    for clip in frames.clips:
        log_odds = list(_log_odds(segmenter, clip, frames))
        if log_odds:
            yield ClipLogOdds(clip.name, clip.sensor, clip.clip_class, float(np.mean(log_odds)))


def _log_odds(segmenter: Segmenter, clip: CachedClip, frames: CachedFrames) -> Iterator[float]:
    for cached_frame in clip.frames:
        pixels, _ = frames.read(cached_frame)
        ref = FrameRef(clip.name, clip.name, cached_frame.number, float(cached_frame.number), 0, 0)
        batch = segmenter.submit([Frame(ref, Band(clip.sensor), pixels)])
        (detections,) = segmenter.finish(batch)
        for box, label in zip(cached_frame.boxes, cached_frame.labels, strict=True):
            if label == LABEL_OF[clip.clip_class]:
                row = _largest_in(detections, enlarged_box(box, BOX_MARGIN))
                if row is not None:
                    yield float(class_log_odds(detections.class_scores)[row, UAV])


def _largest_in(detections: Detections, box: tuple[float, float, float, float]) -> int | None:
    x0, y0, x1, y1 = box
    x, y = detections.centroid[:, 0], detections.centroid[:, 1]
    rows = np.flatnonzero((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
    return int(rows[detections.area_px[rows].argmax()]) if len(rows) else None


def area_under_roc(drones: list[float], others: list[float]) -> float | None:
    """Return the share of pairs in which the drone's is higher (Mann and Whitney, 1947); None without a pair."""
    if not drones or not others:
        return None
    return float(mannwhitneyu(drones, others).statistic) / (len(drones) * len(others))


def table(measured: dict[tuple[str, str], list[ClipLogOdds]]) -> str:
    """Return a Markdown table, a line per checkpoint, split and sensor."""
    others = CLIP_CLASSES[1:]
    lines = ["| checkpoint | split | sensor | " + " | ".join((*others, "all")) + " |", "|" + " --- |" * 7]
    for (path, split), clips in measured.items():
        for sensor in SENSORS:
            of_class = {
                name: [one.mean for one in clips if (one.sensor, one.clip_class) == (sensor, name)]
                for name in CLIP_CLASSES
            }
            groups = [*(of_class[name] for name in others), [value for name in others for value in of_class[name]]]
            areas = [area_under_roc(of_class[DRONE], group) for group in groups]
            cells = ["-" if area is None else f"{area:.2f}" for area in areas]
            lines.append("| " + " | ".join((path, split, sensor, *cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
