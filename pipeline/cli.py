"""`dasnet`: the command line.  Commands import their modules when they run, which keeps capture workers small.

Exit codes: 0 success, 1 failure (also of part of the input), 2 invalid usage or configuration.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import __version__, stdio
from pipeline.errors import ConfigError, DasnetError
from pipeline.redaction import redact

if TYPE_CHECKING:
    import threading

    from pipeline.config.models import Address
    from pipeline.runtime.control import Control

# Must be set before torch is imported: its CPU allocator then asks for huge pages, which halves inference time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Counter-UAV video surveillance: cameras or recordings in, UAV tracks and alerts out.",
)

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The site's YAML file.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder; created if needed.")]
CheckpointOption = Annotated[Path | None, typer.Option(help="The checkpoint; default: the shipped one.")]
ThresholdOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Segmentation threshold; default: the checkpoint's.")
]
DeviceOption = Annotated[str, typer.Option(help="Inference device: auto, cpu, cuda, cuda:N.")]
HostOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The edge host whose cameras run here; default: the inference host.")
]
EngineOption = Annotated[str, typer.Option(help="Inference engine: auto, native, torch, cuda, reference.")]


def main() -> None:
    """Run a command; report a known error as one line on stderr with its exit code, any other as a traceback.

    Secrets are redacted in both.
    """
    from model.errors import ModelError  # cheap: imports no torch

    stdio.protect()
    try:
        app(prog_name="dasnet")
    except (DasnetError, ModelError) as error:
        print(redact(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception:
        if "structlog" in sys.modules and sys.modules["structlog"].is_configured():
            raise  # the log records it
        print(redact(traceback.format_exc()), file=sys.stderr)
        sys.exit(1)


@app.command(epilog="Example: `dasnet run configs/demo.yaml`")
def run(config: ConfigArgument, host: HostOption = None) -> None:
    """Run the pipeline on the cameras of a site until stopped."""
    from pipeline.config.file import load
    from pipeline.diagnostics.preflight import check_machine
    from pipeline.runtime import logs
    from pipeline.runtime.supervisor import Supervisor

    loaded = load(config)
    check_machine(config, loaded, host)
    logs.configure(loaded)
    raise typer.Exit(Supervisor(config.absolute(), loaded, host).run())


@app.command(name="reload", epilog="Example: `dasnet reload site.yaml`")
def reload_cameras(config: ConfigArgument) -> None:
    """Reload the configuration of the running program: add, remove or change cameras without interrupting others."""
    from pipeline.runtime.reload import request_reload

    for line in request_reload(config):
        print(line)


@app.command(epilog="Example: `dasnet check site.yaml`")
def check(
    config: ConfigArgument,
    host: HostOption = None,
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Open every camera and report codec, size, frame rates and an image."),
    ] = False,
) -> None:
    """Validate a configuration and summarise it, without starting the pipeline."""
    from pipeline.config.file import load
    from pipeline.diagnostics.doctor import describe
    from pipeline.diagnostics.preflight import check_machine

    loaded = load(config)
    check_machine(config, loaded, host, outputs=True)
    print(describe(config, loaded))
    if connect:
        from pipeline.diagnostics.camera_check import check_cameras

        here = [camera for camera in loaded.cameras if camera.host == host]
        report, healthy = check_cameras(here, loaded.run_dir / "check")
        print(report)
        raise typer.Exit(0 if healthy else 1)


@app.command(epilog="Example: `dasnet replay tests/data/clips --out out`")
def replay(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Videos, folders or image sequences.")],
    out: OutOption,
    checkpoint: CheckpointOption = None,
    threshold: ThresholdOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    band: Annotated[str, typer.Option(help="visible, infrared, or auto: infrared for grey frames.")] = "auto",
    scale: Annotated[
        float | None, typer.Option(min=0.05, max=8, help="Resize factor before inference; default: the checkpoint's.")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="'X,Y X,Y X,Y'", help="Privacy mask: a polygon in which detections are discarded."),
    ] = None,
    within: Annotated[
        str | None, typer.Option("--region", metavar="X0,Y0,X1,Y1", help="Region of interest, in frame pixels.")
    ] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, help="Frame rate of image sequences; default: 25.")] = None,
    stream: Annotated[
        int | None, typer.Option(min=0, help="Video stream of a file; default: FFmpeg's best stream.")
    ] = None,
    start_time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Wall-clock time of the first frame, ISO 8601; default: the file's."),
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="First frame to process, 0-based.")] = 0,
    end: Annotated[int | None, typer.Option(min=1, help="First frame not to process.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Process every n-th frame.")] = 1,
    video: Annotated[bool, typer.Option("--video/--no-video", help="Write annotated.mp4.")] = True,
    from_detections: Annotated[
        bool, typer.Option("--from-detections", help="Run only tracking, on the detections stored in DIR.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Calibration of the camera, written by `dasnet assess`.")
    ] = None,
) -> None:
    """Run the pipeline on recordings: every frame, deterministically."""
    from pipeline.replay.options import ReplayOptions, polygon, region
    from pipeline.replay.options import start_time as parsed_time
    from pipeline.replay.run import run_replay

    options = ReplayOptions(
        checkpoint=checkpoint,
        threshold=threshold,
        device=device,
        engine=engine,
        band=band,
        scale=scale,
        ignore=tuple(polygon(text) for text in ignore or ()),
        region=region(within) if within else None,
        fps=fps,
        stream=stream,
        start_utc_ns=parsed_time(start_time) if start_time else None,
        start=start,
        end=end,
        stride=stride,
        video=video,
        from_detections=from_detections,
        calibration=calibration,
    )
    raise typer.Exit(run_replay(paths, out, options))


@app.command(epilog="Example: `dasnet predict photo.jpg --out out`")
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    out: OutOption,
    checkpoint: CheckpointOption = None,
    threshold: ThresholdOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    band: Annotated[str, typer.Option(help="visible, infrared, or auto: infrared for grey images.")] = "auto",
) -> None:
    """Segment images; write a mask, an overlay and the boxes of each."""
    from pipeline.replay.predict import run_predict

    raise typer.Exit(run_predict(images, out, checkpoint, threshold, device, engine, band))


@app.command(epilog="Example: `dasnet assess site.yaml --hours 15`")
def assess(
    config: ConfigArgument,
    hours: Annotated[
        float,
        typer.Option(min=0, help="Hours of observation per camera; 0: only rewrite the report, with new verdicts."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Output folder; default: `assess` in the run folder.")
    ] = None,
    target: Annotated[
        float, typer.Option(min=0.001, metavar="PER_HOUR", help="False alarms an hour to be claimed, per camera.")
    ] = 0.2,
    encounters: Annotated[float, typer.Option(min=0.1, help="Seeded encounters an hour, per camera.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the encounters.")] = 0,
) -> None:
    """Assess the cameras of a site in shadow mode: false alarms an hour, probability of detection, calibration.

    Nothing is sent or alerted. Ctrl-C ends early, with a report of what was seen.
    """
    from pipeline.assess.options import AssessOptions
    from pipeline.assess.run import run_assess

    raise typer.Exit(run_assess(config, AssessOptions(hours, out, seed, encounters, target)))


@app.command(epilog="Example: `dasnet status site.yaml`")
def status(config: ConfigArgument, host: HostOption = None) -> None:
    """Show live camera status; print it once where output is not a terminal. Exit code 0: all cameras are up."""
    from pipeline.config.file import load
    from pipeline.diagnostics.status import show

    raise typer.Exit(show(load(config).for_host(host)))


@app.command(epilog="Example: `dasnet doctor`")
def doctor() -> None:
    """Check the installation and this machine: packages, devices, codecs, memory, disk, clock, limits."""
    from pipeline.diagnostics.doctor import examine

    report, healthy = examine(Path.cwd())
    print(report)
    raise typer.Exit(0 if healthy else 1)


@app.command(epilog="Example: `dasnet support-bundle --out support.zip site.yaml`")
def support_bundle(
    config: ConfigArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The zip file to write.")],
) -> None:
    """Collect diagnostic information, without secrets and images, in one zip file to share."""
    from pipeline.config.file import load
    from pipeline.diagnostics.support_bundle import write

    print(write(config, load(config), out))


@app.command(epilog="Example: `dasnet models`")
def models(
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time each network on this CPU; up to a minute.")
    ] = False,
) -> None:
    """List the eight networks: parameters, GFLOP, and the paper's figures."""
    from model.summary import summarise_networks, table

    print(table(summarise_networks(measure)))


