"""The log: rate-limited, rotated among processes, without secrets, complete also for what nobody caught."""

import ast
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from support.program import DASNET, Running

from pipeline import stdio
from pipeline.config.file import load
from pipeline.errors import ConfigError
from pipeline.redaction import HIDDEN, Redactor
from pipeline.runtime.logs import LogFile, RateLimit, files

SITE = 'cameras: [{{id: a, uri: "rtsp://u:hunter-2@192.0.2.1/s"}}]\nlog: {{file: {log}, format: {format}}}\n'
SAY = """
import logging, sys, threading, warnings
from pathlib import Path
import structlog
from pipeline.runtime import logs
from pipeline.config.file import load
logs.configure(load(Path(sys.argv[1])), "capture-a")
log = structlog.get_logger().bind(camera="a")
for number in range(100):
    log.warning("camera lost", reason=f"attempt {number} with hunter-2")
log.info("camera up")
logging.getLogger("somebody").error("their %s", "hunter-2")
warnings.warn("old ways")
def fail(): raise ValueError("rtsp://other:password@h/ in a thread")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
raise ValueError("hunter-2 at the end")
"""


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_process_tells_everything_once_and_no_secret(tmp_path: Path, form: str):
    site, log = tmp_path / "site.yaml", tmp_path / "logs" / "site.log"
    site.write_text(SITE.format(log=log, format=form))
    ended = subprocess.run([sys.executable, "-c", SAY, site], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and ended.stdout == ""
    text = log.read_text()
    for secret in ("hunter-2", "password@"):
        assert secret not in text + ended.stderr
    entries = [json.loads(line) for line in text.splitlines()]
    said = [entry["event"] for entry in entries]
    assert {entry["worker"] for entry in entries} == {"capture-a"}
    assert said.count("camera lost") == 20 and said.count("camera up") == 1
    assert "their ***" in said and any("old ways" in event for event in said)
    uncaught = [entry["exception"] for entry in entries if entry["event"] == "uncaught error"]
    assert len(uncaught) == 2 and "in a thread" in uncaught[0] and f"{HIDDEN} at the end" in uncaught[1]
    last = entries[-1]
    assert (last["event"], last["message"], last["suppressed"]) == ("messages suppressed", "camera lost", 80)
    if form == "json":
        assert [json.loads(line) for line in ended.stderr.splitlines()] == entries
    else:
        assert len(ended.stderr.splitlines()) > len(entries) and "camera=a" in ended.stderr  # tracebacks take lines


LOSE = """
import logging, os, sys
from pathlib import Path
import structlog
from pipeline import stdio
from pipeline.runtime import logs
from pipeline.config.file import load
stdio.protect()
logs.configure(load(Path(sys.argv[1])), "capture-a")
log = structlog.get_logger()
for number in range(1500):
    log.warning(f"line {number} {'x' * 50}")
log.error("surrogate \\udcff")
log.error("odd", thing=type("Odd", (), {"__repr__": lambda self: 1 / 0})())
logging.getLogger("somebody").error("%d", "no number")
try:
    raise ValueError("in a traceback " + "y" * 9000)
except ValueError:
    log.exception("failed")
print("told by print", file=sys.stderr)
stdio.announce("metrics: http://127.0.0.1:1/metrics")
log.info("at the end")
Path(sys.argv[2]).write_text(repr(stdio.lost))
"""


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", "0<&- >&- 2>&-", ">/dev/full 2>/dev/full", "gone", "stalled"])
def test_outputs_that_cannot_be_written_end_nothing_and_what_is_lost_is_counted(tmp_path: Path, where: str):
    site, log, counts = tmp_path / "site.yaml", tmp_path / "site.log", tmp_path / "counts"
    site.write_text(SITE.format(log=log, format="console"))
    command = [sys.executable, "-c", LOSE, str(site), str(counts)]
    if where in ("gone", "stalled"):  # a pipe that nobody reads any more; or whose reader stands still
        reader, writer = os.pipe()
        if where == "gone":
            os.close(reader)
        ended = subprocess.run(command, stdout=writer, stderr=writer, timeout=60)
        os.close(writer)
    else:
        ended = subprocess.run(["sh", "-c", f'exec "$0" "$@" {where}', *command], timeout=60)
    assert ended.returncode == 0
    lost = ast.literal_eval(counts.read_text())
    assert lost["file"] == 1, "the one that cannot be rendered"
    assert lost["stderr"] > 0 or where == "0<&- >&- 2>&-" or where == "2>&-"  # /dev/null takes their place
    assert (lost["stdout"] == 1) == (where in (">/dev/full 2>/dev/full", "gone", "stalled"))
    said = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert len(said) == 1504 and said[-4:] == ["surrogate \udcff", "%d", "failed", "at the end"]


def test_the_same_message_comes_so_often_in_a_period_and_then_says_how_many_were_suppressed():
    now_s = [0.0]
    limit = RateLimit(3, 60.0, lambda: now_s[0])

    def passes(**event: object) -> dict[str, object] | None:
        try:
            return dict(limit(None, "warning", {"event": "lost", **event}))
        except structlog.DropEvent:
            return None

    assert [passes(camera="a", n=n) is not None for n in range(10)] == [True] * 3 + [False] * 7
    assert passes(camera="b") == {"event": "lost", "camera": "b"}, "another camera's is another message"
    now_s[0] = 60.0
    assert passes(camera="a") == {"event": "lost", "camera": "a", "suppressed": 7}
    assert passes(camera="a") == {"event": "lost", "camera": "a"}


def _fill(path: Path, name: str) -> None:
    file = LogFile(path, max_bytes=4000, kept=200)
    for number in range(500):
        file.write(f"{name} {number:04} {'x' * 60}")


def test_processes_rotate_one_file_and_lose_no_line(tmp_path: Path):
    path = tmp_path / "site.log"
    writers = [multiprocessing.get_context("fork").Process(target=_fill, args=(path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    logs = sorted(tmp_path.iterdir())
    assert len(logs) > 20 and all(log.stat().st_size <= 4000 + 3 * 70 for log in logs)
    lines = [line[:6] for log in logs for line in log.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name} {number:04}" for name in "abc" for number in range(500))


def test_old_logs_are_dropped_and_a_removed_one_is_begun_anew(tmp_path: Path):
    path = tmp_path / "site.log"
    file = LogFile(path, max_bytes=100, kept=4)
    for number in range(20):
        file.write(f"{number} {'x' * 60}")
    assert [log.read_text().split()[0] for log in files(path)] == ["19", "18", "17", "16", "15"]
    assert len(list(tmp_path.iterdir())) == 5
    path.unlink()
    file.write("again")
    assert path.read_text() == "again\n"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_log_file_where_none_can_ever_be_is_a_clear_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=rf"log.file: {tmp_path} cannot be written \(Is a directory\)"):
        LogFile(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"log.file: .*/file/site.log cannot be written"):
        LogFile(tmp_path / "file" / "site.log")


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    counts = {"stderr": 0, "stdout": 0, "file": 0}
    monkeypatch.setattr(stdio, "lost", counts)
    return counts


def test_a_log_file_that_cannot_be_rotated_grows_to_twice_its_size(tmp_path: Path, lost: dict[str, int]):
    path = tmp_path / "site.log"
    file = LogFile(path, max_bytes=100, kept=1)
    path.with_name("site.log.1").mkdir()  # where the full one should go
    (path.with_name("site.log.1") / "x").touch()
    for number in range(20):
        file.write(f"{number:02} {'x' * 40}")
    assert [line[:2] for line in path.read_text().splitlines()] == ["00", "01", "02", "03", "04"] and lost["file"] == 15
    shutil.rmtree(path.with_name("site.log.1"))
    file.write("again")
    assert path.read_text() == "again\n" and lost["file"] == 15


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=3", "small", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs to mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_costs_the_lines_of_its_time(small_disk: Path, lost: dict[str, int]):
    path, filler = small_disk / "site.log", small_disk / "filler"
    file = LogFile(path)
    number = 0
    with filler.open("wb", buffering=0) as full, suppress(OSError):
        while full.write(b"x" * 100):
            pass
    while not lost["file"]:  # what was left of a page
        file.write(f"{number:04} {'x' * 1000}")
        number += 1
    late = LogFile(small_disk / "new.log")
    late.write("lost")
    assert lost["file"] == 2 and not late.is_open
    filler.unlink()
    late.write("there")
    assert (small_disk / "new.log").read_text() == "there\n" and late.is_open
    file.write("after")
    lines = path.read_text().splitlines()
    assert lines[-1] == "after" and all(len(line) == 1005 for line in lines[: number - 1])


def test_a_secret_is_found_in_every_spelling():
    secret = 'p@ss/"wört\\ %41'
    redact = Redactor([secret, "ab", ""])
    for text in (
        secret, "p%40ss%2F%22w%C3%B6rt%5C%20%2541", "p%40ss/%22w%C3%B6rt%5C%20%2541", json.dumps(secret),
        json.dumps(secret, ensure_ascii=False), repr(secret), f"before {secret} after",
    ):  # fmt: skip
        hidden = redact(text)
        assert HIDDEN in hidden and "ss" not in hidden and "rt" not in hidden, text
    assert redact("a cab at ab") == "a cab at ab", "what is so short is part of innocent words"


def test_what_came_from_outside_is_a_secret_unless_it_is_a_camera_s_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in {"CAM_HOST": "192.0.2.1", "CAM_USER": "operator", "CAM_PASSWORD": "swordfish"}.items():
        monkeypatch.setenv(name, value)
    site = tmp_path / "site.yaml"
    site.write_text('cameras: [{id: a, uri: "rtsp://${CAM_USER}:${CAM_PASSWORD}@${CAM_HOST}/s"}]')
    assert load(site).redactor("operator swordfish 192.0.2.1") == f"{HIDDEN} {HIDDEN} 192.0.2.1"


@pytest.mark.live
def test_the_program_goes_on_where_stderr_cannot_be_written(tmp_path: Path):
    site = {"cameras": [{"id": "north", "uri": "demo:scene?fps=4"}], "run_dir": str(tmp_path / "run")}
    (tmp_path / "site.yaml").write_text(json.dumps(site | {"metrics": {"port": 0}, "console": {"port": 0}}))
    segmented = 'dasnet_frames_segmented_total{camera="north"}'
    with Running("run", tmp_path / "site.yaml", command=["sh", "-c", 'exec "$0" "$@" 2>/dev/full', *DASNET]) as program:
        program.wait_for_line("^console: http://")
        program.wait_for_metric(segmented, 3, timeout_s=120)
        (tracking,) = [pid for pid, command in program.children().items() if "worker tracking" in command]
        os.kill(tracking, signal.SIGKILL)
        program.wait_for_metric('dasnet_worker_restarts_total{worker="tracking"}', 1)
        program.wait_for_metric(segmented, program.metrics()[segmented] + 3)
        assert program.metrics()['dasnet_log_lines_lost_total{output="stderr"}'] > 0
        assert program.stop() == 0
    assert "worker ended" in (tmp_path / "run" / "dasnet.log").read_text()
