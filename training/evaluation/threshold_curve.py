"""Recall against false alarms for a range of suppression thresholds: drones found, other clips alarmed.

    dasnet evaluate-clips hard --data FOLDER
    python3 scripts/decision_curve.py hard --data FOLDER curve.png

In: the detections that `dasnet evaluate-clips` stored.  Out: a table, and a plot with a curve per sensor (needs
matplotlib).  The checkpoint's own operating point is marked.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from model.checkpoint import load
from model.metadata import Thresholds
from pipeline.checkpoints import checkpoint_path
from pipeline.replay.outputs import read_detections
from pipeline.tracking.tracker import Tracker
from pipeline.types import Detections, TrackState
from training.datasets import SENSORS, SPLITS, Clip, DataError, open_dataset
from training.evaluation.arguments import exit_code, parse_with_replays, program
from training.evaluation.clip_metrics import ClipMetrics, TrackRow, evaluate_clip

SUPPRESSION_LOG_ODDS = [step / 5 for step in range(-4, 13)]  # negated: tracks below -x are suppressed
StoredClips = list[tuple[Clip, list[Detections]]]
Curve = list[tuple[float, ClipMetrics]]


def main() -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("sets", nargs="+", metavar="SET", choices=SPLITS, help=f"of {', '.join(SPLITS)}")
    parser.add_argument("plot", type=Path)
    options = parse_with_replays(parser)
    return exit_code(lambda: run(options.sets, options.plot, options.checkpoint, options.data, options.evaluation))


def run(splits: list[str], plot: Path, checkpoint: Path | None, data: Path, evaluation: Path) -> None:
    """Print the table and write the plot; raise DataError where a clip was not replayed."""
    metadata = load(checkpoint_path(checkpoint)).metadata
    curves: dict[tuple[str, str], Curve] = {}
    for split in splits:
        clips = stored_clips(data, split, evaluation / metadata.sha256[:12])
        for sensor in SENSORS:
            if of_sensor := [each for each in clips if each[0].sensor == sensor]:
                curves[split, sensor] = list(curve(of_sensor, metadata.thresholds[sensor]))
    print(table(curves))
    plot_curves(curves, {sensor: metadata.thresholds[sensor].distractor_log_odds for sensor in SENSORS}, plot)


def stored_clips(data: Path, split: str, replays: Path) -> StoredClips:
    """Return the clips of a split with their stored detections; raise DataError where a clip was not replayed."""
    stored: StoredClips = []
    for clip in open_dataset(data, [split]):
        if isinstance(clip, Clip):
            files = list(replays.glob(f"*/{clip.name}/detections.jsonl"))
            if not files:
                raise DataError(f"{replays}: holds no {clip.name}; expected `dasnet evaluate-clips {split}` before")
            stored.append((clip, list(read_detections(files[0])[1])))
    return stored


def curve(clips: StoredClips, thresholds: Thresholds) -> Iterator[tuple[float, ClipMetrics]]:
    """Yield the metrics of tracking at each suppression threshold."""
    for log_odds in SUPPRESSION_LOG_ODDS:
        metrics = ClipMetrics()
        for clip, detections in clips:
            rows = list(target_rows(clip, detections, replace(thresholds, distractor_log_odds=log_odds)))
            metrics.add(evaluate_clip(clip, rows, len(detections)))
        yield log_odds, metrics


def target_rows(clip: Clip, detections: Sequence[Detections], thresholds: Thresholds) -> Iterator[TrackRow]:
    """Yield the rows that `tracks.txt` would hold."""
    tracker = Tracker(clip.name, "curve", thresholds)
    for frame in detections:
        for track in tracker.update(frame):
            if track.state is TrackState.CONFIRMED and track.is_target:
                yield TrackRow(frame.ref.seq, track.id, track.xyxy)


def table(curves: dict[tuple[str, str], Curve]) -> str:
    """Return a Markdown table, a line per set, sensor and threshold."""
    lines = ["| set | sensor | suppressed below | drones found | F1 | clips alarmed |", "|" + " --- |" * 6]
    for (split, sensor), points in curves.items():
        for log_odds, one in points:
            found, alarmed = f"{one.found} of {one.drone_clips}", f"{len(one.alarmed)} of {one.negative_clips}"
            lines.append(f"| {split} | {sensor} | {-log_odds:+.1f} | {found} | {one.f1:.3f} | {alarmed} |")
    return "\n".join(lines)


def plot_curves(curves: dict[tuple[str, str], Curve], chosen: dict[str, float], path: Path) -> None:
    """Plot recall against the share of alarmed clips; mark the checkpoint's operating points `chosen`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for (split, sensor), points in curves.items():
        alarmed = [len(one.alarmed) / max(1, one.negative_clips) for _, one in points]
        recall = [one.recall for _, one in points]
        (line,) = axes.plot(alarmed, recall, marker=".", label=f"{sensor}, {split}")
        nearest = min(range(len(points)), key=lambda at: abs(points[at][0] - chosen[sensor]))
        axes.plot(
            alarmed[nearest], recall[nearest], marker="o", markersize=10, fillstyle="none", color=line.get_color()
        )
    axes.set_xlabel("share of clips without a drone that raise an alert")
    axes.set_ylabel("share of drone labels with an alert")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
