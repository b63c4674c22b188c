"""`dasnet`: the command line.  Each command imports what it needs when it runs, so that a camera's worker stays small.

Exit codes: 0 done, 1 failed (also: part of the input failed), 2 wrong usage or configuration.
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
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go; made if needed.")]
CheckpointOption = Annotated[Path | None, typer.Option(help="A checkpoint; default: the shipped one.")]
ThresholdOption = Annotated[float | None, typer.Option(min=0, max=1, help="Default: the checkpoint's.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")]
HostOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The cameras of that host alone; default: the host that searches.")
]
EngineOption = Annotated[str, typer.Option(help="auto, native, torch, cuda, reference.")]


def main() -> None:
    """Run a command; a known failure is one line on stderr and an exit code, anything else a traceback.

    Neither shows a secret: what a library says may quote one.
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
            raise  # the log tells
        print(redact(traceback.format_exc()), file=sys.stderr)
        sys.exit(1)


@app.command(epilog="Example: `dasnet run configs/demo.yaml`")
def run(config: ConfigArgument, host: HostOption = None) -> None:
    """Watch the cameras of a site until stopped."""
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
    """Let the running program read its configuration again: cameras added, removed or changed; the others go on."""
    from pipeline.runtime.reload import request_reload

    for line in request_reload(config):
        print(line)


@app.command(epilog="Example: `dasnet check site.yaml`")
def check(
    config: ConfigArgument,
    host: HostOption = None,
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Open every camera: codec, size, rates, an image; 1 if one fails."),
    ] = False,
) -> None:
    """Validate a configuration and say what it means, without starting anything."""
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
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Videos, folders, image sequences.")],
    out: OutOption,
    checkpoint: CheckpointOption = None,
    threshold: ThresholdOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    band: Annotated[str, typer.Option(help="visible, infrared, or auto: infrared where there is no colour.")] = "auto",
    scale: Annotated[float | None, typer.Option(min=0.05, max=8, help="Default: the checkpoint's.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="'X,Y X,Y X,Y'", help="A polygon in which nothing is reported.")
    ] = None,
    within: Annotated[
        str | None, typer.Option("--region", metavar="X0,Y0,X1,Y1", help="Search this part of the frame alone.")
    ] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, help="Of image sequences; default 25.")] = None,
    stream: Annotated[
        int | None, typer.Option(min=0, help="Video stream of a file; default: the one that players choose.")
    ] = None,
    start_time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Wall-clock time of the first frame, ISO 8601; default: as the file says."),
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="First frame, 0-based.")] = 0,
    end: Annotated[int | None, typer.Option(min=1, help="Frame to stop before.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Take every n-th frame.")] = 1,
    video: Annotated[bool, typer.Option("--video/--no-video", help="Write annotated.mp4.")] = True,
    from_detections: Annotated[
        bool, typer.Option("--from-detections", help="Track again from the detections stored in DIR.")
    ] = False,
) -> None:
    """Search recordings: every frame, none dropped, the same result every time."""
    from pipeline.replay.run import ReplayOptions, polygon, region, run_replay
    from pipeline.replay.run import start_time as parsed_time

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
    )
    raise typer.Exit(run_replay(paths, out, options))


@app.command(epilog="Example: `dasnet predict photo.jpg --out out`")
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures.")],
    out: OutOption,
    checkpoint: CheckpointOption = None,
    threshold: ThresholdOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    band: Annotated[str, typer.Option(help="visible, infrared, or auto.")] = "auto",
) -> None:
    """Segment pictures: a mask, an overlay and the boxes for each."""
    from pipeline.replay.predict import run_predict

    raise typer.Exit(run_predict(images, out, checkpoint, threshold, device, engine, band))


@app.command(epilog="Example: `dasnet status site.yaml`")
def status(config: ConfigArgument, host: HostOption = None) -> None:
    """How the cameras of a site fare: a live table, or one reading elsewhere; exit code 0 if all are searched."""
    from pipeline.config.file import load
    from pipeline.diagnostics.status import show

    raise typer.Exit(show(load(config).at(host)))


@app.command(epilog="Example: `dasnet doctor`")
def doctor() -> None:
    """What is installed, and what this machine offers: devices, processor, codecs, memory, disk, clock, limits."""
    from pipeline.diagnostics.doctor import examine

    report, healthy = examine(Path.cwd())
    print(report)
    raise typer.Exit(0 if healthy else 1)


