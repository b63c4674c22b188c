"""`dasnet replay --ray`: recordings in; on a cluster, the same folders and the same report as without it, out."""

import fcntl
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from pipeline.bulk import storage
from pipeline.bulk.clip import UNFINISHED, Clip, Done
from pipeline.bulk.cluster import connected
from pipeline.bulk.schedule import Schedule
from pipeline.capture.recordings import source_names
from pipeline.checkpoints import checkpoint_path, checkpoint_sha256
from pipeline.errors import ConfigError, DasnetError
from pipeline.redaction import redact
from pipeline.replay.options import ReplayOptions
from pipeline.replay.outputs import folder_names
from pipeline.replay.parquet import require_pyarrow
from pipeline.replay.report import EVENTS, TRACKS
from pipeline.replay.run import check_calibration, find_inputs, report
from pipeline.replay.thumbnails import Thumbnails
from pipeline.runtime.progress import ProgressDisplay

BYTES_PER_MB = 1_000_000


def run_bulk_replay(places: Sequence[str], out: str, options: ReplayOptions, address: str) -> int:
    """Replay into `out`, on the cluster at `address`, what is not done yet.  Return 1 if an input failed.

    Places and `out` are paths, or URIs that fsspec opens.

    Raise ConfigError, DasnetError before anything is replayed: options, cluster, another replay into the same folder.
    """
    options.check()
    if options.from_detections:
        raise ConfigError("--ray cannot be used with --from-detections: tracking alone takes seconds")
    if options.parquet:
        require_pyarrow()
    inputs, missing = _find(places)
    sha256 = checkpoint_sha256(checkpoint_path(options.checkpoint))
    check_calibration(options, sha256)
    # The same place is always the same text, by which a recording is known to be done.
    out = out.rstrip("/") if storage.is_uri(out) else str(storage.local_path(out).absolute())
    with connected(address) as ray, _ready(out):
        options = _for_nodes(options, ray)
        names = zip(
            inputs,
            folder_names(storage.name_of(place) if storage.is_uri(place) else place for place, _ in inputs),
            strict=True,
        )
        clips = [Clip(place, name, source, out, options, sha256) for (place, source), name in names]
        left = [clip for clip in clips if not clip.is_done]
        if len(left) < len(clips):
            print(f"{len(clips) - len(left)} of {len(clips)} recordings are done already", file=sys.stderr)
        failures = _replay(Schedule(ray, "GPU" if options.device == "cuda" else "CPU", _warn), left)
    for text in failures:
        _warn(f"error: {text}")
    _report(out, [(clip.name, done) for clip in clips if (done := _last(clip)) is not None])
    return 1 if failures or missing else 0


def _find(places: Sequence[str]) -> tuple[list[tuple[str, str]], int]:
    """Return the recordings of all places with their names in the outputs, and how many places have none."""
    paths = [storage.local_path(place) for place in places if not storage.is_uri(place)]
    here, missing = find_inputs(paths)
    found = [(str(path.absolute()), name) for path, name in zip(here, source_names(here, paths), strict=True)]
    for place in places:
        if not storage.is_uri(place):
            continue
        try:
            found += [(uri, storage.name_of(uri)) for uri in storage.find_videos(place)]
        except DasnetError as error:
            _warn(f"error: {error}")
            missing += 1
    return found, missing


def _last(clip: Clip) -> Done | None:
    """Return a recording's result; None, with a line that says why, where a place cannot be read any more."""
    try:
        return clip.last()
    except DasnetError as error:
        _warn(f"error: {clip.source} is not in the report: {error}")
        return None


def _report(out: str, results: Sequence[tuple[str, Done]]) -> None:
    if not storage.is_uri(out):
        folder = Path(out)
        report(folder, [(done.summary, Thumbnails(folder / name, kept=done.thumbnails)) for name, done in results])
        return
    with TemporaryDirectory(prefix="dasnet-") as scratch:
        folder, written = Path(scratch) / "outputs", Path(scratch) / "report"
        for name, _ in results:  # the report links to files that exist, and reads two
            for file in storage.names(out, name):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                is_read = Path(file).name in (TRACKS, EVENTS)
                (folder / file).write_bytes((storage.read(out, file) or b"") if is_read else b"")
        folder.mkdir(exist_ok=True)
        inputs = [(done.summary, Thumbnails(folder / name, kept=done.thumbnails)) for name, done in results]
        report(folder, inputs, storage.shown(out))
        written.mkdir()
        (folder / "report.html").rename(written / "report.html")
        storage.store(written, out)


def _replay(schedule: Schedule, clips: Sequence[Clip]) -> list[str]:
    """Replay clips and return what failed."""
    failures = []
    sizes_bytes = {clip.name: clip.size_bytes for clip in clips}  # a recording may disappear meanwhile
    total, done = sum(sizes_bytes.values()), 0
    with ProgressDisplay("MB") as progress:
        progress.start(f"{len(clips)} recordings")
        for finished in schedule.run(clips):
            done += sizes_bytes[finished.clip.name]
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
def _ready(out: str) -> Iterator[None]:
    """Hold the results' place for as long as the context lasts.  Raise DasnetError where nothing can be written."""
    if storage.is_uri(out):
        storage.check_writable(out)
        yield
        return
    Path(out).mkdir(parents=True, exist_ok=True)
    with _alone_in(Path(out)):
        yield


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
