"""Calibration of the judge: scales are recovered, and novelty is 1 at the 99th percentile of what training knew."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.judge import Judge
from pipeline.errors import ConfigError
from training.judge.calibrate import calibrate, class_scale, known_features, platt_scaling, shrunk_covariance
from training.judge.chip_set import ChipSet
from training.judge.metrics import area_under_roc, calibration_error, judge_metrics

CPU = torch.device("cpu")


def test_log_odds_are_recovered() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 3, 20000)
    is_target = rng.random(20000) < 1 / (1 + np.exp(-true))
    logits = ((true + 1.0) / 2.5).astype(np.float32)
    scale, offset = platt_scaling(logits, is_target, np.ones(20000))
    assert (scale, offset) == (pytest.approx(2.5, rel=0.05), pytest.approx(-1.0, abs=0.1))


def test_separable_logits_get_a_bounded_scale() -> None:
    logits = np.concatenate([np.full(50, 3.0), np.full(50, -3.0)]).astype(np.float32)
    scale, offset = platt_scaling(logits, logits > 0, np.ones(100))
    assert 0.5 < scale < 3 and abs(offset) < 0.1


def test_the_temperature_is_recovered() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(0, 2, (20000, 4))
    probability = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    classes = (probability.cumsum(1) > rng.random((20000, 1))).argmax(1)
    assert class_scale((true * 4).astype(np.float32), classes, np.ones(20000)) == pytest.approx(0.25, rel=0.06)


def test_the_covariance_is_shrunk_more_where_there_are_few_samples() -> None:
    rng = np.random.default_rng(2)
    true = np.diag(np.linspace(0.1, 8, 40))

    def errors(count: int) -> tuple[float, float]:
        values = rng.normal(0, 1, (count, 40)) @ np.sqrt(true)
        shrunk, sample = shrunk_covariance(values), values.T @ values / count
        assert np.linalg.eigvalsh(shrunk).min() > 0
        return float(np.abs(shrunk - true).mean()), float(np.abs(sample - true).mean())

    few, many = errors(30), errors(20000)
    assert few[0] < 0.8 * few[1]
    assert many[0] == pytest.approx(many[1], rel=0.05)


def test_novelty_is_1_at_the_99th_percentile_and_higher_for_what_differs() -> None:
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 3, 3000)
    features = rng.normal(0, 1, (3000, 256)) * np.linspace(0, 2, 256) + 3 * classes[:, None]
    judge = Judge(5, 4)
    for name, value in zip(
        ("means", "whitening"), known_features(features.astype(np.float32), classes, 4), strict=True
    ):
        judge.get_buffer(name).copy_(torch.from_numpy(value))
    novelty = judge.novelty(torch.from_numpy(features).float()).numpy()
    assert np.mean(novelty <= 1.0) == pytest.approx(0.99, abs=0.003)
    assert judge.novelty(torch.from_numpy(features + 20).float()).min() > 1.5, (
        "the absent class is not near to anything"
    )


def test_a_judge_is_calibrated_on_chips_that_it_did_not_see(chip_sets: dict[str, ChipSet]) -> None:
    torch.manual_seed(0)
    judge = Judge(5, 4).eval()
    before = calibration_error(judge, chip_sets["check"], CPU)
    judge.target.bias.data.fill_(4.0)  # sure of every chip
    sure = calibration_error(judge, chip_sets["check"], CPU)
    calibrate(judge, chip_sets["train"], chip_sets["check"], CPU)
    after = calibration_error(judge, chip_sets["check"], CPU)
    assert sure > 0.4 and after < 0.2 and before >= 0
    assert judge.get_buffer("whitening").abs().max() > 0 and torch.isfinite(judge.get_buffer("means")).all()
    figures = judge_metrics(judge, chip_sets["check"], CPU)
    assert 0 <= figures["auc_motion"] <= 1 and "auc_uav" not in figures  # there is no drone


def test_held_out_chips_without_targets_are_told(chip_sets: dict[str, ChipSet]) -> None:
    check = chip_sets["check"]
    parts = [replace(part, kinds=np.full(len(part), 4, np.int8)) for part in check.parts]
    with pytest.raises(ConfigError, match=r"held-out chips: .*expected targets and clutter to calibrate on"):
        calibrate(Judge(5, 4).eval(), chip_sets["train"], ChipSet(parts, check.lags_s, check.side_px), CPU)


def test_area_under_roc_counts_pairs_and_halves_ties() -> None:
    positive, negative = np.array([3, 2, 2], np.float32), np.array([1, 2], np.float32)
    assert area_under_roc(positive, negative) == pytest.approx((2 + 1.5 + 1.5) / 6)
    assert area_under_roc(positive, positive) == pytest.approx(0.5)
    assert area_under_roc(positive, negative[:0]) is None
