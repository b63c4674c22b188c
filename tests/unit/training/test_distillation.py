"""Distillation from a wider network: what is learned, what a student takes over, and which teacher is refused."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model import DASNet, build
from model.checkpoint import load, save
from model.judge import Judge
from model.metadata import CLASSES, JudgeConfig, Metadata, Preprocessing, Thresholds
from pipeline.errors import ConfigError
from training.config import CropSampling, TrainingConfig, parse_config
from training.distillation import logit_distance
from training.narrowing import narrow
from training.state import start_run
from training.train import train

WIDE = {"num_class": 4, "start_out_channels": 16, "size": 3}
THRESHOLDS = {"infrared": Thresholds(threshold=0.37), "visible": Thresholds(threshold=0.21)}


def saved_teacher(path: Path, **changes: Any) -> None:
    torch.manual_seed(7)
    about: dict[str, Any] = {
        "arguments": WIDE,
        "classes": CLASSES,
        "preprocessing": CropSampling().preprocessing,
        "judge": JudgeConfig(),
        "thresholds": THRESHOLDS,
    }
    metadata = Metadata(**{**about, **changes})
    network = build("dasnet", **metadata.arguments)
    network.decoder.output.output_block[1].bias.data = torch.tensor([3.0, -3.0, -2.0, -1.0])[: len(metadata.classes)]
    save(path, network, metadata, Judge(5, len(CLASSES)))


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., TrainingConfig]:
    """A small run with the teacher `teacher.safetensors`."""

    def make(**changes: Any) -> TrainingConfig:
        content = {
            "data": "scene:count=12,seed=3",
            "steps": 20,
            "batch": 2,
            "network": {"name": "dasnet", **WIDE, "start_out_channels": 8},
            "sampling": {"kind": "crops", "augmentation": {"crop_px": 128}},
            "loss": "field",
            "optimizer": {"lr": 0.03},
            "schedule": {"kind": "trapezoid", "warmup_steps": 2},
            "ema": 0.5,
            "threads": 1,
            "cache": str(tmp_path / "cache"),
            "check_every_steps": 20,
            "distillation": {"teacher": str(tmp_path / "teacher.safetensors"), "weight": 100},
        }
        return parse_config({**content, **changes})

    return make


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher_and_takes_over_judge_and_thresholds(
    configured: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    saved_teacher(tmp_path / "teacher.safetensors")
    train(configured(), tmp_path / "run", resume=False)
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) and float(rows[0]["distillation"]) > 0
    teacher, student = load(tmp_path / "teacher.safetensors"), load(tmp_path / "run" / "ema.safetensors")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = teacher.network(images)
        begun, learned = (
            logit_distance(one(images), wanted) for one in (start_run(configured()).network.eval(), student.network)
        )
    assert learned < 0.5 * begun
    assert student.metadata.arguments["start_out_channels"] == 8
    assert student.metadata.judge == JudgeConfig() and student.metadata.thresholds == THRESHOLDS
    assert teacher.judge is not None and student.judge is not None
    for name, tensor in teacher.judge.state_dict().items():
        assert torch.equal(tensor, student.judge.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("uav", "bird", "helicopter", "airplane")}, r"its classes are \('uav', 'bird', 'helicopter', "),
        ({"classes": ("uav",), "arguments": {**WIDE, "num_class": 1}}, r"its classes are \('uav',\); must be .*'bird'"),
        ({"preprocessing": Preprocessing()}, r"its preprocessing are Preprocessing\(mode='stretch'.*; must be "),
    ],
)
def test_a_teacher_of_other_outputs_or_inputs_is_refused(
    changes: dict[str, Any], message: str, configured: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    saved_teacher(tmp_path / "teacher.safetensors", **changes)
    with pytest.raises(ConfigError, match=r"distillation.teacher = '.*teacher.safetensors': " + message):
        start_run(configured())


def test_only_where_either_network_sees_a_target_do_logits_count() -> None:
    wanted = torch.full((1, 2, 16, 16), -8.0)
    wanted[0, 1, 4:8, 4:8] = 3.0
    unlike = wanted.clone()
    unlike[0, :, 12:, 12:] = -7.0  # background either way
    missed, invented = wanted.clone(), wanted.clone()
    missed[0, 1, 4:8, 4:8] = -8.0
    invented[0, 0, 12:, 12:] = 3.0
    assert logit_distance(wanted, wanted) == 0
    assert logit_distance(unlike, wanted) < 0.02
    assert logit_distance(missed, wanted) > 1 and logit_distance(invented, wanted) > 1


def doubled(network: DASNet) -> DASNet:
    """Return a network of twice the channels and the same output: each has a weaker twin, which nothing reads."""
    wide = build("dasnet", **WIDE)
    state = wide.state_dict()
    for name, tensor in network.state_dict().items():
        result = torch.zeros_like(state[name])
        places = [
            torch.arange(size) * (2 if large == 2 * size else 1)
            for size, large in zip(tensor.shape, result.shape, strict=True)
        ]
        result[torch.meshgrid(*places, indexing="ij")] = tensor
        if name.endswith(".weights"):  # (kernels, outputs, inputs, 3, 3)
            result[:, 1::2] = result[:, ::2]
        elif ".gn." in name:
            result[1::2] = 0.9 * result[::2]
        state[name] = result
    wide.load_state_dict(state)
    assert isinstance(wide, DASNet)
    return wide.eval()


def test_the_strongest_channels_of_a_wider_network_are_kept(tmp_path: Path) -> None:
    torch.manual_seed(5)
    network, fresh = (build("dasnet", **{**WIDE, "start_out_channels": 8}).eval() for _ in range(2))
    assert isinstance(network, DASNet) and isinstance(fresh, DASNet)
    for name, parameter in network.named_parameters():
        if ".gn." in name:
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.3)
    wide, images = doubled(network), torch.rand(2, 3, 32, 48)
    narrow(fresh, wide)
    with torch.no_grad():
        torch.testing.assert_close(wide(images), network(images))
        torch.testing.assert_close(fresh(images), network(images))
    for mine, theirs in zip(fresh.train()(images)[1], network.train()(images)[1], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_run_starts_from_a_wider_network_and_not_from_a_deeper_one(
    configured: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    wide = build("dasnet", **WIDE)
    save(tmp_path / "wide.safetensors", wide, Metadata(arguments=WIDE, classes=CLASSES))
    network = start_run(configured(distillation=None, start_from=str(tmp_path / "wide.safetensors"))).network
    expected = build("dasnet", **{**WIDE, "start_out_channels": 8})
    assert isinstance(wide, DASNet) and isinstance(expected, DASNet)
    narrow(expected, wide)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    deeper = {**WIDE, "size": 4, "start_out_channels": 8}
    with pytest.raises(ConfigError, match="must be the weights of"):
        start_run(
            configured(
                distillation=None,
                start_from=str(tmp_path / "wide.safetensors"),
                network={"name": "dasnet", **deeper},
            )
        )
