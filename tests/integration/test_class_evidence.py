"""scripts/class_evidence.py on the clips of the repository: its areas are shares of pairs in the right order."""

import json
import subprocess
import sys
from pathlib import Path

from support.program import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "class_evidence.py"
CHECKPOINT = REPOSITORY / "model" / "weights" / "dasnet.safetensors"


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments, "--data", REPOSITORY / "tests" / "data", "--splits", "train"]
    return subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_area_is_the_share_of_pairs_in_the_right_order(tmp_path: Path):
    ended = run(tmp_path, CHECKPOINT, "--frames", "4", "--json", "evidence.json")
    assert ended.returncode == 0, ended.stderr
    (rows,) = json.loads((tmp_path / "evidence.json").read_text()).values()
    drones = [row["mean"] for row in rows if row["clip_class"] == "drone"]
    others = [row["mean"] for row in rows if row["clip_class"] != "drone"]
    assert len(drones) >= 2 and len(others) >= 2  # found at all
    share = sum(drone > other for drone in drones for other in others) / (len(drones) * len(others))
    infrared, visible = ended.stdout.splitlines()[2:]
    assert infrared.split(" | ")[-1] == f"{share:.2f} |"
    assert visible.endswith("| - | - | - | - |")


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path):
    (tmp_path / "no.safetensors").write_bytes(b"no")
    ended = run(tmp_path, "no.safetensors")
    assert ended.returncode == 1 and "error: checkpoint no.safetensors" in ended.stderr