@app.command(epilog="Example: `dasnet support-bundle --out support.zip site.yaml`")
def support_bundle(
    config: ConfigArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The zip file.")],
) -> None:
    """All that helps to find a fault, without secrets and pictures, in one file to pass on."""
    from pipeline.config.file import load
    from pipeline.diagnostics.support_bundle import write

    print(write(config, load(config), out))


@app.command(epilog="Example: `dasnet models`")
def models(
    measure: Annotated[
        bool, typer.Option("--measure", help="Time each on this processor too; up to a minute.")
    ] = False,
) -> None:
    """The eight networks side by side: parameters, GFLOP, and the paper's figures."""
    from model.summary import summarise_networks, table

    print(table(summarise_networks(measure)))


@app.command(epilog="Example: `dasnet label tests/data --out labelled --stride 10`")
def label(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A labelled data set, or scene:count=500,seed=1.")],
    out: OutOption,
    classes: Annotated[
        bool, typer.Option("--classes", help="Label maps too: 1 uav, 2 bird, 3 airplane, 4 helicopter.")
    ] = False,
    stride: Annotated[int, typer.Option(min=1, help="Take every n-th frame.")] = 1,
) -> None:
    """Turn boxes into masks to train on, with a contact sheet to look at."""
    from training.label import run_label

    raise typer.Exit(run_label(path, out, classes, stride))


@app.command(epilog="Example: `dasnet train configs/training/dasnet.yaml --out out/dasnet --set data=FOLDER`")
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A training YAML file, ours or the original's.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Of the run; default: .cache/runs/NAME, by CONFIG.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the state in DIR.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. optimizer.lr=0.001.")
    ] = None,
) -> None:
    """Train one of the eight networks; stopped at any time, it goes on with --resume."""
    from training.train import run_training

    raise typer.Exit(run_training(config, out, resume, changes or []))


@app.command(epilog="Example: `dasnet worker capture site.yaml --camera north`")
def worker(
    role: Annotated[str, typer.Argument(help="capture, segmentation, tracking, console.")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The site's YAML file; -: from the supervisor.")],
    camera: Annotated[str | None, typer.Option(help="Which camera, for capture.")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve its own metrics there; `run` serves those of all."),
    ] = None,
) -> None:
    """Run one worker; `dasnet run` starts them all."""
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
        structlog.get_logger().error("worker cannot go on", reason=str(error))
        raise typer.Exit(error.exit_code) from None


def _run_worker(
    role: str, control: "Control", camera: str | None, stop: "threading.Event", served: "Address | None"
) -> None:
    if role == "capture":
        from pipeline.capture.worker import run as run_capture

        if camera is None:
            raise ConfigError("worker capture needs --camera ID")
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
        raise ConfigError(f"worker {role!r}; allowed: capture, segmentation, tracking, console")


@app.command(epilog="Example: `dasnet password console.password`")
def password(file: Annotated[Path, typer.Argument(metavar="FILE", help="Is written; only you can read it.")]) -> None:
    """Make the password file of the console: asks twice, or reads one line that is piped in."""
    from pipeline.console.password import ask, write_password_file

    write_password_file(file, ask())
    print(f"{file}: written; name it in the configuration as console.password_file")


@app.command(epilog="Example: `dasnet keys keys edge1 edge2`")
def keys(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of the keys; made if needed.")],
    hosts: Annotated[list[str], typer.Argument(metavar="HOST...", help="Hosts, as the cameras name them.")],
) -> None:
    """Make the keys with which cameras on other hosts reach the one that searches; existing ones are kept."""
    from pipeline.transport.keys import SERVER, make_keys

    made = make_keys(folder, hosts)
    for path in made:
        print(f"{path}: made")
    print(
        f"the searching host needs {folder}/{SERVER}.key_secret and {folder}/hosts/*.key; "
        f"each other host {folder}/{SERVER}.key and its own {folder}/hosts/NAME.key_secret"
    )


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command(epilog="Example: `dasnet export model/weights/dasnet.safetensors --out dasnet.onnx`")
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint of dasnet or the original.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="An .onnx file, or a .plan (TensorRT: experimental).")
    ],
    opset: Annotated[int, typer.Option(help="ONNX operator set, 18 to 23; 18 is read by the most runtimes.")] = 18,
    fold: Annotated[bool, typer.Option("--fold/--no-fold", help="The last two convolutions as one, exactly.")] = True,
) -> None:
    """Write a checkpoint as ONNX or as a TensorRT plan, checked against the network."""
    from model.export.onnx import run_export
    from pipeline.checkpoints import checkpoint_path

    run_export(checkpoint_path(checkpoint), out, opset, fold)


