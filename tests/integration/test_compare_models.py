"""scripts/compare_models.py, run small: trained, evaluated, compared, and not again when called again."""

import json
import subprocess
from pathlib import Path

import pytest
from support.program import script_in_process


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    folders = ["--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    return script_in_process("compare_models.py", *arguments, *folders)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_comparison_and_the_same_again(tmp_path: Path):
    small = (
        "--networks",
        "thindyunet,mobileunet",
        "--seeds",
        "1,2",
        "--steps",
        "3",
        "--size",
        "128",
        "--images",
        "100",
    )
    first = run(tmp_path, *small)
    assert first.returncode == 0, first.stderr
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert set(comparison["models"]) == {"thindyunet", "mobileunet"} and comparison["seeds"] == [1, 2]
    for name in ("parameters", "precision_recall", "qualitative", "training_curves"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5_000
    assert not list((tmp_path / "runs").rglob("state.pt"))
    (tmp_path / "out" / "comparison.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert run(tmp_path, *small).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == comparison


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--networks", "dasnet,vnet"), "'vnet'; must be of dasnet"),
        (("--size", "200"), "200; must be a multiple of 128"),
    ],
)
def test_wrong_usage_is_named(tmp_path: Path, arguments: tuple[str, ...], text: str):
    result = run(tmp_path, *arguments)
    assert result.returncode == 2 and text in result.stderr