@app.command(epilog="Example: `dasnet label tests/data --out labelled --stride 10`")
def label(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A labelled data set, or scene:count=500,seed=1.")],
    out: OutOption,
    classes: Annotated[
        bool, typer.Option("--classes", help="Also write class maps: 1 uav, 2 bird, 3 airplane, 4 helicopter.")
    ] = False,
    stride: Annotated[int, typer.Option(min=1, help="Label every n-th frame.")] = 1,
) -> None:
    """Generate training masks from bounding boxes, with a contact sheet for review."""
    from training.label import run_label

    raise typer.Exit(run_label(path, out, classes, stride))


@app.command(epilog="Example: `dasnet train configs/training/dasnet.yaml --out out/dasnet --set data=FOLDER`")
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A training YAML file, ours or the original's.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the run; default: .cache/runs/NAME of CONFIG."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the state in DIR.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. optimizer.lr=0.001.")
    ] = None,
) -> None:
    """Train one of the eight networks; a run can be stopped at any time and resumed with --resume."""
    from training.train import run_training

    raise typer.Exit(run_training(config, out, resume, changes or []))


@app.command(epilog="Example: `dasnet worker capture site.yaml --camera north`")
def worker(
    role: Annotated[str, typer.Argument(help="capture, segmentation, tracking or console.")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The site's YAML file; -: from the supervisor.")],
    camera: Annotated[str | None, typer.Option(help="Id of the camera; capture only.")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve this worker's metrics on this port; `run` serves those of all."),
    ] = None,
) -> None:
    """Run a single worker; `dasnet run` starts all of them."""
    import structlog

    from model.errors import ModelError
    from pipeline.config.file import load
    from pipeline.config.models import Address
    from pipeline.runtime.control import FROM_SUPERVISOR, Control
    from pipeline.runtime.process import start_worker

    control = Control.inherited() if str(config) == FROM_SUPERVISOR else Control(load(config))
    loaded = control.config
    served = None if metrics_port is None else Address(host=loaded.metrics.host, port=metrics_port)
    loaded.run_dir.mkdir(parents=True, exist_ok=True)
    os.chdir(loaded.run_dir)
    stop = start_worker(f"{role}-{camera}" if camera else role, control)
    try:
        _run_worker(role, control, camera, stop, served)
    except (DasnetError, ModelError) as error:
        structlog.get_logger().error("worker failed", reason=str(error))
        raise typer.Exit(error.exit_code) from None


def _run_worker(
    role: str, control: "Control", camera: str | None, stop: "threading.Event", served: "Address | None"
) -> None:
    if role == "capture":
        from pipeline.capture.worker import run as run_capture

        if camera is None:
            raise ConfigError("worker capture: --camera is required; must be the id of a camera")
        run_capture(control, control.config.camera(camera), stop, served)
    elif role == "segmentation":
        from pipeline.segmentation.worker import run as run_segmentation

        run_segmentation(control, stop, served)
    elif role == "tracking":
        from pipeline.tracking.worker import run as run_tracking

        run_tracking(control, stop, served)
    elif role == "console":
        from pipeline.console.worker import run as run_console

        run_console(control, stop, served)
    else:
        raise ConfigError(f"worker {role!r}; must be one of capture, segmentation, tracking, console")


@app.command(epilog="Example: `dasnet password console.password`")
def password(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, readable by you only.")],
) -> None:
    """Write the console's password file; prompts twice, or reads one line from a pipe."""
    from pipeline.console.password import ask, write_password_file

    write_password_file(file, ask())
    print(f"{file}: written; set console.password_file in the configuration to it")


@app.command(epilog="Example: `dasnet keys keys edge1 edge2`")
def keys(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the keys; created if needed.")],
    hosts: Annotated[list[str], typer.Argument(metavar="HOST...", help="Edge hosts, as in the key `host` of cameras.")],
) -> None:
    """Generate the CURVE keys of the inference host and its edge hosts; existing keys are kept."""
    from pipeline.transport.keys import SERVER, make_keys

    made = make_keys(folder, hosts)
    for path in made:
        print(f"{path}: written")
    print(
        f"the inference host needs {folder}/{SERVER}.key_secret and {folder}/hosts/*.key; "
        f"each edge host {folder}/{SERVER}.key and its own {folder}/hosts/NAME.key_secret"
    )


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command(epilog="Example: `dasnet export model/weights/dasnet.safetensors --out dasnet.onnx`")
def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint of dasnet or of the original DAS-Net.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="An .onnx file, or a .plan file for TensorRT (experimental)."),
    ],
    opset: Annotated[int, typer.Option(help="ONNX operator set, 18 to 23; most runtimes support 18.")] = 18,
    fold: Annotated[
        bool, typer.Option("--fold/--no-fold", help="Fold the last two convolutions into one, exactly.")
    ] = True,
) -> None:
    """Export a checkpoint to ONNX, or to a TensorRT plan (experimental: never run on its hardware), and verify it."""
    from model.export.onnx import run_export
    from pipeline.checkpoints import checkpoint_path

    run_export(checkpoint_path(checkpoint), out, opset, fold)


