"""The judge: normalisation, its network in use, and checkpoints whose judge is damaged."""

import json
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.native import needs_native

from model import build, load
from model.checkpoint import save
from model.engine.engine import Engine
from model.errors import CheckpointError
from model.judge import FusedJudge, Judge, normalised, normalised_by_table
from model.metadata import METADATA_KEY, Fusion, JudgeConfig, Metadata

NETWORK = {"num_class": 2, "start_out_channels": 8, "size": 3}
HOW = JudgeConfig(fusion=Fusion(bias=-1.0, mask_log_odds=0.5))


def chips(count: int, seed: int = 0) -> np.ndarray:
    """Skies of different noise with a spot that moves, and one that is plain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, :48]
    made = rng.integers(20, 200, (count, 1, 1, 1)) + rng.normal(0, 1, (count, 5, 48, 48)) * rng.uniform(
        0, 9, (count, 1, 1, 1)
    )
    for frame in range(5):
        made[:, frame] += rng.uniform(-90, 90, (count, 1, 1)) * (np.hypot(rows - 24, columns - 24 + 3 * frame) < 4)
    made[0] = 77
    return made.clip(0, 255).astype(np.uint8)


def trained_a_little() -> Judge:
    """A copy of its own for each caller."""
    return deepcopy(_trained_a_little())


@cache
def _trained_a_little() -> Judge:
    torch.manual_seed(0)
    judge = Judge(5, 4)
    for seed in range(20):
        judge(normalised(torch.from_numpy(chips(16, seed)).float()))  # moves the running statistics
    generator = torch.Generator().manual_seed(1)
    judge.get_buffer("target_scale").copy_(torch.tensor([1.5, -0.5]))
    judge.get_buffer("class_scale").fill_(0.7)
    judge.get_buffer("means").copy_(torch.rand(4, 256, generator=generator))
    judge.get_buffer("whitening").copy_(torch.eye(256) * 0.1)
    return judge.eval()


def test_the_table_normalises_as_the_formula_does() -> None:
    made = chips(30)
    np.testing.assert_allclose(
        normalised_by_table(made), normalised(torch.from_numpy(made).float()).numpy(), rtol=0, atol=1e-6
    )


def test_neither_offset_nor_polarity_changes_more_than_the_sign() -> None:
    made = chips(30)[:, :, ::2] // 4 + 60
    plain = normalised_by_table(made)
    np.testing.assert_array_equal(normalised_by_table(made + np.uint8(30)), plain)
    np.testing.assert_allclose(np.abs(normalised_by_table(255 - made)), np.abs(plain), atol=0.15)  # another median


def test_gain_changes_little_where_there_is_more_than_noise() -> None:
    """The floor of the deviation is what stays of it."""
    rng = np.random.default_rng(2)
    textured = rng.normal(60, 12, (10, 5, 48, 48)).clip(0, 120).astype(np.uint8)
    strong, weak = normalised_by_table(2 * textured), normalised_by_table(textured)
    assert np.abs(strong - weak).max() < 0.3 and np.corrcoef(strong.ravel(), weak.ravel())[0, 1] > 0.999
    faint = normalised_by_table((60 + (textured > 60)).astype(np.uint8))  # a grey level of noise, and nothing else
    assert np.abs(faint).max() < 0.25


def test_extreme_chips_are_finite_and_judged_alone_as_in_a_batch() -> None:
    made = chips(6)
    made[0], made[1], made[2, 1:], made[3, 0, ::2] = 0, 255, 0, 255
    judge = FusedJudge(trained_a_little(), torch.float32)
    whole = judge(made)
    for name in ("target_log_odds", "class_scores", "novelty"):
        values = getattr(whole, name)
        assert np.isfinite(values).all() and values.dtype == np.float32
        alone = np.concatenate([getattr(judge(chip[None]), name) for chip in made])
        np.testing.assert_allclose(alone, values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole.class_scores.sum(axis=1), 1, atol=1e-5)
    assert (whole.novelty >= 0).all()


@torch.inference_mode()
def test_novelty_is_the_distance_to_the_nearest_class() -> None:
    judge = trained_a_little()
    means = judge.get_buffer("means")
    assert judge.novelty(means).abs().max() == 0
    step = torch.zeros(256)
    step[7] = 3
    torch.testing.assert_close(judge.novelty(means + step), torch.full((4,), 0.3), rtol=1e-3, atol=1e-5)
    assert (judge.novelty(means + 100 * step) > 20).all()


def test_it_leaves_the_network_and_the_threads_as_they_are() -> None:
    judge, threads = trained_a_little(), torch.get_num_threads()
    before = {name: tensor.clone() for name, tensor in judge.state_dict().items()}
    first, again = (FusedJudge(judge)(chips(3)) for _ in range(2))
    np.testing.assert_array_equal(first.target_log_odds, again.target_log_odds)
    assert torch.get_num_threads() == threads
    with pytest.raises(RuntimeError):
        FusedJudge(judge)(chips(3)[:, :4])  # of another network
    assert torch.get_num_threads() == threads
    assert all(torch.equal(tensor, before[name]) for name, tensor in judge.state_dict().items())


@torch.inference_mode()
def test_in_use_it_computes_what_the_network_does_and_bfloat16_nearly() -> None:
    judge, made = trained_a_little(), chips(40, seed=99)
    features = judge.features(normalised(torch.from_numpy(made).float()))
    single, half = (FusedJudge(judge, dtype)(made) for dtype in (torch.float32, torch.bfloat16))
    np.testing.assert_allclose(single.target_log_odds, 1.5 * judge.target(features)[:, 0] - 0.5, atol=1e-4)
    np.testing.assert_allclose(single.class_scores, torch.softmax(0.7 * judge.classes(features), 1), atol=1e-5)
    np.testing.assert_allclose(single.novelty, judge.novelty(features), rtol=1e-3)
    assert np.ptp(single.target_log_odds) > 0.05, "without a spread the comparison says nothing"
    np.testing.assert_allclose(half.target_log_odds, single.target_log_odds, atol=0.03)
    np.testing.assert_allclose(half.class_scores, single.class_scores, atol=0.01)
    np.testing.assert_allclose(half.novelty, single.novelty, rtol=0.02)
    assert half.novelty.dtype == half.target_log_odds.dtype == np.float32


@needs_native
@pytest.mark.parametrize("count", [1, 3, 7, 13])
def test_natively_it_computes_the_same_in_float32(count: int) -> None:
    judge, made = trained_a_little(), chips(count, seed=5)
    native, by_torch = FusedJudge(judge), FusedJudge(judge, torch.float32)
    assert native._native is not None and by_torch._native is None
    whole, expected = native(made), by_torch(made)
    np.testing.assert_allclose(whole.target_log_odds, expected.target_log_odds, atol=1e-4)
    np.testing.assert_allclose(whole.class_scores, expected.class_scores, atol=1e-5)
    np.testing.assert_allclose(whole.novelty, expected.novelty, rtol=1e-3)
    other_order = native(made[::-1].copy()).target_log_odds[::-1]  # nothing is left over from the chips before
    np.testing.assert_allclose(other_order, whole.target_log_odds, atol=1e-6)


def test_no_chips_are_judged_too() -> None:
    verdicts = FusedJudge(trained_a_little())(np.zeros((0, 5, 48, 48), np.uint8))
    assert verdicts.class_scores.shape == (0, 4) and verdicts.novelty.shape == (0,)


def saved(path: Path) -> Path:
    metadata = Metadata(arguments=NETWORK, classes=("uav", "bird"), judge=HOW)
    save(path, build("dasnet", **NETWORK), metadata, _trained_a_little())
    return path


def test_it_lies_beside_the_network(tmp_path: Path) -> None:
    loaded = load(saved(tmp_path / "a.safetensors"))
    assert loaded.metadata.judge == HOW and loaded.metadata.detected_classes == HOW.classes
    assert loaded.judge is not None
    for name, tensor in trained_a_little().state_dict().items():
        assert torch.equal(tensor, loaded.judge.state_dict()[name]), name
    with Engine(loaded, device="cpu", kind="reference") as engine:
        assert engine.judge is not None
    with Engine(replace(loaded, judge=None), device="cpu", kind="reference") as engine:
        assert engine.judge is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("undescribed", r"holds a judge; must have `judge` in its metadata"),
        ("no weights", r"does not fit the network \(missing: body.0.weight, .*"),
        ("no whitening", r"does not fit the network \(missing: whitening\)"),
        (
            "other frames",
            r"does not fit the network \(wrong shape: body.0.weight is \(32, 9, 5, 5\), not \(32, 7, 5, 5\)",
        ),
        ("one frame", r"judge.frames: 1; must be a whole number from 2 to 16"),
        ("not finite", r"does not fit the network \(not finite: whitening\)"),
        ("fusion", r"judge.fusion.bias: -101; must be a number from -100 to 100"),
        ("least score", r"judge.fusion.min_score: 1.5; must be a number from 0 to 1"),
        ("without birds", r"judge.classes: \('uav', 'airplane', .*; must be at least uav, bird"),
        ("unknown key", r"judge.colour: 1; must be one of the keys classes, frames, fusion"),
    ],
)
def test_what_does_not_fit_is_explained(tmp_path: Path, fault: str, reason: str) -> None:
    path = saved(tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()[METADATA_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    judge = described["judge"]
    match fault:
        case "undescribed":
            described["judge"] = None
        case "no weights":
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("judge.")}
        case "no whitening":
            del tensors["judge.whitening"]
        case "other frames" | "one frame":
            judge["frames"] = 4 if fault == "other frames" else 1
        case "not finite":
            tensors["judge.whitening"][3, 7] = float("nan")
        case "fusion":
            judge["fusion"]["bias"] = -101
        case "least score":
            judge["fusion"]["min_score"] = 1.5
        case "without birds":
            judge["classes"] = ["uav", "airplane", "helicopter", "clutter"]
        case _:
            judge["colour"] = 1
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(described)})
    with pytest.raises(CheckpointError, match=rf"{path.name}: {reason}"):
        load(path)


def test_the_classifier_of_older_files_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save(path, build("dasnet", **NETWORK), Metadata(arguments=NETWORK, classes=("uav", "bird")))
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()[METADATA_KEY]) | {"classifier": {"stages": 5}}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["classifier.head.bias"] = torch.zeros(5)
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(described)})
    assert load(path).judge is None and load(path).metadata.detected_classes == ("uav", "bird")
