"""scripts/class_evidence.py on the clips of the repository: its areas are shares of pairs in the right order."""

import json
from pathlib import Path

from support.program import REPOSITORY, in_process, script_in_process

from training.evaluation.class_separation import main

CHECKPOINT = REPOSITORY / "model" / "weights" / "dasnet.safetensors"


DATA = ("--data", str(REPOSITORY / "tests" / "data"), "--splits", "train")


def test_the_area_is_the_share_of_pairs_in_the_right_order(tmp_path: Path):
    ended = in_process(main, CHECKPOINT, "--frames", "4", "--json", "evidence.json", *DATA, cwd=tmp_path)
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
    ended = script_in_process("class_evidence.py", "no.safetensors", *DATA, cwd=tmp_path)
    assert ended.returncode == 1 and "error: checkpoint no.safetensors" in ended.stderr
