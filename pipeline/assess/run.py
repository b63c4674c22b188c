"""`dasnet assess`: shadow mode on a site's own cameras or recordings.

Data flow, in one process without the supervisor:
  thread per camera: decode -> queue (live: the newest frame; recording: two frames, every one is processed)
  main thread: Segmenter -> TrackStage -> alarms, snapshots, hours                 (the camera's own stream)
               during an encounter: paste a drone -> fork of both -> detected, delay         (a copy of it)
  at the end: verdicts of the stores -> figures -> OUT/assess.json, report.html, CAMERA.calibration.json
Types: Frame, Detections, Outcome as in replay; Alarm, SeededEncounter, CameraObservation, Assessment; Figures.
Failure cases: a camera that cannot be opened, is lost or sends unusable images (reported, its other hours count; exit
code 1 where a camera gave nothing or a recording is broken); a store or disk that cannot be written, or a lost engine
(the report of what was seen is still tried, then the error); Ctrl-C (the report of what was seen).
Nothing is sent: there are no sinks, and the site's own store is only read.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from model.checkpoint import load as load_checkpoint
from model.engine.engine import Engine
from pipeline import __version__
from pipeline.assess.observations import Assessment
from pipeline.assess.observer import Observer
from pipeline.assess.options import AssessOptions
from pipeline.assess.records import Records, with_verdicts
from pipeline.assess.report import summary_table, write_outputs
from pipeline.checkpoints import checkpoint_path
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.redaction import redact
from pipeline.runtime.interruption import end_quietly
from pipeline.runtime.process import set_event_on_signal
from pipeline.runtime.progress import ProgressDisplay

RESULTS = "assess.json"


def run_assess(path: Path, options: AssessOptions) -> int:
    """Assess a site and write the report; with 0 hours only rewrite it.  Return 1 where a camera failed."""
    options.check()
    config = load(path)
    out = options.out or config.run_dir / "assess"
    if options.hours:
        assessment = _observed(config, options, out)
    else:
        assessment = msgspec.structs.replace(read_assessment(out / RESULTS), target_per_hour=options.target_per_hour)
    assessment = with_verdicts(assessment, out, config.store_path)
    report = write_outputs(assessment, out)
    print(redact(summary_table(assessment)))
    print(f"report: {report}")
    failed = [
        camera for camera in assessment.cameras if camera.error and not _is_healthy(config, camera.id, camera.frames)
    ]
    for camera in assessment.cameras:
        if camera.error:
            print(redact(f"error: {camera.error}"), file=sys.stderr)
    return 1 if failed else 0


def read_assessment(path: Path) -> Assessment:
    """Return the results of an earlier assessment.  Raise ConfigError where they are missing, damaged or too new."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Assessment)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); --hours must be above 0 the first time"
        ) from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}; must be written by `dasnet assess` of version {__version__}") from None


def _is_healthy(config: Config, camera: str, frames: int) -> bool:
    """Return whether a camera's error is no failure of the assessment: a live camera that was lost for a while."""
    return frames > 0 and config.camera(camera).is_live


def _observed(config: Config, options: AssessOptions, out: Path) -> Assessment:
    """Observe all cameras for the given hours, or until Ctrl-C."""
    model = config.model
    loaded = load_checkpoint(checkpoint_path(model.checkpoint))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be created ({error.strerror}); must be a writable folder") from None
    with (
        Engine(loaded, device=model.device, kind=model.engine) as engine,
        Records(out) as records,
        ProgressDisplay("s") as progress,
    ):
        observer = Observer(config, options, engine, records)
        with _stopped_by_signals(observer.stop):
            failure = observer.run(progress)
        cameras = observer.close()
        assessment = Assessment(
            dasnet=__version__,
            created_utc_ns=time.time_ns(),
            checkpoint=loaded.metadata.sha256,
            network=loaded.metadata.network,
            engine=engine.name,
            role=config.model.role,
            target_per_hour=options.target_per_hour,
            seed=options.seed,
            encounters_per_hour=options.encounters_per_hour,
            requested_hours=options.hours,
            complete=failure is None and not observer.stop.is_set(),
            cameras=cameras,
        )
    if failure is not None:
        with suppress(OSError):  # the disk may be the failure
            print(f"report of what was seen: {write_outputs(assessment, out)}", file=sys.stderr)
        raise failure
    return assessment


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set the event; after the block they end the program at once again."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            set_event_on_signal(number, stop)
    try:
        yield
    finally:
        end_quietly()
