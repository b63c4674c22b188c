"""scripts/cross_band.py on clips of which half pass for visible ones: both directions, and not trained again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.data_sets import short_clips
from support.program import REPOSITORY, in_process

from model.checkpoint import load
from training.evaluation import cross_band

FRAMES = 30  # of each clip
PLACES = {
    "IR_DRONE_015": {"sensor": "infrared", "split": "train"},
    "IR_DRONE_019": {"sensor": "visible", "split": "train"},
    "IR_BIRD_003": {"sensor": "infrared", "split": "val"},
    "IR_DRONE_054": {"sensor": "visible", "split": "val"},
}
SMALL = (
    "network.start_out_channels=8",
    "network.size=3",
    "sampling.augmentation.crop_px=128",
    "batch=1",
    "sampling.small_batch=1",
)


def arguments(folder: Path, steps: int) -> list[str]:
    changes = [part for change in (*SMALL, f"cache={folder / 'cache'}") for part in ("--set", change)]
    command = ["--data", folder, "--splits", "val", "--steps", steps, "--out", folder / "out", *changes]
    return [*map(str, command)]


@pytest.mark.slow
def test_both_directions_are_trained_once_and_measured_on_both_bands(tmp_path: Path):
    short_clips(tmp_path, FRAMES, **PLACES)

    first = in_process(cross_band.main, *arguments(tmp_path, 3))
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "out" / "cross_band.json").read_text())["rows"]
    bands = [(row["learned"], row["measured"], row["drones"], row["others"]) for row in rows]
    assert bands == [
        ("infrared", "infrared", 0, 4),
        ("infrared", "visible", 6, 0),
        ("visible", "infrared", 0, 4),
        ("visible", "visible", 6, 0),
    ]
    learned = {path.parent.name: load(path).metadata.training["data"] for path in (tmp_path / "out").rglob("ema.*")}
    assert {sensor: data["sensors"] for sensor, data in learned.items()} == {
        "infrared": ["infrared"],
        "visible": ["visible"],
    }
    assert {sensor: data["clips"] for sensor, data in learned.items()} == {"infrared": 1, "visible": 1}

    checkpoints = list((tmp_path / "out").rglob("ema.safetensors"))
    before = [path.stat().st_mtime_ns for path in checkpoints]
    again = in_process(cross_band.main, *arguments(tmp_path, 3))
    assert again.stdout == first.stdout[-len(again.stdout) :] and len(checkpoints) == 2
    assert [path.stat().st_mtime_ns for path in checkpoints] == before

    script = [sys.executable, "scripts/cross_band.py", *arguments(tmp_path, 4)]
    other = subprocess.run(script, cwd=REPOSITORY, capture_output=True, text=True)
    assert other.returncode == 2 and "holds a training with other settings; expected another folder" in other.stderr
