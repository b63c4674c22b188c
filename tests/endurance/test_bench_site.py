"""How the bench of a site finds the number of cameras and reports; and what is simulated from its file."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.program import REPOSITORY, script_in_process

from endurance.bench_site import Kind, bisected, held, report
from pipeline.simulation.service import ServiceTimes
from pipeline.types import Band

TIMES = ServiceTimes(
    size_px=(320, 256),
    capture_s=(0.002,),
    prepare_s=(0.001,),
    whole_s=0.05,
    tile_s=0.01,
    reduced_s=0.005,
    judge_s=(0.004,),
    track_s=(0.001,),
    threads=2,
    parallel_share=0.9,
)


@pytest.mark.parametrize(("largest", "most", "wanted"), [(0, 64, 0), (1, 1, 1), (5, 64, 5), (64, 64, 64), (99, 12, 12)])
def test_the_largest_number_of_cameras_that_holds_is_found(largest: int, most: int, wanted: int) -> None:
    asked: list[int] = []

    def site(count: int) -> dict[str, Any]:
        asked.append(count)
        return {"cameras": count, "holds": count <= largest}

    assert held(bisected(site, most)) == wanted
    assert max(asked) <= most and len(asked) == len(set(asked))


def test_a_kind_is_a_size_and_a_frame_rate() -> None:
    assert str(Kind.parse("640x512@25")) == "640x512@25"
    assert Kind.parse("640x512@25").band is Band.INFRARED and Kind.parse("3840x2160@12").band is Band.VISIBLE
    with pytest.raises(argparse.ArgumentTypeError, match="'640x512'; must be WIDTHxHEIGHT@FPS"):
        Kind.parse("640x512")


def test_the_report_has_a_row_for_each_site_and_network() -> None:
    row = {
        "kind": "320x256@25", "mode": "scan", "cameras": 2, "holds": True, "captured": 50, "dropped": 0,
        "capture_to_track_p50_ms": 30.0, "capture_to_track_p99_ms": 90.0, "share": 0.4, "longest_wait_s": 2.0,
        "cpu_percent_per_camera": 60.0, "memory_mb_per_camera": 400, "watts_per_camera": None,
    }  # fmt: skip
    text = report(
        {
            "machine": {"processor": "a processor", "cores_usable": 2},
            "rows": [row],
            "service": {"320x256@25": TIMES.model_dump()},
            "nano": {"320x256@25": {"nano openvino int8": 12.3}},
        }
    )
    assert text.startswith("a processor, 2 cores\n")
    assert "| 320x256@25 | scan | 2 | True | 50 | 0 | 30.0 | 90.0 | 0.4 | 2.0 | 60.0 | 400 | - |" in text
    assert "| 320x256@25 | DAS-Net, whole | 50.0 |" in text and "| 320x256@25 | nano openvino int8 | 12.3 |" in text


def test_sites_are_simulated_from_its_file(tmp_path: Path) -> None:
    file, out = tmp_path / "site.json", tmp_path / "rows.json"
    machine = {"cores_usable": 2}
    service = {"320x256@25": TIMES.model_dump()}
    file.write_text(json.dumps({"machine": machine, "objective_ms": 500.0, "service": service}))
    some = ["--kinds", "320x256@2", "--cameras", "2", "8", "--workers", "1", "4", "--seconds", "5", "--json", str(out)]
    done = script_in_process("simulate_site.py", file, *some)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert [(row["cameras"], row["workers"]) for row in rows] == [(2, 1), (8, 1), (2, 4), (8, 4)]
    assert rows[0]["capture_to_track_p50_ms"] == rows[3]["capture_to_track_p50_ms"]  # two cameras each
    assert all(row["holds"] and row["kind"] == "320x256@2" for row in rows)
    sized = script_in_process("simulate_site.py", file, "--size", "--seconds", "2")
    assert sized.returncode == 0 and "| 320x256@25 | " in sized.stdout
    unknown = script_in_process("simulate_site.py", file, "--kinds", "1x1@1")
    assert unknown.returncode == 2 and "--kinds 1x1@1; must be 320x256, @ and a frame rate" in unknown.stderr


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.alone
def test_what_is_simulated_is_what_the_program_does() -> None:
    """Median latency and frames kept within 15%, at 4, 8 and 16 cameras of 2 frames a second."""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'tests'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "endurance.check_simulation"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
