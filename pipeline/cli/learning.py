"""Commands for networks: data, training, evaluation, benchmarks, export."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import CheckpointOption, DeviceOption, EngineOption, OutOption, app
from pipeline.config.model import MIN_SHARE
from pipeline.errors import ConfigError


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
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A labelled data set, or scene:count=500,seed=1; or a site's file.")
    ],
    out: OutOption,
    classes: Annotated[
        bool, typer.Option("--classes", help="Also write class maps: 1 uav, 2 bird, 3 airplane, 4 helicopter.")
    ] = False,
    stride: Annotated[int, typer.Option(min=1, help="Label every n-th frame.")] = 1,
    from_store: Annotated[
        bool, typer.Option("--from-store", help="Export a site's alerts with verdicts as labelled clips.")
    ] = False,
) -> None:
    """Generate training masks from bounding boxes, with a contact sheet for review."""
    if from_store:
        from training.verdicts import run_label_from_store

        raise typer.Exit(run_label_from_store(Path(path), out))
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
    ray: Annotated[
        str | None, typer.Option(metavar="auto|HOST:PORT", help="Train on the nodes of a Ray cluster.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes on the cluster; default: one per GPU, else one per node.")
    ] = None,
    sweep: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Try the hyper-parameters of a YAML file on the cluster.")
    ] = None,
) -> None:
    """Train one of the eight networks; a run can be stopped at any time and resumed with --resume."""
    from training.run import RayOptions, run_training

    if ray is None and (processes is not None or sweep is not None):
        raise ConfigError(f"{'--processes' if processes is not None else '--sweep'}: requires --ray")
    if processes is not None and sweep is not None:
        raise ConfigError("--processes: must not be set with --sweep, whose trials are one process each")
    where = RayOptions(ray, processes, sweep) if ray is not None else None
    raise typer.Exit(run_training(config, out, resume, changes or [], where))


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
    share: Annotated[
        float, typer.Option(min=MIN_SHARE, max=1, help="Share of each frame's pixels that the network processes.")
    ] = 1.0,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all metrics.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="auto|HOST:PORT", help="Replay the clips on the nodes of a Ray cluster.")
    ] = None,
) -> None:
    """Track metrics of labelled clips, replayed through the whole pipeline: recall, delay, false tracks; bounds."""
    from training.evaluation.clips import ClipEvaluationOptions, run_evaluate_clips

    options = ClipEvaluationOptions(splits, data, checkpoint, out, engine, quick, ladder, json, share, ray)
    run_evaluate_clips(options)


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
