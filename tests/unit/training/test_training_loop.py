"""The loop: all eight networks, exact resumption, when it stops, and several processes."""

import contextlib
import csv
import gzip
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from support.program import REPOSITORY

from model import build
from model.checkpoint import load, save
from model.metadata import Metadata
from model.registry import NETWORKS
from pipeline.errors import ConfigError
from training import train as loop
from training.config import TrainingConfig, load_config, parse_config, snapshot
from training.state import start_run
from training.train import train

SIDE_PX = 64
FRAMES = 6  # of each clip
SMALL = {"start_out_channels": 8, "size": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips to train on and one to validate with: a bright spot drifts over noise."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "clips").mkdir()
    described = {}
    for name, split in (("A", "train"), ("B", "train"), ("C", "val")):
        frames = []
        with av.open(str(folder / "clips" / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=30)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 80, "yuv420p", 4_000_000
            for number in range(FRAMES):
                x, y = 20 + 5 * number + ord(name) % 7, 30 + 3 * number
                image = np.random.default_rng((ord(name), number)).normal(90, 3, (80, 96, 3))
                image[y : y + 8, x : x + 10] += 110
                frame = av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
                frames.append([{"id": 0, "class": "drone", "box": [x - 3, y - 3, 16, 14]}])
            container.mux(stream.encode())
        sizes = {"width": 96, "height": 80, "fps": 30.0}
        described[name] = {"sensor": "infrared", "clip_class": "drone", "split": split, **sizes, "frames": frames}
    with gzip.open(folder / "labels.json.gz", "wt") as file:
        json.dump(described, file)
    return folder


@pytest.fixture
def configured(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainingConfig]:
    """A small run on whole frames: 12 to train on, 6 to validate with."""

    def make(**changes: Any) -> TrainingConfig:
        content = {
            "data": str(folder),
            "epochs": 2,
            "batch": 4,
            "network": {"name": "dasnet", **SMALL},
            "sampling": {"kind": "whole", "size_px": SIDE_PX},
            "optimizer": {"lr": 3e-3},
            "threads": 1,
            "cache": str(folder / "cache"),
        }
        return parse_config({**content, **changes})

    return make


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same(left: torch.nn.Module, right: torch.nn.Module) -> None:
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right.state_dict()[name]), name


def stop_at(step: int, config: TrainingConfig, folder: Path) -> None:
    """Ended by SIGTERM after a step, as a service manager would."""
    original = loop.train_step

    def step_then_stop(run: Any, *others: Any) -> Any:
        loss = original(run, *others)
        if run.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", step_then_stop)
        assert train(config, folder, resume=False).step == step


# --- runs ---


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "dasnet")) for name in sorted(NETWORKS)]
)
def test_every_network_trains_and_is_rebuilt_from_its_checkpoint(
    name: str, configured: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    ours = name in ("dasnet", "fulldyunet", "thindyunet", "deepsupdyunet")
    side_px = SIDE_PX if ours else 128
    config = configured(
        steps=2,
        epochs=0,
        batch=2,
        network={"name": name, **(SMALL if ours else {})},
        sampling={"kind": "whole", "size_px": side_px},
        max_check_samples=2,
    )
    run = train(config, tmp_path / "run", resume=False)
    (row,) = rows(tmp_path / "run")
    assert math.isfinite(float(row["loss"])) and 0 <= float(row["val_iou"]) <= 1
    assert (row["auxiliary"] != "") == (name in ("dasnet", "deepsupdyunet"))
    loaded = load(tmp_path / "run" / "best_loss.safetensors")
    assert loaded.metadata.network == name and loaded.metadata.classes == ("uav",)
    assert (loaded.metadata.preprocessing.mode, loaded.metadata.preprocessing.size) == ("stretch", side_px)
    image = torch.rand(1, 3, side_px, side_px)
    with torch.inference_mode():
        assert torch.equal(loaded.network(image), run.average(image))
    fresh = build(**config.network).state_dict()
    assert any(not torch.equal(tensor, fresh[key]) for key, tensor in run.network.state_dict().items())


def test_a_run_says_what_it_reads_how_long_it_takes_and_which_file_is_best(
    configured: Callable[..., TrainingConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(steps=4, epochs=0, check_every_steps=2)
    train(config, tmp_path / "run", resume=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"reading {config.data}"
    assert re.search(r"^step 2/4 loss .*, \d:\d\d:\d\d left$", "\n".join(lines), re.MULTILINE)
    found = re.fullmatch(rf"best checkpoint: {tmp_path}/run/best_iou.safetensors \(val_iou (\d\.\d{{4}})\)", lines[-1])
    assert lines[-2] == "done" and found
    assert float(found[1]) == pytest.approx(max(float(row["val_iou"]) for row in rows(tmp_path / "run")), abs=1e-4)


def test_each_check_leaves_an_image_of_what_is_predicted(
    configured: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    train(configured(steps=4, epochs=0, check_every_steps=2), tmp_path / "run", resume=False)
    images = sorted((tmp_path / "run" / "predictions").iterdir())
    assert [path.name for path in images] == ["step_0000002.png", "step_0000004.png"]
    first, last = (np.asarray(cv2.imread(str(path)), np.float32) for path in images)
    assert first.shape == last.shape == (6 * (192 + 18), 3 * 192, 3)
    labelled, found = slice(192, 384), slice(384, None)
    assert np.array_equal(first[:, labelled], last[:, labelled]) and set(np.unique(first[18:210, labelled])) == {0, 255}
    assert not np.array_equal(first[:, found], last[:, found])
    spot = first[18:210, labelled].max(axis=2) > 0  # the frame shows a bright spot where the label is
    assert first[18:210, :192][spot].mean() > first[18:210, :192][~spot].mean() + 40


def test_a_run_learns_and_keeps_its_best(configured: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    config = configured(epochs=16, output_bias=-2.0, loss="compound")
    train(config, tmp_path / "run", resume=False)
    checks = [row for row in rows(tmp_path / "run") if row["val_loss"]]
    assert [float(row["epoch"]) for row in checks] == list(range(1, 17))
    losses, ious = ([float(row[key]) for row in checks] for key in ("val_loss", "val_iou"))
    assert losses[-1] < 0.7 * losses[0] and max(ious) > 0.3
    best_loss, best_iou, last = (
        load(tmp_path / "run" / f"{name}.safetensors").metadata.training for name in ("best_loss", "best_iou", "ema")
    )
    assert best_loss["check"]["val_loss"] == pytest.approx(min(losses), rel=1e-4)
    assert best_iou["check"]["val_iou"] == pytest.approx(max(ious), rel=1e-4)
    assert last["step"] == 16 * 3 and last["config"]["data"] == "clips0"
    assert load_config(tmp_path / "run" / "config.yaml") == config


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"kind": "sgd", "lr": 0.1}, "schedule": {"kind": "cosine", "warmup_steps": 2}, "ema": 0.9},
        {
            "network": {"name": "deepsupdyunet", **SMALL},  # has running statistics
            "optimizer": {"kind": "adam", "lr": 1e-2},
            "schedule": {"kind": "plateau", "patience": 0, "cooldown": 1},
            "early_stopping": {"patience": 50},
            "loss": "bce",
            "precision": "bf16",
        },
        pytest.param(
            {"network": {"name": "pspnet"}, "batch": 3, "clip_norm": 1.0, "max_check_samples": 2},  # has dropout
            marks=pytest.mark.slow,
        ),
    ],
    ids=["dasnet", "deepsupdyunet", "pspnet"],
)
def test_a_resumed_run_equals_a_straight_one(
    changes: dict[str, Any], configured: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    config = configured(steps=8, epochs=0, check_every_steps=2, **changes)
    straight = train(config, tmp_path / "straight", resume=False)
    stop_at(5, config, tmp_path / "halves")
    resumed = train(config, tmp_path / "halves", resume=True)
    assert_same(straight.network, resumed.network)
    assert_same(straight.average, resumed.average)
    assert straight.progress == resumed.progress
    assert straight.learning_rate.value == resumed.learning_rate.value
    figures = [[(row["step"], row["val_loss"]) for row in rows(tmp_path / name)] for name in ("straight", "halves")]
    assert set(figures[0]) <= set(figures[1])


def test_the_weights_alone_start_another_run(configured: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    path = tmp_path / "first.safetensors"
    first = build("dasnet", **SMALL)
    save(path, first, Metadata(arguments=SMALL))
    run = start_run(configured(start_from=str(path)))
    assert_same(first, run.network)
    assert not run.optimizer.state_dict()["state"]
    with pytest.raises(ConfigError, match=r"start_from = .*first.safetensors': holds .*must be the weights of"):
        start_run(configured(start_from=str(path), network={"name": "thindyunet", **SMALL}))


def test_a_plateau_lowers_the_rate_and_then_the_run_stops(
    configured: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    config = configured(
        epochs=30,
        optimizer={"kind": "sgd", "lr": 1e-6, "momentum": 0.0},  # learns nothing
        schedule={"kind": "plateau", "patience": 1, "cooldown": 0},
        early_stopping={"patience": 4},
    )
    run = train(config, tmp_path / "run", resume=False)
    assert run.step == 5 * 3  # the first check, and four that are no better
    assert run.learning_rate.value == pytest.approx(0.25e-6)
    assert train(config, tmp_path / "run", resume=True).step == run.step  # it stays stopped


def test_a_new_run_does_not_replace_another(configured: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    config = configured(epochs=1)
    train(config, tmp_path / "run", resume=False)
    with pytest.raises(ConfigError, match=r"run: holds the state of a run; expected another folder, or --resume"):
        train(config, tmp_path / "run", resume=False)
    with pytest.raises(ConfigError, match=r"--resume: optimizer.kind = 'sgd'; must be that of .*'adamw'"):
        train(configured(epochs=1, optimizer={"kind": "sgd"}), tmp_path / "run", resume=True)


def test_tensorboard_and_the_table_say_the_same(configured: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(configured(tensorboard=True), tmp_path / "run", resume=False)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    table = {int(row["step"]): float(row["val_iou"]) for row in rows(tmp_path / "run") if row["val_iou"]}
    assert {item.step: item.value for item in events.Scalars("val_iou")} == pytest.approx(table, rel=1e-4)


def test_rows_of_steps_that_are_taken_again_are_forgotten(
    configured: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    config = configured(epochs=0, steps=20, check_every_steps=10, save_every_steps=100)
    train(config, tmp_path / "run", resume=False)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    torch.save(state | {"step": 12}, tmp_path / "run" / "state.pt")  # as if killed while the last row was written
    train(config, tmp_path / "run", resume=True)
    assert [row["step"] for row in rows(tmp_path / "run")] == ["10", "20"]


@pytest.mark.gpu
def test_half_precision_trains_on_a_gpu_and_goes_on(configured: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    config = configured(precision="fp16", device="cuda", clip_norm=1.0, output_bias=-2.0, epochs=4)
    stop_at(5, config, tmp_path / "run")
    run = train(config, tmp_path / "run", resume=True)
    assert run.step == 12 and run.scaler.get_scale() > 0
    assert all(torch.isfinite(parameter).all() for parameter in run.network.parameters())


@contextlib.contextmanager
def long_run(config: TrainingConfig, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """As in a terminal, after its first steps; a process of its own makes its samples."""
    folder.mkdir()
    endless = {"epochs": 0, "steps": 100_000, "workers": 1, "save_every_steps": 1, "check_every_steps": 100_000}
    (folder / "run.yaml").write_text(snapshot(config.model_copy(update=endless)))
    command = [sys.executable, "-m", "training.train", str(folder / "run.yaml"), "--out", str(folder / "run")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            assert process.stdout is not None
            next(line for line in process.stdout if line.startswith("step "))
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_killed_it_leaves_no_process(configured: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    with long_run(configured(), tmp_path / "killed") as process:
        process.kill()
        assert process.stdout is not None
        process.stdout.read()  # ends when the last process has that could write to it


def test_ctrl_c_in_a_terminal_saves_the_state(configured: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    with long_run(configured(), tmp_path / "stopped") as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout is not None
        told = process.stdout.read()
        assert process.wait(60) == 0
    assert "continue with --resume" in told
    assert torch.load(tmp_path / "stopped" / "run" / "state.pt", weights_only=True)["step"] > 0
