"""Training of the judge: it learns, resumes exactly, ends in a checkpoint that works, and follows a network's."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from support.program import REPOSITORY

from model.checkpoint import load
from model.engine.engine import Engine
from pipeline.capture.open import open_recording
from pipeline.checkpoints import SHIPPED
from pipeline.errors import ConfigError
from pipeline.segmentation.segmenter import Segmenter
from pipeline.types import Band, Frame, FrameRef
from training.config import TrainingConfig, load_config, parse_config, snapshot
from training.judge import fit as fitting
from training.judge.chip_set import ChipSet, pack
from training.judge.fit import ChipDraw, FitSettings, JudgeRun, fit, rate_factor
from training.judge.metrics import judge_metrics
from training.judge.train import main
from training.train import train

DATA, CPU = REPOSITORY / "tests" / "data", torch.device("cpu")
SHORT = FitSettings(steps=6, batch=16, save_every_steps=3)


class StopAfter(Event):
    """Is set after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def fitted(
    sets: dict[str, ChipSet], settings: FitSettings, state: Path, stopping: Event | None = None, resume: bool = False
) -> JudgeRun:
    return fit(sets["train"], sets["check"], settings, state, stopping or Event(), CPU, lambda _: None, resume)


@pytest.mark.slow
def test_tens_of_steps_separate_targets_from_clutter(chip_sets: dict[str, ChipSet], tmp_path: Path) -> None:
    run = fitted(chip_sets, FitSettings(steps=40, batch=24, lr=4e-3, seed=3), tmp_path / "state.pt")
    figures = judge_metrics(run.average, chip_sets["check"], CPU)  # a helicopter, which training has not seen
    assert run.step == 40 and figures["auc_motion"] > 0.65 and figures["auc_static"] > 0.65, figures
    assert judge_metrics(run.average, chip_sets["train"], CPU)["auc_motion"] > 0.7