@app.command(epilog="Example: `dasnet bench --sizes 256x256,512x512 --json bench.json --plot bench.png`")
def bench(
    checkpoint: CheckpointOption = None,
    sizes: Annotated[str, typer.Option(help="HEIGHTxWIDTH, multiples of 32.")] = "256x256,512x512",
    batches: Annotated[str, typer.Option(help="Frames in a batch.")] = "1,4",
    precisions: Annotated[str, typer.Option(help="Of fp32, bf16, fp16.")] = "fp32,bf16,fp16",
    threads: Annotated[str | None, typer.Option(help="Of the processor; default: every usable core.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed forwards of each candidate.")] = 10,
    frames: Annotated[Path | None, typer.Option(help="Recordings for masks; default: tests/data/clips.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Write a PNG; needs matplotlib.")] = None,
    compile_too: Annotated[bool, typer.Option("--compile", help="torch.compile too: minutes a shape.")] = False,
) -> None:
    """Compare the engines on this machine: speed and exactness, candidates in turn."""
    from pipeline.bench.run import BenchOptions, run_bench

    options = BenchOptions(sizes, batches, precisions, threads, rounds, frames, json, plot, compile_too)
    raise typer.Exit(run_bench(checkpoint, options))


@app.command(epilog="Example: `dasnet evaluate --checkpoint best.pth --data FOLDER --split test --json best.json`")
def evaluate(
    data: Annotated[str, typer.Option(metavar="FOLDER", envvar="DASNET_CLIPS", help="The labelled data.")],
    checkpoint: CheckpointOption = None,
    split: Annotated[str, typer.Option(help="Of the data.")] = "val",
    every: Annotated[int, typer.Option(min=1, help="Take every n-th frame of a recording.")] = 1,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="For `compare`: evaluation.json, sample masks, plots.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The network that the checkpoint must be of.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the training, where the checkpoint does not say.")] = None,
    device: DeviceOption = "auto",
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Time a frame too.")] = True,
) -> None:
    """Precision, recall, Dice and IoU of a checkpoint's masks, by target size and band; speed."""
    from pipeline.checkpoints import checkpoint_path
    from training.evaluation.evaluate import EvaluateOptions, run_evaluate

    run_evaluate(
        EvaluateOptions(checkpoint_path(checkpoint), data, split, every, json, out, model, seed, device, timing)
    )


@app.command(epilog="Example: `dasnet evaluate-clips hard --data FOLDER --json clips.json`")
def evaluate_clips(
    split: Annotated[str, typer.Argument(metavar="SET", help="Split of the data: train, val, hard, test or all.")],
    data: Annotated[Path, typer.Option(metavar="FOLDER", envvar="DASNET_CLIPS", help="The labelled clips.")],
    checkpoint: CheckpointOption = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where replays are stored.")] = Path(
        "out/evaluation"
    ),
    engine: EngineOption = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Evaluate 16 fixed clips only.")] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all metrics.")] = None,
) -> None:
    """Track metrics of labelled clips, replayed through the whole pipeline: recall, false tracks, delay."""
    from training.evaluation.clips import ClipEvaluationOptions, run_evaluate_clips

    run_evaluate_clips(ClipEvaluationOptions(split, data, checkpoint, out, engine, quick, json))


@app.command(epilog="Example: `dasnet compare out/*-42 out/*-2024 out/*-8888 --out out/comparison`")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Folders or JSON files of `evaluate`.")],
    out: OutOption,
    reference: Annotated[
        str | None, typer.Option(help="What is tested against; default: dasnet, or the first.")
    ] = None,
) -> None:
    """Several networks, each trained with several seeds: means, deviations, paired tests, effect sizes, figures."""
    from training.evaluation.compare import run_compare

    run_compare(runs, out, reference)


if __name__ == "__main__":
    main()