@app.command(epilog="Example: `dasnet bench --sizes 256x256,512x512 --json bench.json --plot bench.png`")
def bench(
    checkpoint: CheckpointOption = None,
    sizes: Annotated[str, typer.Option(help="Input sizes, HEIGHTxWIDTH; multiples of 32.")] = "256x256,512x512",
    batches: Annotated[str, typer.Option(help="Batch sizes.")] = "1,4",
    precisions: Annotated[str, typer.Option(help="Precisions: fp32, bf16, fp16.")] = "fp32,bf16,fp16",
    threads: Annotated[str | None, typer.Option(help="CPU threads; default: every usable core.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed forward passes per candidate.")] = 10,
    frames: Annotated[
        Path | None, typer.Option(help="Recordings for the comparison of masks; default: tests/data/clips.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all results as JSON.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write a PNG plot; requires matplotlib.")
    ] = None,
    compile_too: Annotated[
        bool, typer.Option("--compile", help="Include torch.compile; takes minutes per input shape.")
    ] = False,
) -> None:
    """Benchmark the inference engines on this machine: speed, and accuracy against float64."""
    from pipeline.bench.run import BenchOptions, run_bench

    options = BenchOptions(sizes, batches, precisions, threads, rounds, frames, json, plot, compile_too)
    raise typer.Exit(run_bench(checkpoint, options))


