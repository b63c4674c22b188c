"""`dasnet train --ray`: the course of one process in several, and sweeps whose laggards are stopped."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.events import until
from support.program import DASNET, dasnet_in_process, die_with_parent
from support.ray_cluster import node, ray_cluster
from support.tiny_recipe import STEPS, tiny_recipe

from pipeline.errors import ConfigError
from training.config import parse_config, snapshot
from training.run import training_command
from training.sweep import Sweep, changes_of, check_space, load_sweep
from training.train import train

SPACE = {"optimizer.lr": {"log": [1e-9, 0.1]}, "optimizer.momentum": {"choice": [0.0, 0.9]}}


def configuration(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(snapshot(parse_config(tiny_recipe(folder) | changes)))
    return path


def sweep_file(folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"space": SPACE, "grace_steps": 3, "trials": 4, "reduction": 2} | changes))
    return path


def started(*arguments: object) -> "subprocess.Popen[str]":
    command = [*DASNET, "train", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", preexec_fn=die_with_parent
    )


def finished(*arguments: object, timeout_s: float = 400) -> tuple[int, str]:
    process = started(*arguments)
    text, _ = process.communicate(timeout=timeout_s)
    return process.returncode, text


def course(folder: Path) -> list[list[float]]:
    with (folder / "log.csv").open(newline="") as file:
        return [[float(row["step"]), float(row["loss"])] for row in csv.DictReader(file)]


def weights(folder: Path) -> torch.Tensor:
    state = torch.load(folder / "state.pt", weights_only=True)["network"]
    return torch.cat([tensor.double().flatten() for tensor in state.values() if tensor.is_floating_point()])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    with ray_cluster() as cluster:
        cluster.add_node(**node(num_cpus=2))
        yield cluster


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_take_the_course_of_one_also_after_one_was_killed(cluster: Any, tmp_path: Path):
    path = configuration(tmp_path)
    one = train(parse_config(yaml.safe_load(path.read_text()) | {"batch": 4}), tmp_path / "one", resume=False)
    assert one.step == STEPS
    arguments = (path, "--out", tmp_path / "two", "--ray", cluster.address, "--processes", "2")
    process = started(*arguments, "--set", "steps=200", "--set", "save_every_steps=5")
    try:
        until(lambda: steps_of(tmp_path / "two") >= 20, 200)
        os.kill(one_of_two(), signal.SIGKILL)
        text = process.communicate(timeout=400)[0]
    finally:
        process.kill()
    assert process.returncode == 0 and text.count("\nstep 20 ") <= 2, text
    assert [step for step, _ in course(tmp_path / "two")] == [
        step for step in range(1, 201) if step % 3 == 0 or step % 10 == 0
    ]
    code, text = finished(*arguments)
    assert code == 2 and "holds the state of a run; expected another folder, or --resume" in text
    code, text = finished(path, "--out", tmp_path / "short", "--ray", cluster.address, "--processes", "2")
    assert code == 0, text
    assert course(tmp_path / "short") == [pytest.approx(row, rel=1e-3, abs=1e-5) for row in course(tmp_path / "one")]
    far = (weights(tmp_path / "short") - weights(tmp_path / "one")).norm() / weights(tmp_path / "one").norm()
    assert far < 1e-3


def steps_of(folder: Path) -> float:
    return course(folder)[-1][0] if (folder / "log.csv").exists() and course(folder) else 0


def one_of_two() -> int:
    """A process of the run."""
    found = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and b"RayTrainWorker" in command_of(entry)
    ]
    assert len(found) == 2, found
    return max(found)


def command_of(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_stops_what_lags_behind_and_says_what_was_best(cluster: Any, tmp_path: Path):
    path = configuration(tmp_path, steps=24)
    out = tmp_path / "sweep"
    arguments = (path, "--out", out, "--ray", cluster.address, "--sweep", sweep_file(tmp_path, trials=6))
    code, text = finished(*arguments)
    assert code == 0, text
    with (out / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and not any(row["error"] for row in rows)
    losses = [float(row["val_loss"]) for row in rows]
    assert losses == sorted(losses)
    steps = [int(row["step"]) for row in rows]
    assert max(steps) == 24 and min(steps) < 24, "some were stopped"
    assert f"best of 6: trial {rows[0]['trial']}" in text
    change = f"optimizer.lr={json.dumps(float(rows[0]['optimizer.lr']))}"
    assert f"--set {change}" in text
    assert sorted(folder.name for folder in (out / "trials").iterdir()) == sorted(row["trial"] for row in rows)
    code, text = finished(*arguments)
    assert code == 2 and "holds a sweep; expected another folder, or --resume" in text
    code, text = finished(*arguments, "--resume")
    assert code == 0 and f"best of 6: trial {rows[0]['trial']}" in text, text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_cannot_be_trained_is_said(cluster: Any, tmp_path: Path):
    path = configuration(tmp_path)
    where = ("--ray", cluster.address, "--out", tmp_path / "out")
    code, text = finished(path, *where, "--processes", "3")
    assert code == 2 and "--processes 3: must be at most 2, the CPUs there" in text, text
    code, text = finished(path, *where, "--set", f"data={tmp_path}/nowhere")
    assert code == 1 and f"{tmp_path}/nowhere" in text.splitlines()[-1], text
    bad = sweep_file(tmp_path, metric="val_accuracy")
    code, text = finished(path, *where, "--sweep", bad)
    assert code == 2 and "metric = 'val_accuracy'; must be one of val_loss, val_iou" in text, text


def test_trials_are_changes_of_the_configuration(tmp_path: Path):
    sweep = load_sweep(sweep_file(tmp_path))
    assert sweep.space["optimizer.momentum"].choice == [0.0, 0.9] and sweep.metric == "val_loss"
    rates = [config.optimizer.lr for config in check_space(sweep, configuration(tmp_path), [])]
    assert rates == [1e-9, 0.1, 0.05, 0.05]
    assert changes_of({"optimizer.lr": 1e-9, "clips": ["a"]}) == ["optimizer.lr=1e-09", 'clips=["a"]']


def test_the_best_trial_s_command_is_one_for_a_shell():
    command = training_command(Path("recipe.yaml"), changes_of({"optimizer.lr": 0.1, "clips": ["a", "b"]}))
    assert command == """dasnet train recipe.yaml --set optimizer.lr=0.1 --set 'clips=["a", "b"]'"""


@pytest.mark.parametrize(
    ("space", "fault"),
    [
        ({"optimizer.lr": {"log": [0.1, 0.01]}}, "log = [0.1, 0.01]; must be two numbers that rise"),
        ({"optimizer.lr": {"log": [0, 0.01]}}, "above 0 for log"),
        ({"optimizer.lr": {}}, "has nothing; must have one of uniform, log, choice"),
        ({"optimizer.lr": {"uniform": [0, 1], "choice": [1]}}, "has uniform, choice; must have one of"),
        ({"optimizer.lr": {"normal": [0, 1]}}, "unknown key"),
        ({}, "must have at least 1 entry"),
    ],
)
def test_a_wrong_space_is_told(space: dict[str, Any], fault: str, tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load_sweep(sweep_file(tmp_path, space=space))
    assert fault in str(caught.value), str(caught.value)


def test_values_that_no_run_accepts_are_told_before_any_runs(tmp_path: Path):
    for key, value, fault in (("optimizer.rate", 1.0, "unknown key"), ("optimizer.lr", -1.0, "must be greater than 0")):
        sweep = Sweep.model_validate({"space": {key: {"choice": [value]}}})
        with pytest.raises(ConfigError, match=rf"space\.{re.escape(key)}: .*{fault}"):
            list(check_space(sweep, configuration(tmp_path), []))


def test_options_that_need_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = configuration(tmp_path)
    ended = dasnet_in_process("train", path, "--sweep", sweep_file(tmp_path))
    assert ended.returncode == 2 and "--sweep: requires --ray" in ended.stderr
    ended = dasnet_in_process("train", path, "--ray", "auto", "--sweep", sweep_file(tmp_path), "--processes", "2")
    assert ended.returncode == 2 and "--processes: must not be set with --sweep" in ended.stderr
    monkeypatch.setitem(sys.modules, "ray", None)
    for sweep in ((), ("--sweep", sweep_file(tmp_path))):
        ended = dasnet_in_process("train", path, "--ray", "auto", "--out", tmp_path / "out", *sweep)
        assert ended.returncode == 2 and 'pip install "dasnet[ray]"' in ended.stderr, ended.stderr
