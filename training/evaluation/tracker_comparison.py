"""Our tracker against ByteTrack, OC-SORT, BoT-SORT and C-BIoU on the same stored detections, at several frame rates.

    dasnet evaluate-clips hard --data FOLDER
    python3 scripts/compare_trackers.py out/evaluation --data FOLDER --check

In: detections.jsonl of labelled clips, as `dasnet evaluate-clips` and `dasnet replay` store them.  Out: a Markdown
table and a JSON file.  A track counts whatever its label, and so does every labelled target: what is compared is
tracking, not classification.  Lower frame rates leave out frames; those that remain keep their times.

Installs roboflow's `trackers` and `trackeval` into an environment of their own at the first call.
"""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from model.description import read_thresholds
from model.metadata import BandThresholds
from pipeline.checkpoints import checkpoint_path
from pipeline.replay.outputs import read_detections
from pipeline.tracking.tracker import Tracker
from pipeline.types import Detections, TrackState
from training.command_line import exit_code, program
from training.datasets import Clip, DataError, open_dataset
from training.evaluation import tracker_environment
from training.evaluation.clip_metrics import TrackRow
from training.evaluation.peer_trackers import PEERS, peer_rows
from training.evaluation.tracking_metrics import TrackedClip, TrackingMetrics, tracking_metrics

OURS = "dasnet"
RATES = (25.0, 12.5, 5.0)  # frames per second
SLOWER = 0.9  # a recording of less than this share of a rate takes no part in it
TOLERANCE = 0.005  # of HOTA and IDF1: less is no difference
MODULE = "training.evaluation.tracker_comparison"

Rows = Callable[[Sequence[Detections], float], Iterator[TrackRow]]  # from detections and their rate in frames/s


@dataclass(frozen=True)
class StoredClip:
    """A labelled clip with its detections, in order."""

    clip: Clip
    frames: list[Detections]

    @property
    def rate(self) -> float:
        """Mean rate of the frames, per second."""
        first, last = self.frames[0].ref, self.frames[-1].ref
        return (len(self.frames) - 1) / (last.pts_s - first.pts_s)


@dataclass(frozen=True)
class RateResult:
    """All trackers at one frame rate."""

    rate: float  # frames per second, nominal: see `every_nth`
    clips: tuple[str, ...]
    minutes: float
    metrics: dict[str, TrackingMetrics]  # by tracker


def main() -> int:
    """Run the command line and return the exit code: 1 with `--check` where our tracker is behind."""
    parser = program(__doc__)
    parser.add_argument("detections", type=Path, help="folder that holds CLIP/detections.jsonl, at any depth")
    clips = os.environ.get("DASNET_CLIPS")
    parser.add_argument(
        "--data", type=Path, nargs="+", default=clips and [Path(clips)], help="folders of labelled clips"
    )
    parser.add_argument("--checkpoint", type=Path, help="whose thresholds our tracker uses; default: the shipped one")
    parser.add_argument("--check", action="store_true", help="exit with 1 where our tracker is behind")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    if not options.data:
        parser.error("--data FOLDER, or DASNET_CLIPS, is required")
    if not tracker_environment.is_installed():
        return tracker_environment.run_inside(MODULE, sys.argv[1:])
    behind: list[str] = []
    code = exit_code(lambda: behind.extend(run(options)))
    return code or int(options.check and bool(behind))


def run(options: Namespace) -> list[str]:
    """Print the table, write the JSON file, and return where our tracker is behind; raise DataError without clips."""
    thresholds = read_thresholds(checkpoint_path(options.checkpoint))
    clips = stored_clips(options.data, options.detections)
    results = list(compare(clips, trackers(thresholds)))
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps({"rates": [asdict(result) for result in results]}, indent=1) + "\n")
    behind = [line for result in results for line in shortfalls(result)]
    print("\n" + "\n".join(behind or ["not behind at any rate"]))
    return behind


def stored_clips(data: Iterable[Path], detections: Path) -> list[StoredClip]:
    """Return the labelled clips with stored detections; raise DataError where there are none, or several of one."""
    files: dict[str, Path] = {}
    for file in sorted(detections.rglob("detections.jsonl")):
        other = files.setdefault(file.parent.name, file)
        if other is not file:
            raise DataError(f"{detections}: holds both {other} and {file}; expected detections of one checkpoint")
    clips = {clip.name: clip for folder in data for clip in open_dataset(folder) if isinstance(clip, Clip)}
    stored = [StoredClip(clips[name], list(read_detections(files[name])[1])) for name in sorted(clips.keys() & files)]
    stored = [each for each in stored if len(each.frames) > 1]
    if not stored:
        raise DataError(f"{detections}: holds no CLIP/detections.jsonl of a clip in {', '.join(map(str, data))}")
    return stored


