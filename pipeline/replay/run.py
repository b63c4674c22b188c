"""`dasnet replay`: recordings in; a folder of results for each, and one report over all, out."""

import sys
from collections.abc import Sequence
from pathlib import Path

from model.checkpoint import load
from model.engine.engine import Engine
from pipeline.capture.recordings import find_recordings, source_names
from pipeline.checkpoints import checkpoint_path
from pipeline.config.calibration import read_calibration
from pipeline.errors import ConfigError, SourceError
from pipeline.redaction import redact
from pipeline.replay.options import ReplayOptions
from pipeline.replay.outputs import folder_names
from pipeline.replay.parquet import remove_rows, require_pyarrow, write_rows
from pipeline.replay.recording import Replay
from pipeline.replay.report import write_report
from pipeline.replay.summary import Summary
from pipeline.replay.thumbnails import Thumbnails
from pipeline.runtime.progress import ProgressDisplay


def run_replay(paths: Sequence[Path], out: Path, options: ReplayOptions) -> int:
    """Replay all inputs into `out`.  Return 1 if one of them was broken; the others are replayed all the same."""
    options.check()
    if options.parquet:
        require_pyarrow()
    inputs, failures = find_inputs(paths)
    loaded = load(checkpoint_path(options.checkpoint))
    check_calibration(options, loaded.metadata.sha256)
    out.mkdir(parents=True, exist_ok=True)
    names, sources = folder_names(inputs), source_names(inputs, paths)
    summaries: list[tuple[Summary, Thumbnails]] = []
    with Engine(loaded, device=options.device, kind=options.engine) as engine, ProgressDisplay("frames") as progress:
        for number, (path, name, source) in enumerate(zip(inputs, names, sources, strict=True), 1):
            progress.start(name if len(inputs) == 1 else f"{name} ({number} of {len(inputs)})")
            replay = Replay(path, name, source, out / name, loaded, engine, options)
            summary = replay.run(progress.advance)
            summaries.append((summary, replay.thumbnails))
            if summary.other_video_streams:
                others = ", ".join(summary.other_video_streams)
                print(f"{path}: video stream {summary.video_stream}; --stream reads another: {others}", file=sys.stderr)
            if summary.error:
                print(redact(f"error: {summary.error}"), file=sys.stderr)
                failures += 1
            (write_rows if options.parquet else remove_rows)(out / name)
    report(out, summaries)
    return 1 if failures else 0


def report(out: Path, summaries: Sequence[tuple[Summary, Thumbnails]], place: str = "") -> None:
    """Write the report over all inputs and print its path, or that at `place`, to which the caller brings it."""
    write_report(out, summaries)
    frames = sum(summary.frames for summary, _ in summaries)
    alerts = sum(summary.alerts for summary, _ in summaries)
    print(f"{len(summaries)} recordings, {frames} frames, {alerts} alerts: {place or out}/report.html")


def check_calibration(options: ReplayOptions, sha256: str) -> None:
    """Raise ConfigError where the calibration is of another checkpoint."""
    if options.calibration is not None:
        fault = read_calibration(options.calibration).checkpoint_fault(sha256)
        if fault is not None:
            raise ConfigError(f"{options.calibration}: {fault}")


def find_inputs(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Return the recordings of all paths, and how many paths have none."""
    inputs: list[Path] = []
    failures = 0
    for path in paths:
        try:
            inputs += find_recordings(path)
        except SourceError as error:
            print(redact(f"error: {error}"), file=sys.stderr)
            failures += 1
    return inputs, failures
