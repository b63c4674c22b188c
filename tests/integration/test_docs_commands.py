"""Every fenced block of README, CONTRIBUTING and docs/ holds what it says.

sh       each command is run, or its options exist and the test that TESTED_ELSEWHERE names runs it or the same on less
console  is not run, and the text above it says why
python   is executed
yaml     with `cameras:` is a valid site
sql      is executed by tests/unit/replay/test_parquet.py
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from support.program import REPOSITORY, shortened
from typer.main import get_command

from pipeline.cli import app

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NOT_RUN = "not run by the tests"
ALLOWED = {"sh", "console", "python", "sql", "yaml", "text", "json"}
TESTED_ELSEWHERE = {  # a command -> the test that runs it, or the same on less, in a process of its own
    "make run": "tests/integration/test_run.py",
    "make test": "Makefile",
    "dasnet assess site.yaml --hours 15": "tests/unit/assess/test_assess.py",
    "make dashboard": "tests/integration/test_dashboard.py",
    "dasnet support-bundle --out support.zip site.yaml": "tests/integration/test_installed.py",
    "dasnet doctor": "tests/unit/replay/test_predict.py",
    "dasnet predict photo.jpg --out out": "tests/unit/replay/test_predict.py",
    "dasnet replay tests/data/clips --out out": "tests/unit/replay/test_replay.py",
    "dasnet rules test site.yaml out": "tests/unit/replay/test_rules_test.py",
    "dasnet label tests/data --out labelled --stride 10": "tests/unit/training/test_label.py",
    "dasnet evaluate-clips hard --data FOLDER --checkpoint out/field/ema.safetensors --ladder --json hard.json": (
        "tests/integration/test_evaluate_clips.py"
    ),
    "dasnet evaluate-clips hard --data FOLDER": "tests/integration/test_evaluate_clips.py",
    "python3 scripts/compare_trackers.py out/evaluation --data FOLDER --check --json trackers.json": (
        "tests/unit/training/test_tracker_comparison.py"
    ),
    "DASNET_CLIPS=FOLDER dasnet train configs/training/dasnet_field.yaml --out out/field": (
        "tests/unit/training/test_training_parts.py"
    ),
    "DASNET_CLIPS=tests/data dasnet train configs/training/tiny.yaml --out out/tiny": (
        "tests/unit/training/test_training.py"
    ),
    "dasnet evaluate --checkpoint out/field/ema.safetensors --data FOLDER --split val --out out/field": (
        "tests/unit/training/test_evaluate.py"
    ),
    "dasnet compare out/dasnet-42 out/dasnet-2024 out/unet-42 out/unet-2024 --out out/comparison": (
        "tests/unit/training/test_compare.py"
    ),
    "python3 scripts/compare_models.py --out out/comparison": "tests/integration/test_compare_models.py",
    "python3 scripts/failures_picture.py hard failures.jpg --data FOLDER --checkpoint out/field/ema.safetensors": (
        "tests/integration/test_evaluate_clips.py"
    ),
    "python3 scripts/decision_curve.py hard decision.png --data FOLDER --checkpoint out/field/ema.safetensors": (
        "tests/integration/test_evaluate_clips.py"
    ),
    "nice -n 19 python3 -m training.judge.train out/field/ema.safetensors --data FOLDER "
    "--out out/field/dasnet.safetensors --steps 3000": "tests/unit/training/judge/test_judge_training.py",
    "python3 scripts/calibration.py hard calibration.png --data FOLDER --checkpoint out/field/ema.safetensors": (
        "tests/integration/test_evaluate_clips.py"
    ),
    "python3 scripts/clip_report.py after.json --against before.json": "tests/unit/training/test_clip_results.py",
    "python3 scripts/clip_report.py fold1.json fold2.json --json all.json": "tests/unit/training/test_clip_results.py",
    "python3 scripts/label_margins.py --data FOLDER": "tests/unit/training/test_operating_curves.py",
    "python3 scripts/class_evidence.py out/field/ema.safetensors --data FOLDER": (
        "tests/integration/test_class_evidence.py"
    ),
    "python3 scripts/other_camera.py faint hard out/faint --data FOLDER": "tests/integration/test_other_camera.py",
    "python3 scripts/cross_band.py --data FOLDER": "tests/integration/test_cross_band.py",
    "dasnet bench --sizes 512x512 --batches 1 --json bench.json": "tests/unit/bench/test_bench.py",
    "dasnet export model/weights/dasnet.safetensors --out dasnet.onnx": "tests/unit/model/test_export.py",
    "python3 -m model.native.library --all": "tests/integration/test_image.py",
}
SITE = 'cameras:\n  - {id: scene, uri: "demo:scene"}\n'


class Block(NamedTuple):
    """A fenced block: where it begins, what it is said to be, the paragraph above it, and its text."""

    place: str
    kind: str
    above: str
    text: str


def blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)^```$", text, re.MULTILINE):
        place = f"{page.relative_to(REPOSITORY)}:{text[: match.start()].count(chr(10)) + 1}"
        above = text[: match.start()].rstrip().rpartition("\n\n")[2]
        yield Block(place, match[1], above, match[2])


def commands() -> list[str]:
    """Each command once, in the order of the pages."""
    texts = [block.text.replace("\\\n", " ") for block in blocks() if block.kind == "sh"]
    lines = [re.sub(r"\s+", " ", line.partition(" #")[0]).strip() for text in texts for line in text.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the commands find in their folder: the repository's parts, a site, an image, a password."""
    for name in ("tests", "configs", "scripts", "model"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / "password.txt").write_text("correct horse battery\n")
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((64, 80, 3), 128, np.uint8))
    return tmp_path


