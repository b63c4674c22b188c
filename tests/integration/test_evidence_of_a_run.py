"""The real program: its evidence log is whole after a kill; an alert's evidence is exported and verified."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from support.program import CLIPS, Running, dasnet_in_process

from pipeline.evidence.leaves import ProgramLeaf, decode_leaf
from pipeline.evidence.sidecars import read_sidecar
from pipeline.store.reader import StoreReader

pytestmark = pytest.mark.live
POSE = {"lat": 52.5, "lon": 13.4, "azimuth_deg": 90, "hfov_deg": 20}


@pytest.mark.slow
def test_the_evidence_of_a_run_with_a_killed_worker(tmp_path: Path) -> None:
    uri = f"demo:clips/{CLIPS / 'IR_DRONE_015.mp4'}"
    camera = {"id": "cam", "uri": uri, "band": "infrared", "rate_fps": 6, "pose": POSE}
    ports = {"metrics": {"port": 0}, "console": {"port": 0}, "recording": {"max_s": 8, "post_s": 0.5}}
    config, run_dir = tmp_path / "site.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump({"cameras": [camera], "run_dir": str(run_dir)} | ports))
    with Running("run", config) as program:
        program.wait_for_metric('dasnet_tracks_confirmed_total{camera="cam"}', 1, 120)
        program.wait_for_metric("dasnet_evidence_signed_head_timestamp_seconds{}", 1)
        tracker = next(pid for pid, command in program.children().items() if "worker tracking" in command)
        os.kill(tracker, signal.SIGKILL)
        program.wait_for_metric('dasnet_worker_restarts_total{worker="tracking"}', 1)
        program.wait_for_metric('dasnet_tracks_confirmed_total{camera="cam"}', 2, 120)
        program.stop()
    done = dasnet_in_process("evidence", "verify", config)
    assert done.returncode == 0 and "verified: " in done.stdout, done.stdout
    leaves = [decode_leaf(line) for line in (run_dir / "evidence" / "log.jsonl").read_bytes().splitlines()]
    assert [leaf.state for leaf in leaves if isinstance(leaf, ProgramLeaf)] == ["started", "started", "stopped"]
    with StoreReader(run_dir / "store.sqlite") as reader:
        newest, *_, oldest = reader.alerts(10)
    (sidecar,) = (read_sidecar(path.read_bytes(), "") for path in (run_dir / "evidence").glob(f"{newest.id}.json"))
    assert sidecar.tracks[0].boxes[0].azimuth_deg is not None and f"snapshots/{newest.id}.jpg" in sidecar.files
    (lost,) = (read_sidecar(path.read_bytes(), "") for path in (run_dir / "evidence").glob(f"{oldest.id}.json"))
    assert lost.tracks_incomplete and not lost.tracks
    assert dasnet_in_process("evidence", "pin", config, newest.id).stdout == f"{newest.id}: pinned\n"
    assert dasnet_in_process("evidence", "pin", config, "none").returncode == 2
    package = tmp_path / "alert.zip"
    done = dasnet_in_process("evidence", "export", config, newest.id, "--out", package)
    assert done.returncode == 0, done.stderr
    key = dasnet_in_process("keys", run_dir).stdout.splitlines()[0].rpartition(": ")[2]
    done = dasnet_in_process("evidence", "verify", package, "--key", key)
    assert done.returncode == 0 and f"signed by {key}" in done.stdout, done.stdout
    zipfile.ZipFile(package).extractall(tmp_path / "unpacked")
    script = [sys.executable, "-I", str(tmp_path / "unpacked" / "verify.py"), key]
    assert subprocess.run(script, cwd="/").returncode == 0
    next((run_dir / "clips").glob("*.mp4")).unlink()
    assert dasnet_in_process("evidence", "verify", run_dir).returncode == 1
