"""Freed memory is reused, and the engine selected by a timing is cached."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model import Engine, build
from model.engine import autotune
from model.engine.autotune import select_engine

FAULTS = """
import resource, sys, threading
from model.allocator import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()
import torch
def work():
    for _ in range(20):  # aligned blocks are found again once some have been freed side by side
        torch.ones(16 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16 << 20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(mode: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "THP_"))}
    result = subprocess.run(
        [sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, env=environment, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.slow
def test_memory_once_faulted_in_is_used_again_also_in_a_thread():
    assert faults("kept") < faults("stock") / 20


def test_the_selection_is_timed_once_and_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "has_fast_bf16", lambda: True)
    network = build("dasnet", start_out_channels=16)
    first = select_engine(network, 128, 1)
    assert first.kind == "torch" and "timed at" in first.reason
    (kept,) = (tmp_path / "dasnet").iterdir()
    kept.write_text(json.dumps({"kind": "torch", "precision": "bf16", "reason": "kept"}))
    assert select_engine(network, 128, 1).reason == "kept"
    with Engine(network, threads=1) as engine:
        assert engine.precision == "bf16"
    kept.write_text("{damaged")
    assert select_engine(network, 128, 1).reason.startswith("timed at")


def test_without_a_writable_cache_an_engine_is_still_selected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(autotune, "has_fast_bf16", lambda: True)
    assert select_engine(build("dasnet", start_out_channels=16), 128, 1).kind == "torch"


def test_a_network_of_another_kind_runs_unchanged():
    assert select_engine(torch.nn.Conv2d(3, 1, 1), 1, None).kind == "reference"


def test_engines_with_their_own_thread_counts_live_side_by_side():
    network = build("dasnet", start_out_channels=16)
    with Engine(network, threads=1) as one, Engine(network, threads=2) as two:
        counts = [engine._backend._executor.submit(torch.get_num_threads).result() for engine in (one, two, one)]  # type: ignore[attr-defined]
    assert counts == [1, 2, 1]
