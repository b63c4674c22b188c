"""How well a checkpoint tells drones from birds, airplanes and helicopters, whatever its thresholds are.

    python3 scripts/class_evidence.py model/weights/dasnet.safetensors out/field/ema.safetensors --data FOLDER

Of a few frames a clip, the evidence for "uav" (log-odds against the best other class) of what lies on the label,
averaged over the clip as a track would.  Shown is the area under the ROC curve: 1 parts all drones from all of that
class, 0.5 is a guess.  Minutes, where `evaluate_clips.py` takes an hour; masks and tracks are not judged.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from evaluate_clips import parsed_with_data
from scipy.stats import mannwhitneyu

from model.checkpoint import load
from model.engine.engine import Engine
from model.errors import ModelError
from pipeline.errors import DasnetError
from pipeline.segmentation.segmenter import Segmenter
from pipeline.tracking.tracker import evidence_of
from pipeline.types import Band, Detections, Frame, FrameRef
from training.cache import CachedClip, Frames, cached
from training.datasets import CLIP_CLASSES, LABEL_OF, SENSORS, open_dataset
from training.quick_eval import check_frames, grown

CACHE = Path(".cache/training")
DRONE, UAV = CLIP_CLASSES[0], 0
GROWN = 0.5  # a detection is the labelled object if its centre lies in the box grown by so much


@dataclass(frozen=True)
class Evidence:
    clip: str
    sensor: str
    clip_class: str
    mean: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--splits", type=lambda text: text.split(","), default=["val", "hard"])
    parser.add_argument("--frames", type=int, default=6, help="a clip")
    parser.add_argument("--json", type=Path, help="write the evidence of each clip here")
    options = parsed_with_data(parser)
    try:
        frames = {split: frames_of(options.data, split, options.frames) for split in options.splits}
        measured = {}
        for path in options.checkpoints:
            with Engine(load(path)) as engine:
                segmenter = Segmenter(engine)
                for split in options.splits:
                    measured[str(path), split] = list(measure(segmenter, frames[split]))
    except (DasnetError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(measured))
    if options.json:
        rows = {f"{path} {split}": [vars(one) for one in evidence] for (path, split), evidence in measured.items()}
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def frames_of(data: str, split: str, count: int) -> Frames:
    recordings = open_dataset(data, [split])
    return cached(CACHE, recordings, check_frames(recordings, count, count))


def measure(segmenter: Segmenter, frames: Frames) -> Iterator[Evidence]:
    """Of the clips whose object was found in a frame at least."""
    for clip in frames.clips:
        found = list(_evidence(segmenter, clip, frames))
        if found:
            yield Evidence(clip.name, clip.sensor, clip.clip_class, float(np.mean(found)))


def _evidence(segmenter: Segmenter, clip: CachedClip, frames: Frames) -> Iterator[float]:
    for cached_frame in clip.frames:
        pixels, _ = frames.read(cached_frame)
        ref = FrameRef(clip.name, clip.name, cached_frame.number, float(cached_frame.number), 0, 0)
        (batch,) = segmenter.submit([Frame(ref, Band(clip.sensor), pixels)])
        (detections,) = segmenter.finish(batch)
        for box, label in zip(cached_frame.boxes, cached_frame.labels, strict=True):
            if label == LABEL_OF[clip.clip_class]:
                row = _largest_in(detections, grown(box, GROWN))
                if row is not None:
                    yield float(evidence_of(detections.class_scores[row])[UAV])


def _largest_in(detections: Detections, box: tuple[float, float, float, float]) -> int | None:
    x0, y0, x1, y1 = box
    x, y = detections.centroid[:, 0], detections.centroid[:, 1]
    rows = np.flatnonzero((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
    return int(rows[detections.area_px[rows].argmax()]) if len(rows) else None


def area_under_roc(drones: list[float], others: list[float]) -> float | None:
    """The share of pairs in which the drone has more (Mann and Whitney, 1947); None without a pair."""
    if not drones or not others:
        return None
    return float(mannwhitneyu(drones, others).statistic) / (len(drones) * len(others))


def table(measured: dict[tuple[str, str], list[Evidence]]) -> str:
    others = CLIP_CLASSES[1:]
    lines = ["| checkpoint | split | sensor | " + " | ".join((*others, "all")) + " |", "|" + " --- |" * 7]
    for (path, split), evidence in measured.items():
        for sensor in SENSORS:
            of_class = {
                name: [one.mean for one in evidence if (one.sensor, one.clip_class) == (sensor, name)]
                for name in CLIP_CLASSES
            }
            groups = [*(of_class[name] for name in others), [value for name in others for value in of_class[name]]]
            areas = [area_under_roc(of_class[DRONE], group) for group in groups]
            cells = ["-" if area is None else f"{area:.2f}" for area in areas]
            lines.append("| " + " | ".join((path, split, sensor, *cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
