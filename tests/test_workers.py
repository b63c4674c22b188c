"""A worker ends when it is told to, whatever its threads are doing."""

import subprocess
import sys

SET_ON = "import os, signal, threading, time; from pipeline.workers import set_on; stop = threading.Event()\n"


def ended(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", SET_ON + code], capture_output=True, text=True, timeout=30)


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
