"""`dasnet evaluate-clips` and the plots of its results, with a network without detections."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from support.data_sets import short_clips
from support.program import REPOSITORY, in_process
from torch import nn

from model.checkpoint import save
from model.dasnet import DASNet
from model.metadata import Metadata
from pipeline import cli
from training.evaluation import failures, threshold_curve

FRAMES = 6


def common(folder: Path) -> list[str]:
    return ["hard", "--data", str(folder), "--checkpoint", str(folder / "blind.safetensors")]


def script(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    command = [sys.executable, str(REPOSITORY / "scripts" / name), *common(folder), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A drone and a bird, and a network whose outputs never come near the threshold."""
    short_clips(tmp_path, FRAMES, IR_DRONE_015={"split": "hard"}, IR_BIRD_003={"split": "hard"})
    network = DASNet(start_out_channels=16).eval()
    nn.init.constant_(network.decoder.output.output_block[1].bias, -30.0)  # type: ignore[arg-type]
    save(tmp_path / "blind.safetensors", network, Metadata(arguments={"start_out_channels": 16}))
    return tmp_path


def test_what_is_missed_is_named_counted_by_size_and_shown(folder: Path):
    evaluated = script("evaluate_clips.py", folder, "--json", "figures.json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "missed: IR_DRONE_015\nalarmed: none" in evaluated.stdout
    figures = json.loads((folder / "figures.json").read_text())["all"]
    assert (figures["drone_clips"], figures["found"], figures["negative_clips"]) == (1, 0, 1)
    assert sum(figures["labelled_of_size"].values()) == figures["labelled"] == FRAMES

    shown = in_process(failures.main, *common(folder), "failures.png", cwd=folder)
    assert shown.stdout == "1 failures: failures.png\n", shown.stderr
    sheet = cv2.imread(str(folder / "failures.png"))
    assert sheet is not None and sheet.shape == (144, 6 * 144, 3)
    assert sheet[:, :144].std() > 5 and not sheet[:, 144:].any()


def test_the_curve_over_suppression_thresholds(folder: Path):
    evaluated = in_process(cli.main, "evaluate-clips", *common(folder), cwd=folder)
    assert evaluated.returncode == 0, evaluated.stderr
    drawn = in_process(threshold_curve.main, *common(folder), "curve.png", cwd=folder)
    assert drawn.returncode == 0, drawn.stderr
    rows = [line for line in drawn.stdout.splitlines() if line.startswith("| hard | infrared | ")]
    assert len(rows) == 17 and all("| 0 of 1 | 0.000 | 0 of 1 |" in row for row in rows)
    plot = cv2.imread(str(folder / "curve.png"))
    assert plot is not None and plot.std() > 5


def test_without_an_evaluation_there_is_nothing_to_show(folder: Path):
    shown = script("failures_picture.py", folder, "failures.png")
    assert shown.returncode == 1 and "holds no replay of hard" in shown.stderr
    undrawn = script("decision_curve.py", folder, "curve.png")
    assert (
        undrawn.returncode == 2
        and "holds no IR_BIRD_003; expected `dasnet evaluate-clips hard` before" in undrawn.stderr
    )
    assert not (folder / "failures.png").exists()
