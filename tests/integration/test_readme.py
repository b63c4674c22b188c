"""Every command of the README works.  Long ones are run on less; a new one must be added here."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.program import REPOSITORY, shortened

TESTED_ELSEWHERE = {
    "make run": "test_run",
    "make test": "this is it",
    "dasnet support-bundle --out support.zip site.yaml": "test_installed",
    "make dashboard": "test_dashboard",
    "DASNET_CLIPS=tests/data dasnet train configs/training/tiny.yaml --out out/tiny": "test_training",
    "dasnet evaluate --checkpoint out/field/ema.safetensors --data FOLDER --split val --out out/field": "test_evaluate",
    "dasnet compare out/dasnet-42 out/dasnet-2024 out/unet-42 out/unet-2024 --out out/comparison": "test_compare",
    "python3 scripts/compare_models.py --out out/comparison": "test_compare_models",
    "python3 scripts/failures_picture.py hard failures.jpg --data FOLDER --checkpoint out/field/ema.safetensors": (
        "test_evaluate_clips"
    ),
    "python3 scripts/decision_curve.py hard decision.png --data FOLDER --checkpoint out/field/ema.safetensors": (
        "test_evaluate_clips"
    ),
    "python3 scripts/train_classifier.py out/field/ema.safetensors --data FOLDER --out out/field/dasnet.safetensors": (
        "test_classifier"
    ),
    "python3 scripts/class_evidence.py out/field/ema.safetensors --data FOLDER": "test_class_evidence",
    "python3 scripts/other_camera.py faint hard out/faint --data FOLDER": "test_other_camera",
    "python3 scripts/cross_band.py --data FOLDER": "test_cross_band",
    "python3 scripts/bench_live.py --fps 25 --seconds 60": "test_soak_and_chaos",
    "python3 scripts/bench_transport.py": "test_bench_transport",
    "dasnet keys keys edge1 edge2": "test_link",
    "dasnet run site.yaml --host edge1": "test_link",
    "dasnet bench --sizes 512x512 --batches 1 --json bench.json": "test_bench",
    "dasnet export model/weights/dasnet.safetensors --out dasnet.onnx": "test_export",
}
REPLACED = {  # what the README says -> what is run here
    "dasnet replay tests/data/clips --out out": "dasnet replay {repo}/tests/data/clips --out out --end 2",
    "DASNET_CLIPS=FOLDER dasnet train configs/training/dasnet_field.yaml --out out/field": (
        "DASNET_CLIPS={repo}/tests/data dasnet train {tiny} --out out/field"
    ),
    "dasnet label tests/data --out labelled --stride 10": "dasnet label {repo}/tests/data --out labelled --stride 60",
    "python3 scripts/evaluate_clips.py hard --data FOLDER --checkpoint out/field/ema.safetensors": (
        "python3 {repo}/scripts/evaluate_clips.py hard --data {short} --checkpoint {shipped}"
    ),
    "python3 scripts/readme_picture.py .github/annotated.png": "python3 -m py_compile {repo}/scripts/readme_picture.py",
    "python3 scripts/console_pictures.py .github": "python3 -m py_compile {repo}/scripts/console_pictures.py",
}
TINY = """
data: ${DASNET_CLIPS}
steps: 4
batch: 1
network: {name: dasnet, num_class: 4, start_out_channels: 16}
sampling: {kind: crops, augmentation: {crop_px: 128}}
schedule: {kind: trapezoid, decay_steps: 2}
loss: field
clips: [IR_DRONE_015, IR_BIRD_003]
check_splits: [train]
check_clips: [IR_DRONE_015]
every_drone_frame: 100
every_other_frame: 150
"""


def commands() -> list[str]:
    text = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"Made by `(python3 [^`]*)`", text)
    return [line for line in lines if line] + inline


def short_set(folder: Path) -> Path:
    """One clip of 40 frames, called hard."""
    import gzip
    import json

    source = REPOSITORY / "tests" / "data"
    (folder / "clips").mkdir(parents=True)
    labels = json.loads(gzip.decompress((source / "labels.json.gz").read_bytes()))["IR_DRONE_015"]
    labels |= {"split": "hard", "frames": labels["frames"][:40]}
    (folder / "labels.json.gz").write_bytes(gzip.compress(json.dumps({"IR_DRONE_015": labels}).encode()))
    shortened(source / "clips" / "IR_DRONE_015.mp4", 40, folder / "clips" / "IR_DRONE_015.mp4")
    return folder


@pytest.mark.parametrize("command", commands())
def test_the_command_works(command: str, tmp_path: Path):
    if command in TESTED_ELSEWHERE:
        return
    run = REPLACED.get(command, command)
    (tmp_path / "tiny.yaml").write_text(TINY)
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((64, 80, 3), 128, np.uint8))
    if "{short}" in run:
        short_set(tmp_path / "short")
    run = run.format(
        repo=REPOSITORY,
        tiny=tmp_path / "tiny.yaml",
        short=tmp_path / "short",
        shipped=REPOSITORY / "model" / "weights" / "dasnet.safetensors",
    )
    words = shlex.split(run)
    environment = dict(os.environ)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    scripts = Path(sys.executable).parent
    words[0] = {"python3": sys.executable, "dasnet": str(scripts / "dasnet")}.get(words[0], words[0])
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150)
    assert result.returncode == 0, result.stderr


def test_the_python_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    from model import build

    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": 1, "model_state_dict": build("dasnet").state_dict()}, "best.pth")
    text = (REPOSITORY / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, {})


def test_links_lead_somewhere():
    text = (REPOSITORY / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert targets and not [target for target in targets if not (REPOSITORY / target).exists()]
