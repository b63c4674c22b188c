"""`dasnet status`: says when nothing runs, shows a live table in a terminal and one reading elsewhere; exit codes."""

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from support.program import CLIPS, DASNET, REPOSITORY, Running, dasnet_in_process

from pipeline.store import ledger
from pipeline.store.ledger import Ledger
from pipeline.types import Cause


def site(tmp_path: Path, cameras: list[dict[str, object]]) -> Path:
    path = tmp_path / "site.yaml"
    ports = {"metrics": {"port": 0}, "console": {"port": 0}}
    path.write_text(yaml.safe_dump({"cameras": cameras, "run_dir": str(tmp_path / "run"), **ports}))
    return path


def demo(name: str) -> dict[str, object]:
    return {"id": name, "uri": f"demo:clips/{CLIPS / 'IR_DRONE_015.mp4'}", "band": "infrared", "rate_fps": 2}


def test_nothing_runs_is_said_with_the_last_counts_and_a_wrong_configuration_is_refused(tmp_path: Path):
    config = site(tmp_path, [demo("north"), demo("gate")])
    with Ledger(tmp_path / "run" / "ledgers" / "north.ledger", credits=1) as account:
        account.dropped(Cause.OVERLOAD, 41)
        account.blind(Cause.CORRUPT, 2_500_000_000)
    (tmp_path / "run" / "metrics.address").write_text("http://127.0.0.1:9/metrics")  # a killed program leaves it behind
    told = dasnet_in_process("status", config)
    assert told.returncode == 1, told.stderr
    assert "dasnet is not running" in told.stdout
    (north,) = [line for line in told.stdout.splitlines() if "north" in line]
    assert north.split() == ["north", "down", "(offline)", "41", "0", "overload", "41", "0", "corrupt", "2.5"]
    wrong = dasnet_in_process("status", tmp_path / "none.yaml")
    assert wrong.returncode == 2 and "none.yaml: cannot be read" in wrong.stderr


@pytest.mark.slow
@pytest.mark.live
def test_a_running_site_is_shown_live_in_a_terminal_once_in_a_pipe_and_summed_up_at_its_end(tmp_path: Path):
    config = site(tmp_path, [demo("north")])
    with Running("run", config) as program:
        program.wait_for_metric('dasnet_frames_segmented_total{camera="north"}', 6)
        good = wait_until(lambda: dasnet_in_process("status", config), lambda told: told.returncode == 0)
        assert "nothing runs" not in good.stdout and "up" in good.stdout
        screen = in_a_terminal([*DASNET, "status", str(config)], until="north", times=3)
        assert "north" in screen and "segmented" in screen
        (capture,) = [pid for pid, command in program.children().items() if "worker capture" in command]
        os.kill(capture, signal.SIGSTOP)  # it hangs: no news of the camera
        try:
            hung = wait_until(lambda: dasnet_in_process("status", config), lambda told: "down" in told.stdout)
            assert hung.returncode == 1 and "capture-north" in hung.stdout
        finally:
            os.kill(capture, signal.SIGCONT)
        assert program.stop() == 0
    (summary,) = [line for line in program.lines if "camera closed" in line]
    account = ledger.read(tmp_path / "run" / "ledgers" / "north.ledger")
    assert account.balanced and account.in_flight == 0
    for part in (f"captured={account.captured}", f"segmented={account.segmented}", "dropped=", "failed=", "blind_s="):
        assert part in summary, summary
    assert "dasnet is not running" in dasnet_in_process("status", config).stdout


def wait_until(ask, good, timeout_s: float = 40):
    deadline_s = time.monotonic() + timeout_s
    while not good(answer := ask()):
        assert time.monotonic() < deadline_s, answer.stdout + answer.stderr
    return answer


def in_a_terminal(command: list[str], until: str, times: int) -> str:
    """What it draws, ended with Ctrl-C once it has drawn the text so many times; it must end with 0."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=REPOSITORY, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        drawn, deadline_s = b"", time.monotonic() + 30
        try:
            while drawn.count(until.encode()) < times and time.monotonic() < deadline_s:
                if select.select([ours], [], [], 1.0)[0]:
                    drawn += os.read(ours, 1 << 16)
            process.send_signal(signal.SIGINT)
            while time.monotonic() < deadline_s + 10 and select.select([ours], [], [], 10.0)[0]:
                try:
                    drawn += os.read(ours, 1 << 16)
                except OSError:  # the other end is closed
                    break
        finally:
            try:
                code = process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                os.close(ours)
    assert code == 0 and drawn.count(until.encode()) >= times, drawn.decode(errors="replace")
    return drawn.decode(errors="replace")
