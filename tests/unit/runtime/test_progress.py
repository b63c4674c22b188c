"""Progress of long work: a bar for who looks at a terminal, lines for who reads a log."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.program import CLIPS, DASNET, REPOSITORY, die_with_parent, shortened

from pipeline.runtime import progress
from pipeline.runtime.progress import ProgressDisplay, duration

PRINT_EACH_STEP = (
    "from pipeline.runtime import progress; progress.PRINT_PERIOD_S = 0.0; from pipeline.__main__ import main; main()"
)


def on_a_terminal(*arguments: str | Path) -> str:
    """What a command shows there."""
    ours, theirs = pty.openpty()
    command = [*DASNET, *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command, stdout=theirs, stderr=theirs, cwd=REPOSITORY, env=environment, preexec_fn=die_with_parent
    ) as program:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        os.close(ours)
        assert program.wait(30) == 0, shown
    return shown.decode()


def test_lines_come_every_ten_seconds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 100.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now_s))
    with ProgressDisplay("frames") as display:
        display.start("clip (1 of 2)")
        for done in range(1, 201):  # 8 a second
            now_s += 0.125
            display.advance(done, 600)
        display.start("other (2 of 2)")
        now_s += 8
        display.advance(40, None)
    assert capsys.readouterr().err.splitlines() == [
        "clip (1 of 2): 80/600 frames (13 %), 8.0 frames/s, 0:01:05 left",
        "clip (1 of 2): 160/600 frames (26 %), 8.0 frames/s, 0:00:55 left",
        "other (2 of 2): 40 frames, 5.0 frames/s",
    ]
    assert duration(3723.4) == "1:02:03"


@pytest.mark.slow
def test_replay_says_how_far_it_is_in_a_log(tmp_path: Path) -> None:
    clip = shortened(CLIPS / "IR_DRONE_015.mp4", 6, tmp_path / "short.mp4")
    command = [sys.executable, "-c", PRINT_EACH_STEP, "replay", str(clip), "--out", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 6
    assert re.fullmatch(r"short: 3/6 frames \(50 %\), \d+\.\d frames/s, 0:\d\d:\d\d left", lines[2])
    assert result.stdout.splitlines() == [f"1 recordings, 6 frames, 0 alerts: {tmp_path / 'out' / 'report.html'}"]


def test_replay_has_a_bar_on_a_terminal(tmp_path: Path) -> None:
    clip = shortened(CLIPS / "IR_DRONE_015.mp4", 6, tmp_path / "short.mp4")
    shown = on_a_terminal("replay", clip, "--out", tmp_path / "out")
    assert "━" in shown and "6/6" in shown and "1 recordings, 6 frames" in shown


@pytest.mark.slow
def test_train_has_a_bar_with_the_time_left_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASNET_CLIPS", str(CLIPS.parent))
    changes = [
        word for change in ("steps=3", "schedule.decay_steps=1", f"cache={tmp_path}") for word in ("--set", change)
    ]
    shown = on_a_terminal("train", "configs/training/tiny.yaml", "--out", tmp_path / "run", *changes)
    assert "━" in shown and "3/3" in shown and " left" in shown
    assert f"checkpoint: {tmp_path / 'run' / 'ema.safetensors'}" in "".join(shown.split("\r\n")).replace("\n", "")