def trackers(thresholds: BandThresholds) -> dict[str, Rows]:
    """Return all trackers by name, ours first."""

    def ours(frames: Sequence[Detections], _rate: float) -> Iterator[TrackRow]:
        tracker = Tracker("comparison", "comparison", thresholds[frames[0].band])
        for found in frames:
            for track in tracker.update(found):
                if track.state is TrackState.CONFIRMED:
                    yield TrackRow(found.ref.seq, track.id, track.xyxy)

    every: dict[str, Rows] = {OURS: ours}
    return every | {peer.name: partial(peer_rows, peer) for peer in PEERS}


def compare(clips: Sequence[StoredClip], rows_of: dict[str, Rows]) -> Iterator[RateResult]:
    """Yield the metrics at each frame rate that a recording has."""
    for rate in RATES:
        fast = [each for each in clips if each.rate >= SLOWER * rate]
        if not fast:
            continue
        tracked: dict[str, dict[str, TrackedClip]] = {name: {} for name in rows_of}
        for each in fast:
            stride = max(1, round(each.rate / rate))
            frames = list(every_nth(each.frames, stride))
            labels = {at.ref.seq: each.clip.frames[at.ref.seq : at.ref.seq + 1] for at in frames}
            objects = {seq: one[0] if one else () for seq, one in labels.items()}
            for name, rows in rows_of.items():
                found = list(rows(frames, each.rate / stride))
                tracked[name][each.clip.name] = TrackedClip(objects, found, len(frames) * stride / each.rate)
        yield RateResult(
            rate,
            tuple(each.clip.name for each in fast),
            sum(clip.duration_s for clip in tracked[OURS].values()) / 60,
            {name: tracking_metrics(by_clip) for name, by_clip in tracked.items()},
        )


def every_nth(frames: Iterable[Detections], stride: int) -> Iterator[Detections]:
    """Yield every n-th frame with its own time, and with the camera's motion since the one before."""
    shift: tuple[float, float] | None = (0.0, 0.0)
    for number, found in enumerate(frames):
        step = found.camera_shift_px
        shift = (shift[0] + step[0], shift[1] + step[1]) if shift and step else None
        if number % stride == 0:
            yield replace(found, camera_shift_px=shift)
            shift = (0.0, 0.0)


def shortfalls(result: RateResult) -> list[str]:
    """Return in what our tracker is behind, a line each.

    HOTA and IDF1 are compared with every other tracker, false tracks with the one of the highest HOTA: a tracker that
    finds little has few.
    """
    ours, lines = result.metrics[OURS], []
    peers = {name: metrics for name, metrics in result.metrics.items() if name != OURS}
    for name, peer in peers.items():
        for metric, own, other in (("HOTA", ours.hota, peer.hota), ("IDF1", ours.idf1, peer.idf1)):
            if other > own + TOLERANCE:
                lines.append(f"behind at {result.rate:g} frames/s: {metric} {own:.3f}, {name} {other:.3f}")
    if peers:
        best = max(peers, key=lambda name: peers[name].hota)
        own, other = ours.false_per_minute, peers[best].false_per_minute
        if own > other:
            lines.append(f"behind at {result.rate:g} frames/s: {own:.1f} false tracks/min, {best} {other:.1f}")
    return lines


def table(results: Iterable[RateResult]) -> str:
    """Return a Markdown table, a line per frame rate and tracker."""
    head = "frames/s | tracker | HOTA | DetA | AssA | IDF1 | tracks | false tracks/min"
    lines = [head, " | ".join(["---"] * 8)]
    for result in results:
        for name, one in result.metrics.items():
            shares = (one.hota, one.detection_accuracy, one.association_accuracy, one.idf1)
            cells = [f"{result.rate:g}", name, *(f"{share:.3f}" for share in shares)]
            lines.append(" | ".join([*cells, str(one.tracks), f"{one.false_per_minute:.1f}"]))
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
