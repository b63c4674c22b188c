"""Ctrl-C and SIGTERM in the first seconds of a command: no traceback, no thread dump, and the usual exit code."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.program import CLIPS, DASNET, REPOSITORY, die_with_parent

# Stands in for a large library that is just being imported, and prints and replaces what is raised meanwhile.
SLOW_LIBRARY = """
import time, traceback
print("importing", flush=True)
try:
    time.sleep(60)
except BaseException:
    traceback.print_exc()
    raise ImportError("half imported")
"""
SITE = """
cameras:
  - {{id: north, uri: "demo:scene?seed=4", band: visible}}
run_dir: {run_dir}
metrics: {{port: 0}}
console: {{port: 0}}
"""


def started(folder: Path, *arguments: str | Path, library: str = "torch") -> "subprocess.Popen[str]":
    """A command in a session of its own, which imports a slow library."""
    (folder / "slow").mkdir()
    (folder / "slow" / f"{library}.py").write_text(SLOW_LIBRARY)
    return subprocess.Popen(
        [*DASNET, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(folder / "slow")},
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def wait_for_import(program: "subprocess.Popen[str]") -> None:
    assert program.stdout is not None
    for line in program.stdout:
        if line == "importing\n":
            return
    raise AssertionError("nothing was imported")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "command",
    [
        ("replay", CLIPS / "IR_BIRD_003.mp4", "--out", "OUT"),
        ("predict", "photo.jpg", "--out", "OUT"),
        ("train", "configs/training/tiny.yaml", "--out", "OUT"),
        ("bench",),
    ],
)
def test_a_command_that_is_still_importing_just_ends(
    tmp_path: Path, command: tuple[str | Path, ...], number: signal.Signals
) -> None:
    with started(tmp_path, *(tmp_path if word == "OUT" else word for word in command)) as program:
        wait_for_import(program)
        os.killpg(program.pid, number)
        output, _ = program.communicate(timeout=20)
    assert (program.returncode, output) == (-number, "")


@pytest.mark.parametrize("to_group", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_run_stops_while_its_workers_are_still_importing(tmp_path: Path, to_group: bool) -> None:
    (tmp_path / "site.yaml").write_text(SITE.format(run_dir=tmp_path / "run"))
    with started(tmp_path, "run", tmp_path / "site.yaml") as program:
        wait_for_import(program)
        began_s = time.monotonic()
        if to_group:
            os.killpg(program.pid, signal.SIGINT)
        else:
            program.send_signal(signal.SIGTERM)
        output, _ = program.communicate(timeout=30)
    assert program.returncode == 0
    assert not any(word in output for word in ("Traceback", "Thread 0x", "Timeout", "error")), output
    assert time.monotonic() - began_s < 6.0  # before anything hangs


def test_workers_never_hear_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(SITE.format(run_dir=tmp_path / "run"))
    with started(tmp_path, "run", tmp_path / "site.yaml") as program:
        wait_for_import(program)
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        assert len(children) == 4
        for child in children:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
            masked = int(status["SigBlk"], 16) | int(status["SigIgn"], 16)
            assert masked & 1 << signal.SIGINT - 1
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=30)


def test_what_is_open_is_closed_first_and_a_second_signal_ends_at_once() -> None:
    code = (
        "import time; from pipeline.runtime.interruption import end_quietly; end_quietly()\n"
        "try: print('begun', flush=True); time.sleep(60)\n"
        "finally: print('closed', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None and program.stdout.readline() == "begun\n"
        program.send_signal(signal.SIGINT)
        assert program.stdout.readline() == "closed\n"
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == -signal.SIGINT


def test_signals_that_are_ignored_stay_so() -> None:
    code = (
        "import os, signal; from pipeline.runtime.interruption import end_quietly\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); end_quietly(); os.kill(os.getpid(), signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 128 + signal.SIGTERM
