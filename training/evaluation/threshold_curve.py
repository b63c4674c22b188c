"""ROC of suppression: drones suppressed against distractors that alarm, per camera, over a range of thresholds.

    dasnet evaluate-clips hard --data FOLDER --data OTHER
    python3 scripts/decision_curve.py hard --data FOLDER --data OTHER curve.png

In: the detections that `dasnet evaluate-clips` stored.  Out: a table, and a plot with a curve per camera (needs
matplotlib).  The checkpoint's own operating point is marked.  Every camera is taken for a calibrated one: on others,
but for those whose frame size training knew, no class is suppressed.  Distractors are the clips without a drone; a
camera that has none is shown against those of all cameras of its band, which share its threshold.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from model.checkpoint import load
from model.metadata import BandThresholds, Thresholds
from pipeline.bounds import clopper_pearson
from pipeline.checkpoints import checkpoint_path
from pipeline.tracking.policy import Policy
from pipeline.tracking.tracker import Tracker
from pipeline.types import Detections, Track, TrackState
from training.datasets import Clip
from training.evaluation.arguments import run_plot
from training.evaluation.clip_metrics import ClipMetrics, TrackRow, evaluate_clip, ratio
from training.evaluation.clip_sets import stored_replays

SUPPRESSION_LOG_ODDS = [step / 5 for step in range(-4, 13)]  # negated: tracks below -x are suppressed


@dataclass
class Point:
    """One camera at one threshold."""

    tracked: ClipMetrics = field(default_factory=ClipMetrics)  # of all confirmed tracks, suppressed or not
    alerted: ClipMetrics = field(default_factory=ClipMetrics)  # of those that alert

    @property
    def suppressed(self) -> int:
        """Drones that have a confirmed track and never an alert."""
        return self.tracked.found - self.alerted.found

    @property
    def suppressed_share(self) -> float:
        """Share of the labels with a confirmed track on which no alert is."""
        return 1 - ratio(self.alerted.right_centre, self.tracked.right_centre)

    @property
    def alarmed(self) -> tuple[int, int]:
        """Distractor clips that alarm, and all."""
        return len(self.alerted.alarmed), self.alerted.negative_clips

    def add(self, other: "Point") -> None:
        """Add another camera's or clip's metrics."""
        self.tracked.add(other.tracked)
        self.alerted.add(other.alerted)


@dataclass
class CameraCurve:
    """The points of one camera in one set, one per threshold, and the distractors that it is shown against."""

    sensor: str
    points: list[Point] = field(default_factory=lambda: [Point() for _ in SUPPRESSION_LOG_ODDS])
    distractors: list[Point] = field(default_factory=list)


Curves = dict[tuple[str, str], CameraCurve]  # by set and camera


def main() -> int:
    """Run the command line and return the exit code."""
    return run_plot(__doc__, run)


def run(splits: list[str], plot: Path, checkpoint: Path | None, data: list[Path], evaluation: Path) -> None:
    """Print the table and write the plot; raise DataError where a clip was not replayed."""
    metadata = load(checkpoint_path(checkpoint)).metadata
    curves: Curves = {}
    for name, clip, detections in stored_replays(data, splits, evaluation / metadata.sha256[:12]):
        curve = curves.setdefault((name, clip.camera or clip.sensor), CameraCurve(clip.sensor))
        for whole, point in zip(curve.points, clip_points(clip, detections, metadata.thresholds), strict=True):
            whole.add(point)
    for curve in curves.values():
        same_band = [other.points for other in curves.values() if other.sensor == curve.sensor]
        own = curve.points[0].alerted.negative_clips > 0
        curve.distractors = curve.points if own else [_sum(points) for points in zip(*same_band, strict=True)]
    print(table(curves))
    plot_curves(curves, metadata.thresholds, plot)


def _sum(points: Sequence[Point]) -> Point:
    whole = Point()
    for point in points:
        whole.add(point)
    return whole


def clip_points(clip: Clip, detections: Sequence[Detections], thresholds: BandThresholds) -> Iterator[Point]:
    """Yield a clip's metrics at each suppression threshold."""
    for log_odds in SUPPRESSION_LOG_ODDS:
        shown = list(confirmed(clip, detections, replace(thresholds[clip.sensor], distractor_log_odds=log_odds)))
        rows = [(TrackRow(frame, track.id, track.xyxy), track.is_target) for frame, track in shown]
        tracked = evaluate_clip(clip, [row for row, _ in rows], len(detections))
        alerted = evaluate_clip(clip, [row for row, is_target in rows if is_target], len(detections))
        yield Point(tracked, alerted)


def confirmed(clip: Clip, detections: Sequence[Detections], thresholds: Thresholds) -> Iterator[tuple[int, Track]]:
    """Yield the confirmed tracks that are visible in each frame; `tracks.txt` holds the targets among them."""
    tracker = Tracker(clip.name, "curve", thresholds, policy=Policy(calibrated=True))
    for frame in detections:
        for track in tracker.update(frame):
            if track.state is TrackState.CONFIRMED:
                yield frame.ref.seq, track


def table(curves: Curves) -> str:
    """Return a Markdown table, a line per set, camera and threshold."""
    head = ("set", "camera", "suppressed below", "drones suppressed", "labels suppressed", "F1", "distractors alarmed")
    lines = [head, ("---",) * len(head)]
    for (name, camera), curve in curves.items():
        for log_odds, point, distractors in zip(SUPPRESSION_LOG_ODDS, curve.points, curve.distractors, strict=True):
            suppressed = _share(point.suppressed, point.tracked.found)
            figures = f"{point.suppressed_share:.3f}", f"{point.alerted.ratio('F1'):.3f}"
            lines.append((name, camera, f"{-log_odds:+.1f}", suppressed, *figures, _share(*distractors.alarmed)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _share(part: int, whole: int) -> str:
    low, high = clopper_pearson(part, whole)
    return f"{part} of {whole} ({low:.3f}-{high:.3f})"


def plot_curves(curves: Curves, thresholds: BandThresholds, path: Path) -> None:
    """Plot the share of labels suppressed against that of distractors alarmed; mark the operating points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for (name, camera), curve in curves.items():
        shares = [
            (ratio(*distractors.alarmed), point.suppressed_share)
            for point, distractors in zip(curve.points, curve.distractors, strict=True)
        ]
        (line,) = axes.plot(*zip(*shares, strict=True), marker=".", label=f"{camera}, {name}")
        own = thresholds[curve.sensor].distractor_log_odds
        nearest = min(range(len(shares)), key=lambda at: abs(SUPPRESSION_LOG_ODDS[at] - own))
        axes.plot(*shares[nearest], marker="o", markersize=10, fillstyle="none", color=line.get_color())
    axes.set_xlabel("share of clips without a drone that raise an alert")
    axes.set_ylabel("share of tracked drone labels suppressed")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