def test_a_resumed_run_equals_an_uninterrupted_one(chip_sets: dict[str, ChipSet], tmp_path: Path) -> None:
    straight = fitted(chip_sets, SHORT, tmp_path / "straight.pt")
    half = fitted(chip_sets, SHORT, tmp_path / "state.pt", StopAfter(4))
    assert half.step == 4
    resumed = fitted(chip_sets, SHORT, tmp_path / "state.pt", resume=True)
    for one, other in ((straight.network, resumed.network), (straight.average, resumed.average)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    assert any(
        not torch.equal(tensor, straight.network.state_dict()[name])
        for name, tensor in half.network.state_dict().items()
    )


def test_a_state_is_neither_overwritten_nor_mistaken(chip_sets: dict[str, ChipSet], tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    with pytest.raises(ConfigError, match=rf"--resume: {state} is missing; expected the state of an earlier run"):
        fitted(chip_sets, SHORT, state, resume=True)
    fitted(chip_sets, FitSettings(steps=1, batch=4), state)
    with pytest.raises(ConfigError, match=rf"{state}: holds the state of a run; expected no such file, or --resume"):
        fitted(chip_sets, SHORT, state)
    with pytest.raises(ConfigError, match=rf"--resume: batch = 16; must be that of {state}, 4"):
        fitted(chip_sets, SHORT, state, resume=True)


def test_classes_are_drawn_by_their_shares_and_long_recordings_less_than_their_length(
    chip_sets: dict[str, ChipSet],
) -> None:
    train = chip_sets["train"]
    drawn, beside = ChipDraw(train, 1).batch(0, 20000)
    shares = np.bincount(np.minimum(train.kinds[drawn], 4), minlength=5) / len(drawn)
    np.testing.assert_allclose(shares, np.array([0.30, 0.16, 0.10, 0.0, 0.34]) / 0.9, atol=0.02)  # no helicopter
    assert not train.is_target[beside].any()
    assert np.array_equal(ChipDraw(train, 1).batch(7, 9)[0], ChipDraw(train, 1).batch(7, 9)[0])


def test_a_run_by_minutes_ends_and_its_rate_falls(chip_sets: dict[str, ChipSet], tmp_path: Path) -> None:
    run = fitted(chip_sets, FitSettings(minutes=0.01, batch=4), tmp_path / "state.pt")
    assert run.step > 0 and run.elapsed_s >= 0.6
    assert [rate_factor(step, done) for step, done in ((0, 0), (500, 0.4), (500, 0.7), (500, 1))] == [
        pytest.approx(value) for value in (0.01, 1, 0.5, 0.01)
    ]


# --- from the command line to a checkpoint in use ---


def command(out: Path, cache: Path, *options: str) -> list[str]:
    return [str(SHIPPED), "--data", str(DATA), "--out", str(out), "--cache", str(cache), "--batch", "8", *options]


@pytest.mark.slow
def test_the_command_is_stopped_resumed_and_writes_a_checkpoint_that_works(
    chip_sets: dict[str, ChipSet], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step_then_stop(run: JudgeRun, *others: Any) -> float:
        loss = original(run, *others)
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    original, out = fitting.train_step, tmp_path / "judged.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "train_step", step_then_stop)
        assert main(command(out, cache, "--steps", "4")) == 0
    assert not out.exists() and (tmp_path / "judged.state.pt").exists()
    assert main(command(out, cache, "--steps", "4", "--resume")) == 0
    made, shipped = load(out), load(SHIPPED)
    assert made.judge is not None and made.metadata.judge is not None
    assert made.metadata.thresholds == shipped.metadata.thresholds
    summary = made.metadata.training["judge"]
    assert summary["step"] == 4 and summary["train"]["clips"] == 5 and "auc_motion" in summary["figures"]
    for name, tensor in shipped.network.state_dict().items():
        torch.testing.assert_close(tensor, made.network.state_dict()[name], rtol=1e-3, atol=1e-4)
    with Engine(made, device="cpu", threads=1) as engine:
        detections = [each for frame in frames(10) for each in one(Segmenter(engine), frame)]
    assert any(len(found) for found in detections)
    assert all((found.novelty > 0).all() and found.class_scores.shape[1] == 4 for found in detections if len(found))


def frames(count: int) -> list[Frame]:
    recording = open_recording(DATA / "clips" / "IR_DRONE_015.mp4")
    try:
        return [
            Frame(FrameRef("a", "s", frame.number, frame.pts_s, 0, 0), Band.INFRARED, frame.pixels)
            for _, frame in zip(range(count), recording.frames(), strict=False)
        ]
    finally:
        recording.close()


def one(segmenter: Segmenter, frame: Frame) -> list[Any]:
    return segmenter.finish(segmenter.submit([frame]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--steps", "0"], "--steps 0; must be above 0"),
        (["--minutes", "-1"], "--minutes -1.0; must be above 0"),
        (["--steps", "3", "--every-s", "0"], "--every-s 0.0; must be above 0"),
        (["--steps", "3", "--data", "no"], "data no: is not a folder; expected"),
    ],
)
def test_wrong_options_are_told(
    options: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path / "a.safetensors", tmp_path, *options)) == 2
    assert expected in capsys.readouterr().err


# --- after a network ---


@pytest.fixture
def recipe(cache: Path) -> TrainingConfig:
    changes = ["steps=2", "batch=1", "network.size=3", "schedule.decay_steps=1", "schedule.warmup_steps=0"]
    changes += [f"data={DATA}", f"cache={cache}", "every_drone_frame=100", "check_every_steps=2"]
    changes += ["clips=[IR_DRONE_015, IR_BIRD_003]", "judge={steps: 2, batch: 4}"]
    return load_config(REPOSITORY / "configs" / "training" / "tiny.yaml", changes)


def test_one_command_learns_network_and_judge_and_resumes_either(recipe: TrainingConfig, tmp_path: Path) -> None:
    train(recipe, tmp_path / "run", resume=False)
    made = load(tmp_path / "run" / "ema.safetensors")
    assert made.judge is not None and made.metadata.training["judge"]["step"] == 2
    assert made.metadata.training["step"] == 2 and made.metadata.training["judge"]["train"]["clips"] == 2
    (tmp_path / "run" / "judge.state.pt").unlink()  # as if stopped before the judge's first step was saved
    train(recipe, tmp_path / "run", resume=True)
    again = load(tmp_path / "run" / "ema.safetensors").judge
    assert again is not None
    for name, tensor in made.judge.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_recipe_is_kept_whole_and_its_faults_are_told_before_training(
    recipe: TrainingConfig, tmp_path: Path
) -> None:
    (tmp_path / "kept.yaml").write_text(snapshot(recipe))
    assert load_config(tmp_path / "kept.yaml") == recipe
    with pytest.raises(ConfigError, match=r"judge.check_splits = \['train'\]; must be others than splits"):
        parse_config({"data": "a", "steps": 1, "judge": {"check_splits": ["train"]}})
    with pytest.raises(ConfigError, match=r"judge.steps = 0; must be greater than 0"):
        parse_config({"data": "a", "steps": 1, "judge": {"steps": 0}})
    stills = recipe.model_copy(update={"data": "scene:count=8,seed=1", "clips": [], "check_clips": []})
    with pytest.raises(ConfigError, match=r"none a labelled video; expected one or more"):
        train(stills, tmp_path / "run", resume=False)
    assert not (tmp_path / "run" / "ema.safetensors").exists()


@pytest.mark.parametrize("wanted", [[9, 4], [4], [0, 4], "all"])
def test_sizes_of_pasted_targets_that_make_no_sense_are_told(wanted: object) -> None:
    sampling = {"kind": "crops", "augmentation": {"pasted_px": wanted}}
    schedule = {"kind": "cosine"}
    with pytest.raises(ConfigError, match=r"sampling.augmentation.pasted_px"):
        parse_config({"data": "a", "steps": 1, "sampling": sampling, "schedule": schedule})


# --- where a GPU is ---

BARE = """
import runpy, sys
for name in ("cv2", "av", "scipy", "safetensors", "pydantic", "yaml", "structlog", "zmq"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_packed_chips_are_trained_on_with_torch_and_numpy_alone(chip_sets: dict[str, ChipSet], tmp_path: Path) -> None:
    pack(tmp_path / "chips.npz", chip_sets, 500_000)
    script, state = REPOSITORY / "scripts" / "train_on_gpu.py", tmp_path / "judge.state.pt"
    options = ["--out", str(state), "--minutes", "0.02", "--batch", "4"]
    arguments = [sys.executable, "-c", BARE, str(script), str(tmp_path / "chips.npz"), *options]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def ran(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*arguments, *more], capture_output=True, text=True, timeout=200, env=environment)

    done = ran("--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert '"calibration_error"' in done.stdout and '"auc_motion"' in done.stdout and state.exists()
    if not torch.cuda.is_available():
        without = ran()
        assert without.returncode == 2 and "no CUDA device here; expected one, or --device cpu" in without.stderr
