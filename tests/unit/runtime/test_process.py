"""A worker ends when it is told to, whatever its threads are doing."""

import subprocess
import sys
from pathlib import Path

from support.program import DASNET

from pipeline.config.camera import Camera
from pipeline.config.models import Config
from pipeline.runtime.control import SupervisorEnd

SETUP = (
    "import os, signal, threading, time; from pipeline.runtime.process import set_event_on_signal\n"
    "stop = threading.Event()\n"
)


def ended(code: str, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", SETUP + code], capture_output=True, text=True, timeout=30, cwd=folder)


def test_a_signal_that_comes_while_the_event_is_locked_sets_it() -> None:
    code = "set_event_on_signal(signal.SIGTERM, stop)\nwith stop._cond: os.kill(os.getpid(), signal.SIGTERM)\n"
    done = ended(code + "assert stop.wait(20)")
    assert done.returncode == 0, done.stderr


def test_a_process_that_does_not_end_says_where_it_hangs_and_is_ended() -> None:
    done = ended("set_event_on_signal(signal.SIGTERM, stop, 0.2); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)")
    assert done.returncode == 1
    assert "Timeout" in done.stderr and "<string>" in done.stderr


def test_what_is_there_when_a_worker_has_settled_is_not_searched_for_garbage() -> None:
    done = ended(
        "import gc; from pipeline.runtime.process import finish_startup\n"
        "there = [[number] for number in range(1000)]\n"
        "finish_startup()\n"
        "assert gc.get_freeze_count() > 1000\n"
        "assert not any(found is there for found in gc.get_objects())\n"
    )
    assert done.returncode == 0, done.stderr


def capture(tmp_path: Path) -> tuple[SupervisorEnd, Config]:
    """The configuration is handed over before the worker starts."""
    end = SupervisorEnd()
    config = Config(cameras=[Camera(id="cam", uri="demo:scene", rate_fps=1)], run_dir=tmp_path / "run")
    end.hand_over("run1", 1, config)
    return end, config


def test_a_worker_whose_supervisor_died_before_it_could_ask_for_its_death_signal_ends_at_once(tmp_path: Path) -> None:
    end, _ = capture(tmp_path)  # made by this process, which is not the worker's parent
    worker = " ".join([*DASNET, "worker", "capture", "--camera", "cam", "-"])
    with end.worker_end as worker_end:
        done = subprocess.run(["sh", "-c", f"exec 3<&0; {worker} <&3 & wait $!"], stdin=worker_end, timeout=30)
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    end.close()


def test_a_worker_whose_supervisor_is_gone_ends(tmp_path: Path) -> None:
    end, _ = capture(tmp_path)
    with end.worker_end as worker_end:
        worker = subprocess.Popen([*DASNET, "worker", "capture", "--camera", "cam", "-"], stdin=worker_end.fileno())
    end.close()
    assert worker.wait(30) == 0


def test_what_is_for_the_supervisor_is_refused_in_words() -> None:
    for stdin in (subprocess.DEVNULL, subprocess.PIPE):
        done = subprocess.run(
            [*DASNET, "worker", "console", "-"], stdin=stdin, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 2 and "expected the site's YAML file" in done.stderr


def test_a_worker_s_free_memory_goes_back_to_the_kernel(tmp_path: Path) -> None:
    """200 MB in blocks that lie between small ones that stay, as a fragmented heap has them."""
    done = ended(
        "import ctypes, sys, pathlib; from pipeline.runtime import process\n"
        "from pipeline.runtime.control import Control\n"
        "from pipeline.config.file import load\n"
        "def resident_mb(): return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * 4096 / 1e6\n"
        "c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p; c.malloc.argtypes = [ctypes.c_size_t]\n"
        "c.free.argtypes = [ctypes.c_void_p]; before_mb = resident_mb()\n"
        "pairs = [(c.malloc(100_000), c.malloc(4000)) for _ in range(2000)]\n"
        "for large, _ in pairs: ctypes.memset(large, 1, 100_000)\n"
        "for large, _ in pairs: c.free(large)\n"
        "assert resident_mb() > before_mb + 150, 'glibc keeps it'\n"
        "process.TRIM_PERIOD_S = 0.05\n"
        "pathlib.Path('site.yaml').write_text('cameras: [{id: a, uri: rtsp://127.0.0.1/a}]')\n"
        "control = Control(load(pathlib.Path('site.yaml')))\n"
        "end_s = time.monotonic() + 20; process.start_worker('capture-a', control)\n"
        "while resident_mb() > before_mb + 50: assert time.monotonic() < end_s, resident_mb(); time.sleep(0.02)\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
