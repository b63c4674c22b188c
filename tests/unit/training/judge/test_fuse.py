"""Fitting of the fusion: it recovers known weights, weighs videos alike, and writes a checkpoint that scores so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.data_sets import short_clips
from support.program import REPOSITORY
from support.scenes import SURE_UAV, frame

from model.checkpoint import load
from model.metadata import Fusion
from pipeline.checkpoints import SHIPPED
from pipeline.errors import ConfigError
from pipeline.segmentation.judging import fused
from training.datasets import LabelledObject
from training.judge.fuse import WEIGHTS, Judged, cross_calibration_error, fit_weights, main, right, terms

TRUE = np.array([-3.0, 0.8, 1.5, 1.0, 0.5, 0.6])
POINT = REPOSITORY / "model" / "weights" / "operating_point.yaml"


def clip(seed: int, count: int = 4000, weights: np.ndarray = TRUE) -> Judged:
    """Proposals whose labels are drawn with the probabilities of these weights."""
    rng = np.random.default_rng(seed)
    mask, motion = rng.random(count) < 0.5, rng.random(count) < 0.5
    columns = [np.ones(count), rng.normal(0, 3, count), mask, mask * rng.normal(0, 2, count)]
    x = np.stack([*columns, motion, motion * rng.uniform(0, 3, count)], axis=1)
    return Judged(x, rng.random(count) < 1 / (1 + np.exp(-(x @ weights))))


def test_known_weights_are_recovered_and_calibrated() -> None:
    np.testing.assert_allclose(fit_weights([clip(1), clip(2), clip(3)]), TRUE, atol=0.2)
    alike = cross_calibration_error([clip(number) for number in range(4)])
    different = cross_calibration_error([clip(number, weights=TRUE * (1 - 0.7 * (number % 2))) for number in range(4)])
    assert max(alike) < 0.02 < min(different)


def test_a_long_video_weighs_no_more_than_a_short_one() -> None:
    other = TRUE * [1, -1, 1, 1, 1, 1]
    weights = fit_weights([clip(1, 20_000), clip(2, 500, other), clip(3, 500, other)])
    assert weights[1] < 0, "two videos against one"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_can_be_fitted_where_all_are_alike(share: float) -> None:
    alike = replace(clip(1, 50), right=np.full(50, bool(share)))
    with pytest.raises(ConfigError, match=rf"{round(50 * share)} of 50 judged proposals are right"):
        fit_weights([alike, Judged(np.zeros((0, len(WEIGHTS))), np.zeros(0, np.bool_))])


def test_the_terms_are_those_that_the_pipeline_adds_up() -> None:
    log_odds = np.array([-3.0, 0.5, 4.0, 2.0], np.float32)
    made = frame(0, [(20 + 20 * row, 30, 6, SURE_UAV) for row in range(4)])
    mask, motion = np.array([0.8, 0, 0.001, 0], np.float32), np.array([0, 12, 0.5, 0], np.float32)
    scored = replace(made, score=1 / (1 + np.exp(-log_odds)), mask_score=mask, motion_score=motion)
    fusion = Fusion(**dict(zip(WEIGHTS, TRUE.tolist(), strict=True)))
    expected = fused(fusion, log_odds, mask, motion)
    np.testing.assert_allclose(1 / (1 + np.exp(-(terms(scored) @ TRUE))), expected, rtol=1e-4)


def test_a_detection_on_a_label_is_right() -> None:
    made = frame(0, [(20, 30, 6, SURE_UAV), (29, 30, 6, SURE_UAV), (60, 30, 6, SURE_UAV)])
    label = LabelledObject(1, "drone", (15.0, 25.0, 25.0, 35.0))
    x, y = made.centroid[0]
    assert (15 <= x <= 25) and (25 <= y <= 35)
    assert right(made, [label]).tolist() == [True, False, False] and not right(made, []).any()


def test_the_command_writes_a_checkpoint_with_the_operating_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = short_clips(tmp_path, 16, IR_DRONE_015={}, IR_BIRD_003={})
    out = tmp_path / "fused.safetensors"
    command = [str(SHIPPED), "--data", str(data), "--sets", "train", "val", "hard", "test", "--out", str(out)]
    assert main([*command, "--mask-classes", "0.5", "--operating-point", str(POINT)]) == 0
    assert "fusion: bias " in capsys.readouterr().out
    written, shipped = load(out), load(SHIPPED)
    assert written.metadata.judge and written.metadata.judge.fusion.mask_classes == 0.5
    assert written.metadata.judge.fusion.judge > 0
    assert written.metadata.thresholds == shipped.metadata.thresholds
    assert written.judge is not None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--mask-classes", "2"], "--mask-classes 2.0; must be from 0 to 1"),
        (["--operating-point", "none.yaml"], "--operating-point none.yaml: cannot be read"),
        (["--operating-point", "{bad}"], "thresholds.infrared.start_score: 7; must be a number from 0 to 1"),
        (["--data", "no"], "no: is not a folder"),
    ],
)
def test_wrong_options_are_told(
    options: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("infrared: {start_score: 7}\n")
    options = [option.format(bad=bad) for option in options]
    data = [] if "--data" in options else ["--data", str(REPOSITORY / "tests" / "data")]
    assert main([str(SHIPPED), *data, *options, "--out", str(tmp_path / "x.safetensors")]) == 2
    assert expected in capsys.readouterr().err