@app.command(epilog="Example: `dasnet evaluate --checkpoint best.pth --data FOLDER --split test --json best.json`")
def evaluate(
    data: Annotated[str, typer.Option(metavar="FOLDER", envvar="DASNET_CLIPS", help="The labelled data set.")],
    checkpoint: CheckpointOption = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "val",
    every: Annotated[int, typer.Option(min=1, help="Evaluate every n-th frame of a recording.")] = 1,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all results as JSON.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="For `compare`: evaluation.json, sample masks, plots.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The network that the checkpoint must hold.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the training, where the checkpoint does not hold it.")
    ] = None,
    device: DeviceOption = "auto",
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Also measure inference time.")] = True,
) -> None:
    """Evaluate a checkpoint's masks: precision, recall, Dice and IoU by target size and band; inference time."""
    from pipeline.checkpoints import checkpoint_path
    from training.evaluation.evaluate import EvaluateOptions, run_evaluate

    run_evaluate(
        EvaluateOptions(checkpoint_path(checkpoint), data, split, every, json, out, model, seed, device, timing)
    )


@app.command(epilog="Example: `dasnet evaluate-clips hard --data FOLDER --ladder --json clips.json`")
def evaluate_clips(
    splits: Annotated[
        list[str], typer.Argument(metavar="SET...", help="Splits of the data: train, val, hard, test or all.")
    ],
    data: Annotated[
        list[Path],
        typer.Option(metavar="FOLDER", envvar="DASNET_CLIPS", help="The labelled clips; several times for several."),
    ],
    checkpoint: CheckpointOption = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where replays are stored.")] = Path(
        "out/evaluation"
    ),
    engine: EngineOption = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Evaluate 16 fixed clips only.")] = False,
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Evaluate clips of drones also shrunk, as if farther away.")
    ] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all metrics.")] = None,
) -> None:
    """Track metrics of labelled clips, replayed through the whole pipeline: recall, delay, false tracks; bounds."""
    from training.evaluation.clips import ClipEvaluationOptions, run_evaluate_clips

    run_evaluate_clips(ClipEvaluationOptions(splits, data, checkpoint, out, engine, quick, ladder, json))


@app.command(epilog="Example: `dasnet compare out/*-42 out/*-2024 out/*-8888 --out out/comparison`")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Folders or JSON files of `evaluate`.")],
    out: OutOption,
    reference: Annotated[
        str | None, typer.Option(help="The network to test against; default: dasnet, or the first.")
    ] = None,
) -> None:
    """Compare networks trained with several seeds each: means, deviations, paired tests, effect sizes, figures."""
    from training.evaluation.compare import run_compare

    run_compare(runs, out, reference)


if __name__ == "__main__":
    main()
