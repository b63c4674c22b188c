"""`dasnet replay --ray`: recordings in; on a cluster, the same folders and the same report as without it, out."""

import fcntl
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from pipeline.bulk.clip import UNFINISHED, Clip
from pipeline.bulk.cluster import connected
from pipeline.bulk.schedule import Schedule
from pipeline.capture.recordings import source_names
from pipeline.checkpoints import checkpoint_path, checkpoint_sha256
from pipeline.errors import ConfigError, DasnetError
from pipeline.redaction import redact
from pipeline.replay.options import ReplayOptions
from pipeline.replay.outputs import folder_names
from pipeline.replay.parquet import require_pyarrow
from pipeline.replay.run import check_calibration, find_inputs, report
from pipeline.replay.thumbnails import Thumbnails
from pipeline.runtime.progress import ProgressDisplay

BYTES_PER_MB = 1_000_000


def run_bulk_replay(paths: Sequence[Path], out: Path, options: ReplayOptions, address: str) -> int:
    """Replay into `out`, on the cluster at `address`, what is not done yet.  Return 1 if an input failed.

    Raise ConfigError, DasnetError before anything is replayed: options, cluster, another replay into the same folder.
    """
    options.check()
    if options.from_detections:
        raise ConfigError("--ray cannot be used with --from-detections: tracking alone takes seconds")
    if options.parquet:
        require_pyarrow()
    inputs, missing = find_inputs(paths)
    sha256 = checkpoint_sha256(checkpoint_path(options.checkpoint))
    check_calibration(options, sha256)
    out.mkdir(parents=True, exist_ok=True)
    with connected(address) as ray, _alone_in(out):
        options = _for_nodes(options, ray)
        names = zip(inputs, folder_names(inputs), source_names(inputs, paths), strict=True)
        clips = [Clip(path.absolute(), name, source, out.absolute(), options, sha256) for path, name, source in names]
        left = [clip for clip in clips if not clip.is_done]
        if len(left) < len(clips):
            print(f"{len(clips) - len(left)} of {len(clips)} recordings are done already", file=sys.stderr)
        failures = _replay(Schedule(ray, "GPU" if options.device == "cuda" else "CPU", _warn), left)
    for text in failures:
        _warn(f"error: {text}")
    results = [(clip.folder, done) for clip in clips if (done := clip.last()) is not None]
    report(out, [(done.summary, Thumbnails(folder, kept=done.thumbnails)) for folder, done in results])
    return 1 if failures or missing else 0


def _replay(schedule: Schedule, clips: Sequence[Clip]) -> list[str]:
    """Replay clips and return what failed."""
    failures = []
    total = sum(clip.size_bytes for clip in clips)
    done = 0
    with ProgressDisplay("MB") as progress:
        progress.start(f"{len(clips)} recordings")
        for finished in schedule.run(clips):
            done += finished.clip.size_bytes
            progress.advance(done // BYTES_PER_MB, total // BYTES_PER_MB)
            if finished.error is not None:
                failures.append(f"{finished.clip.source}: {finished.error}")
    return failures


def _for_nodes(options: ReplayOptions, ray: ModuleType) -> ReplayOptions:
    """Return the options with absolute paths and one device for all nodes: GPUs where the cluster has some."""
    gpus = ray.cluster_resources().get("GPU", 0)
    device = options.device
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device}: must be auto, cpu or cuda with --ray, which gives each task its GPU")
    if device == "cuda" and not gpus:
        raise DasnetError("--device cuda: no node of the cluster has a GPU")
    checkpoint = options.checkpoint and options.checkpoint.absolute()
    calibration = options.calibration and options.calibration.absolute()
    return replace(options, device=device, checkpoint=checkpoint, calibration=calibration)


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Refuse to replay into a folder into which another driver does, and remove what a killed one left."""
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DasnetError(f"--out {out}: another replay writes into it") from None
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        try:
            yield
        finally:
            shutil.rmtree(out / UNFINISHED, ignore_errors=True)


def _warn(text: str) -> None:
    print(redact(text), file=sys.stderr, flush=True)
