"""scripts/cross_band.py on clips of which half pass for visible ones: both directions, and not trained again."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

from support.program import REPOSITORY

from model.checkpoint import load

CLIPS = REPOSITORY / "tests" / "data"
PLACES = {
    "IR_DRONE_015": ("infrared", "train"),
    "IR_DRONE_019": ("visible", "train"),
    "IR_BIRD_003": ("infrared", "val"),
    "IR_DRONE_054": ("visible", "val"),
}
SMALL = ("network.start_out_channels=16", "sampling.augmentation.crop_px=128", "batch=1", "sampling.small_batch=1")


def run(folder: Path, steps: int) -> subprocess.CompletedProcess[str]:
    changes = [part for change in (*SMALL, f"cache={folder / 'cache'}") for part in ("--set", change)]
    command = ["--data", folder, "--splits", "val", "--steps", steps, "--out", folder / "out", *changes]
    script = REPOSITORY / "scripts" / "cross_band.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True
    )


def test_both_directions_are_trained_once_and_measured_on_both_bands(tmp_path: Path):
    labels = json.loads(gzip.decompress((CLIPS / "labels.json.gz").read_bytes()))
    chosen = {name: labels[name] | {"sensor": sensor, "split": split} for name, (sensor, split) in PLACES.items()}
    (tmp_path / "labels.json.gz").write_bytes(gzip.compress(json.dumps(chosen).encode()))
    (tmp_path / "clips").symlink_to(CLIPS / "clips")

    first = run(tmp_path, 3)
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
    again = run(tmp_path, 3)
    assert again.stdout == first.stdout[-len(again.stdout) :] and len(checkpoints) == 2
    assert [path.stat().st_mtime_ns for path in checkpoints] == before

    other = run(tmp_path, 4)
    assert other.returncode == 2 and "holds a training with other settings; expected another folder" in other.stderr