@pytest.mark.parametrize("command", commands())
def test_the_command_works(command: str, folder: Path):
    if command in TESTED_ELSEWHERE:
        assert (REPOSITORY / TESTED_ELSEWHERE[command]).is_file()
        return
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_scripts_that_made_the_pictures_compile():
    made = re.findall(r"[Mm]ade by `python3 (scripts/\S+\.py)", "\n".join(page.read_text() for page in PAGES))
    assert made
    for script in made:
        compile((REPOSITORY / script).read_text(encoding="utf-8"), script, "exec")


@pytest.mark.parametrize(
    "block", [block for block in blocks() if block.kind == "python"], ids=lambda block: block.place
)
def test_the_python_works(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    from model import build

    monkeypatch.chdir(folder)
    torch.save({"epoch": 1, "model_state_dict": build("dasnet").state_dict()}, "best.pth")
    shortened(REPOSITORY / "tests" / "data" / "clips" / "IR_DRONE_015.mp4", 5, folder / "clip.mp4")
    exec(compile(block.text, block.place, "exec"), {})


def test_every_site_is_valid(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from pipeline.config.file import load

    sites = [block for block in blocks() if block.kind == "yaml" and re.search(r"^cameras:", block.text, re.MULTILINE)]
    assert len(sites) >= 4
    for block in sites:
        for name in re.findall(r"\$\{(\w+)\}", block.text):
            monkeypatch.setenv(name, "service://canary" if name.endswith("_URL") else "canary" * 4)
        (folder / "site.yaml").write_text(block.text)
        load(folder / "site.yaml")


def test_every_block_is_run_or_says_why_not():
    for block in blocks():
        assert block.kind in ALLOWED, f"{block.place}: ```{block.kind}; expected one of {', '.join(sorted(ALLOWED))}"
        if block.kind == "console":
            assert NOT_RUN in block.above.lower(), f"{block.place}: the text above must say {NOT_RUN!r}, and why"


def test_what_is_tested_elsewhere_is_still_in_the_pages():
    assert not TESTED_ELSEWHERE.keys() - set(commands())


def test_commands_and_options_of_the_pages_exist():
    known = get_command(app)
    for command in commands():
        words = [word for word in shlex.split(command) if not re.match(r"\w+=", word)]
        if words[0] != "dasnet":
            continue
        subcommand, names = known, iter(words[1:])
        while hasattr(subcommand, "commands"):  # a group
            subcommand = subcommand.commands[next(names)]
        options = {name for parameter in subcommand.params for name in parameter.opts}
        assert not {word for word in words if word.startswith("--")} - options, command
