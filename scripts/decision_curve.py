"""What silencing costs: drones found and other clips alarmed, as the least evidence that silences a track changes.

    python3 scripts/evaluate_clips.py hard --data FOLDER
    python3 scripts/decision_curve.py hard --data FOLDER decision.png

In: the detections that evaluate_clips.py stored.  Out: a table, and a picture with a curve a sensor (needs matplotlib).
The decision that the checkpoint holds is marked.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from evaluate_clips import parsed_of_evaluation

from model.checkpoint import load
from model.metadata import Thresholds
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import DasnetError
from pipeline.replay.outputs import read_detections
from pipeline.tracking.tracker import Tracker
from pipeline.types import Detections, TrackState
from training.datasets import SENSORS, SPLITS, Clip, DataError, open_dataset
from training.evaluation.clip_metrics import ClipMetrics, TrackRow, evaluate_clip

EVIDENCE = [step / 5 for step in range(-4, 13)]  # below zero, -0.8 to 2.4
Stored = list[tuple[Clip, list[Detections]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="SET", choices=SPLITS, help=f"of {', '.join(SPLITS)}")
    parser.add_argument("picture", type=Path)
    options = parsed_of_evaluation(parser)
    try:
        metadata = load(checkpoint_path(options.checkpoint)).metadata
        replays = options.evaluation / metadata.sha256[:12]
        curves = {}
        for name in options.sets:
            clips = stored(options.data, name, replays)
            for sensor in SENSORS:
                if of_sensor := [each for each in clips if each[0].sensor == sensor]:
                    curves[name, sensor] = list(curve(of_sensor, metadata.decision[sensor]))
    except DasnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(curves))
    draw(curves, {sensor: metadata.decision[sensor].distractor_evidence for sensor in SENSORS}, options.picture)
    return 0


def stored(data: Path, split: str, replays: Path) -> Stored:
    """Raises DataError where a clip was not replayed."""
    found: Stored = []
    for clip in open_dataset(data, [split]):
        if isinstance(clip, Clip):
            files = list(replays.glob(f"*/{clip.name}/detections.jsonl"))
            if not files:
                raise DataError(f"{replays}: holds no {clip.name}; run `evaluate_clips.py {split}` first")
            found.append((clip, list(read_detections(files[0])[1])))
    return found


def curve(clips: Stored, decision: Thresholds) -> Iterator[tuple[float, ClipMetrics]]:
    for evidence in EVIDENCE:
        figures = ClipMetrics()
        for clip, detections in clips:
            rows = list(targets(clip, detections, replace(decision, distractor_evidence=evidence)))
            figures.add(evaluate_clip(clip, rows, len(detections)))
        yield evidence, figures


def targets(clip: Clip, detections: Sequence[Detections], decision: Thresholds) -> Iterator[TrackRow]:
    """What `tracks.txt` would hold."""
    tracker = Tracker(clip.name, "curve", decision)
    for found in detections:
        for track in tracker.update(found):
            if track.state is TrackState.CONFIRMED and track.is_target:
                yield TrackRow(found.ref.seq, track.id, track.xyxy)


def table(curves: dict[tuple[str, str], list[tuple[float, ClipMetrics]]]) -> str:
    lines = ["| set | sensor | silenced below | drones found | F1 | clips alarmed |", "|" + " --- |" * 6]
    for (name, sensor), points in curves.items():
        for evidence, one in points:
            found, alarmed = f"{one.found} of {one.drone_clips}", f"{len(one.alarmed)} of {one.negative_clips}"
            lines.append(f"| {name} | {sensor} | {-evidence:+.1f} | {found} | {one.f1:.3f} | {alarmed} |")
    return "\n".join(lines)


def draw(curves: dict[tuple[str, str], list[tuple[float, ClipMetrics]]], chosen: dict[str, float], picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for (name, sensor), points in curves.items():
        alarmed = [len(one.alarmed) / max(1, one.negative_clips) for _, one in points]
        recall = [one.recall for _, one in points]
        (line,) = axes.plot(alarmed, recall, marker=".", label=f"{sensor}, {name}")
        nearest = min(range(len(points)), key=lambda at: abs(points[at][0] - chosen[sensor]))
        axes.plot(
            alarmed[nearest], recall[nearest], marker="o", markersize=10, fillstyle="none", color=line.get_color()
        )
    axes.set_xlabel("clips without a drone that raise an alert")
    axes.set_ylabel("frames of drones with an alert")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
