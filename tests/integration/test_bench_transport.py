"""The transport's bench carries frames in all three ways; its figures are not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import REPOSITORY


@pytest.mark.slow
def test_the_bench_carries_every_frame_and_writes_its_figures(tmp_path: Path):
    command = [sys.executable, str(REPOSITORY / "scripts/bench_transport.py"), "--json", str(tmp_path / "t.json")]
    done = subprocess.run(
        [*command, "--frames", "20", "--rounds", "1"], capture_output=True, text=True, timeout=180, cwd=REPOSITORY
    )
    assert done.returncode in (0, 1), done.stderr
    sizes = json.loads(done.stdout.splitlines()[-1])
    assert sizes == json.loads((tmp_path / "t.json").read_text())["sizes"]
    for ways in sizes.values():
        assert list(ways) == ["credit flow", "PUB/SUB, pickled", "multiprocessing queue"]
        assert all(way["frames"] == 10 and 0 < way["p50_ms"] <= way["p99_ms"] for way in ways.values())
