"""`dasnet evaluate-clips`: replay labelled clips through the whole pipeline and compute track metrics.

In: a folder of labelled videos, in the format of `tests/data` (labels.json.gz and clips/) or of Anti-UAV.  Out: tables
by sensor and class.  Detections are stored and reused as long as checkpoint, threshold and engine are the same, so that
tracking can be repeated in seconds.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint import load
from model.engine.engine import Engine
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import DasnetError
from pipeline.replay.options import ReplayOptions
from pipeline.replay.outputs import read_detections
from pipeline.replay.recording import Replay
from training.datasets import SPLITS, Clip, DataError, open_dataset
from training.evaluation.clip_metrics import ClipMetrics, evaluate_clip, read_track_rows, size_table, table

QUICK_CLIPS = 16
REPLAYS = Path("out/evaluation")
ALL_SPLITS = "all"


@dataclass(frozen=True)
class ClipEvaluationOptions:
    """Options of `dasnet evaluate-clips`."""

    split: str  # of the data, or ALL_SPLITS
    data: Path
    checkpoint: Path | None = None  # None: the shipped one
    out: Path = REPLAYS
    engine: str = "auto"
    quick: bool = False  # QUICK_CLIPS fixed clips
    json: Path | None = None


def run_evaluate_clips(options: ClipEvaluationOptions) -> None:
    """Print the tables and write the JSON file; raise DasnetError or ModelError for unreadable data or checkpoints."""
    recordings = open_dataset(options.data, SPLITS if options.split == ALL_SPLITS else [options.split])
    clips = [recording for recording in recordings if isinstance(recording, Clip)]
    if not clips:
        raise DataError(f"data {options.data}: holds no labelled video; expected the dronedet or Anti-UAV format")
    groups = evaluate_clips(spread_clips(clips) if options.quick else clips, options)
    print(f"{table(groups)}\n\n{size_table(groups)}")
    total = groups["all"]
    print(f"missed: {', '.join(total.missed) or 'none'}")
    print(f"alarmed: {', '.join(total.alarmed) or 'none'}")
    if options.json:
        options.json.write_text(json.dumps({name: vars(metrics) for name, metrics in groups.items()}, indent=1))


def spread_clips(clips: list[Clip]) -> list[Clip]:
    """Return every n-th clip, which covers all classes and sensors."""
    return clips[:: max(1, len(clips) // QUICK_CLIPS)][:QUICK_CLIPS]


def evaluate_clips(clips: list[Clip], options: ClipEvaluationOptions) -> dict[str, ClipMetrics]:
    """Return metrics by group: sensor and class, sensor, and all."""
    loaded = load(checkpoint_path(options.checkpoint))
    groups: dict[str, ClipMetrics] = {}
    with Engine(loaded, kind=options.engine) as engine:
        folder = options.out / loaded.metadata.sha256[:12] / engine.name
        for number, clip in enumerate(clips, 1):
            out = folder / clip.name
            stored = _is_stored(out, loaded.metadata.thresholds[clip.sensor].threshold)
            how = ReplayOptions(band=clip.sensor, video=False, from_detections=stored)
            summary = Replay(clip.path, clip.name, clip.path.name, out, loaded, engine, how).run(lambda *_: None)
            if summary.error:
                raise DasnetError(summary.error)
            rows = read_track_rows((out / "tracks.txt").read_text().splitlines())
            metrics = evaluate_clip(clip, rows, summary.frames)
            for name in (f"{clip.sensor} {clip.clip_class}", clip.sensor, "all"):
                groups.setdefault(name, ClipMetrics()).add(metrics)
            print(f"\r{number}/{len(clips)} {clip.name:<24}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: groups[name] for name in sorted(groups, key=lambda name: (name == "all", " " not in name, name))}


def _is_stored(folder: Path, threshold: float) -> bool:
    try:
        header, _ = read_detections(folder / "detections.jsonl")
    except (DasnetError, OSError):
        return False
    return header.threshold == threshold and (folder / "summary.json").exists()
