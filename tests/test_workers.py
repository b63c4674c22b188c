"""A worker ends when it is told to, whatever its threads are doing."""

import subprocess
import sys
from pathlib import Path

SET_ON = "import os, signal, threading, time; from pipeline.workers import set_on; stop = threading.Event()\n"


def ended(code: str, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", SET_ON + code], capture_output=True, text=True, timeout=30, cwd=folder)


def test_a_signal_that_comes_while_the_event_is_locked_sets_it() -> None:
    code = "set_on(signal.SIGTERM, stop)\nwith stop._cond: os.kill(os.getpid(), signal.SIGTERM)\n"
    done = ended(code + "assert stop.wait(20)")
    assert done.returncode == 0, done.stderr


def test_a_process_that_does_not_end_says_where_it_hangs_and_is_ended() -> None:
    done = ended("set_on(signal.SIGTERM, stop, 0.2); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)")
    assert done.returncode == 1
    assert "Timeout" in done.stderr and "<string>" in done.stderr


def test_what_is_there_when_a_worker_has_settled_is_not_searched_for_garbage() -> None:
    done = ended(
        "import gc; from pipeline.workers import settle\n"
        "there = [[number] for number in range(1000)]\n"
        "settle()\n"
        "assert gc.get_freeze_count() > 1000\n"
        "assert not any(found is there for found in gc.get_objects())\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_worker_s_free_memory_goes_back_to_the_kernel(tmp_path: Path) -> None:
    """200 MB in blocks that lie between small ones that stay, as a fragmented heap has them."""
    done = ended(
        "import ctypes, sys, pathlib; from pipeline import workers; from pipeline.config import load\n"
        "def resident_mb(): return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * 4096 / 1e6\n"
        "c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p; c.malloc.argtypes = [ctypes.c_size_t]\n"
        "c.free.argtypes = [ctypes.c_void_p]; before_mb = resident_mb()\n"
        "pairs = [(c.malloc(100_000), c.malloc(64)) for _ in range(2000)]\n"
        "for large, _ in pairs: ctypes.memset(large, 1, 100_000)\n"
        "for large, _ in pairs: c.free(large)\n"
        "assert resident_mb() > before_mb + 150, 'glibc keeps it'\n"
        "workers.TRIM_PERIOD_S = 0.05\n"
        "pathlib.Path('site.yaml').write_text('cameras: [{id: a, uri: rtsp://127.0.0.1/a}]')\n"
        "end_s = time.monotonic() + 20; workers.start_worker('capture-a', load(pathlib.Path('site.yaml')))\n"
        "while resident_mb() > before_mb + 50: assert time.monotonic() < end_s, resident_mb(); time.sleep(0.02)\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
