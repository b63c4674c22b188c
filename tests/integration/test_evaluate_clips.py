"""`dasnet evaluate-clips` and the plots of its results, with a network without detections."""

import gzip
import json
import subprocess
from pathlib import Path

import cv2
import pytest
from support.program import REPOSITORY, dasnet, script_in_process, shortened
from torch import nn

from model.checkpoint import save
from model.dasnet import DASNet
from model.metadata import Metadata

CLIPS = REPOSITORY / "tests" / "data"
FRAMES = 6


def script(name: str, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    common = ["hard", "--data", folder, "--checkpoint", folder / "blind.safetensors"]
    return script_in_process(name, *common, *arguments, cwd=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A drone and a bird, and a network whose outputs never come near the threshold."""
    labels = json.loads(gzip.decompress((CLIPS / "labels.json.gz").read_bytes()))
    (tmp_path / "clips").mkdir()
    chosen = {}
    for name in ("IR_DRONE_015", "IR_BIRD_003"):
        shortened(CLIPS / "clips" / f"{name}.mp4", FRAMES, tmp_path / "clips" / f"{name}.mp4")
        chosen[name] = labels[name] | {"split": "hard", "frames": labels[name]["frames"][:FRAMES]}
    (tmp_path / "labels.json.gz").write_bytes(gzip.compress(json.dumps(chosen).encode()))
    network = DASNet(start_out_channels=16).eval()
    nn.init.constant_(network.decoder.output.output_block[1].bias, -30.0)  # type: ignore[arg-type]
    save(tmp_path / "blind.safetensors", network, Metadata(arguments={"start_out_channels": 16}))
    return tmp_path


def test_what_is_missed_is_named_counted_by_size_and_shown(folder: Path):
    evaluated = script("evaluate_clips.py", folder, "--json", "figures.json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "missed: IR_DRONE_015\nalarmed: none" in evaluated.stdout
    assert "| all | 0 of 1 (0.000-0.975) |" in evaluated.stdout
    content = json.loads((folder / "figures.json").read_text())
    counts = content["groups"]["all"]["counts"]
    assert (counts["drone_clips"], counts["found"], counts["negative_clips"]) == (1, 0, 1)
    assert sum(counts["labelled_of_size"].values()) == counts["labelled"] == FRAMES
    assert content["groups"]["dronedet_infrared"] == content["groups"]["all"] and not content["ladder"]

    shown = script("failures_picture.py", folder, "failures.png")
    assert shown.stdout == "1 failures: failures.png\n", shown.stderr
    picture = cv2.imread(str(folder / "failures.png"))
    assert picture is not None and picture.shape == (144, 6 * 144, 3)
    assert picture[:, :144].std() > 5 and not picture[:, 144:].any()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_gives_the_same_results(folder: Path):
    pytest.importorskip("ray")
    command = ["evaluate-clips", "hard", "--data", folder, "--checkpoint", folder / "blind.safetensors", "--out"]
    for name, options in (("alone", []), ("cluster", ["--ray", "auto"])):
        result = dasnet(*command, folder / name, "--json", folder / f"{name}.json", *options, timeout_s=600)
        assert result.returncode == 0, result.stderr
    assert (folder / "alone.json").read_bytes() == (folder / "cluster.json").read_bytes()
    assert len([*(folder / "cluster").glob("*/*/*/tracks.txt")]) == 2
    refused = dasnet(*command, folder / "none", "--ray", "127.0.0.1:9")
    assert refused.returncode == 1 and "no Ray cluster there" in refused.stderr


@pytest.mark.slow
def test_the_range_ladder_shrinks_frames_and_labels_of_drones(folder: Path):
    evaluated = script("evaluate_clips.py", folder, "--ladder", "--json", "figures.json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "range ladder: recall" in evaluated.stdout and "| infrared x 0.25 | 0 of 1 (" in evaluated.stdout
    content = json.loads((folder / "figures.json").read_text())
    assert content["groups"]["all"]["counts"]["labelled"] == FRAMES
    rows = [row for row in content["clips"] if row["clip_class"] == "drone"]
    assert [row["scale"] for row in rows] == [1, 0.75, 0.5, 0.35, 0.25]
    assert sum(one["labels"] for one in content["ladder"]["all"].values()) == 5 * FRAMES
    (header, *_) = next(folder.glob("out/evaluation/*/*/IR_DRONE_015@0.25/detections.jsonl")).read_text().splitlines()
    assert (json.loads(header)["width"], json.loads(header)["height"]) == (80, 64)

    other = folder / "clips" / "IR_DRONE_015.mp4"
    shortened(CLIPS / "clips" / "IR_DRONE_019.mp4", FRAMES - 1, other)  # stored detections are of other frames
    assert script("evaluate_clips.py", folder, "--json", "figures.json").returncode == 0
    assert json.loads((folder / "figures.json").read_text())["groups"]["all"]["counts"]["labelled"] == FRAMES - 1


@pytest.mark.slow
def test_the_suppression_curve_and_calibration_of_what_is_stored(folder: Path):
    assert script("evaluate_clips.py", folder).returncode == 0
    drawn = script("decision_curve.py", folder, "curve.png")
    assert drawn.returncode == 0, drawn.stderr
    start = f"| {folder.name} hard | dronedet_infrared | "
    rows = [line for line in drawn.stdout.splitlines() if line.startswith(start)]
    assert len(rows) == 17 and all(
        "| 0 of 0 (0.000-1.000) | nan | 0.000 | 0 of 1 (0.000-0.975) |" in row for row in rows
    )
    calibrated = script("calibration.py", folder, "calibration.png")
    assert calibrated.stdout.endswith("expected calibration error: dronedet_infrared nan\n"), calibrated.stderr
    for name in ("curve.png", "calibration.png"):
        picture = cv2.imread(str(folder / name))
        assert picture is not None and picture.std() > 5


def test_without_an_evaluation_there_is_nothing_to_show(folder: Path):
    shown = script("failures_picture.py", folder, "failures.png")
    assert shown.returncode == 1 and "holds no replay of hard" in shown.stderr
    undrawn = script("decision_curve.py", folder, "curve.png")
    assert (
        undrawn.returncode == 2
        and "holds no IR_BIRD_003; expected `dasnet evaluate-clips hard` before" in undrawn.stderr
    )
    assert not (folder / "failures.png").exists()
