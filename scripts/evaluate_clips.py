"""Replay a labelled set of clips and say what a user would care about.

    python3 scripts/evaluate_clips.py hard --data FOLDER        # or DASNET_CLIPS=FOLDER
    python3 scripts/evaluate_clips.py val --quick

FOLDER holds labelled videos, in the format of `tests/data` (labels.json.gz and clips/) or of Anti-UAV.  Detections are
stored under `--out` and reused as long as checkpoint, threshold and engine are the same, so that tracking can be tried
again in seconds.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from pipeline.checkpoints import checkpoint_path
from pipeline.errors import DasnetError
from pipeline.replay.outputs import read_detections
from pipeline.replay.run import Replay, ReplayOptions
from training.datasets import SPLITS, Clip, DataError, open_dataset
from training.evaluation.clip_metrics import ClipMetrics, evaluate_clip, read_track_rows, size_table, table

QUICK = 16
KEPT = Path("out/evaluation")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=[*SPLITS, "all"], help="which split")
    parser.add_argument("--out", type=Path, default=KEPT, help="where replays are kept")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} fixed clips")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parsed(parser)
    try:
        recordings = open_dataset(options.data, SPLITS if options.set == "all" else [options.set])
        clips = [recording for recording in recordings if isinstance(recording, Clip)]
        if not clips:
            raise DataError(f"data {options.data}: holds no labelled video; allowed: the dronedet or Anti-UAV format")
        groups = evaluate(quick(clips) if options.quick else clips, options)
    except DasnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(groups))
    print()
    print(size_table(groups))
    total = groups["all"]
    print(f"missed: {', '.join(total.missed) or 'none'}")
    print(f"alarmed: {', '.join(total.alarmed) or 'none'}")
    if options.json:
        options.json.write_text(json.dumps({name: vars(figures) for name, figures in groups.items()}, indent=1))
    return 0


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What whoever evaluates, or shows an evaluation, is told besides: data and checkpoint."""
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    return parsed_with_data(parser)


def parsed_with_data(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """With the folder that every script on labelled clips needs."""
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("DASNET_CLIPS"), help="folder of the labelled clips"
    )
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data FOLDER, or DASNET_CLIPS, is needed")
    return options


def parsed_of_evaluation(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The same, and where this script left its replays."""
    parser.add_argument("--evaluation", type=Path, default=KEPT, help="as evaluate_clips.py left it")
    return parsed(parser)


def quick(clips: list[Clip]) -> list[Clip]:
    """Every n-th clip, so that all classes and sensors are among them."""
    return clips[:: max(1, len(clips) // QUICK)][:QUICK]


def evaluate(clips: list[Clip], options: argparse.Namespace) -> dict[str, ClipMetrics]:
    from model.checkpoint import load
    from model.engine.engine import Engine

    loaded = load(checkpoint_path(options.checkpoint))
    groups: dict[str, ClipMetrics] = {}
    with Engine(loaded, kind=options.engine) as engine:
        folder = options.out / loaded.metadata.sha256[:12] / engine.name
        for number, clip in enumerate(clips, 1):
            stored = _is_stored(folder / clip.name, loaded.metadata.decision[clip.sensor].threshold)
            how = ReplayOptions(band=clip.sensor, video=False, from_detections=stored)
            summary = Replay(clip.path, clip.name, clip.path.name, folder / clip.name, loaded, engine, how).run(
                lambda *_: None
            )
            if summary.error:
                raise DasnetError(summary.error)
            rows = read_track_rows((folder / clip.name / "tracks.txt").read_text().splitlines())
            figures = evaluate_clip(clip, rows, summary.frames)
            for name in (f"{clip.sensor} {clip.clip_class}", clip.sensor, "all"):
                groups.setdefault(name, ClipMetrics()).add(figures)
            print(f"\r{number}/{len(clips)} {clip.name:<24}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: groups[name] for name in sorted(groups, key=lambda name: (name == "all", " " not in name, name))}


def _is_stored(folder: Path, threshold: float) -> bool:
    try:
        header, _ = read_detections(folder / "detections.jsonl")
    except (DasnetError, OSError):
        return False
    return header.threshold == threshold and (folder / "summary.json").exists()


if __name__ == "__main__":
    sys.exit(main())
