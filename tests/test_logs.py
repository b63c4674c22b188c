"""The log: rate-limited, rotated among processes, without secrets, complete also for what nobody caught."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from pipeline.config_file import load
from pipeline.errors import ConfigError
from pipeline.logs import LogFile, RateLimit, files
from pipeline.redaction import HIDDEN, Redactor

SITE = 'cameras: [{{id: a, uri: "rtsp://u:hunter-2@192.0.2.1/s"}}]\nlog: {{file: {log}, format: {format}}}\n'
SAY = """
import logging, sys, threading, warnings
from pathlib import Path
import structlog
from pipeline import logs
from pipeline.config_file import load
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
    assert (last["event"], last["message"], last["left_out"]) == ("messages left out", "camera lost", 80)
    if form == "json":
        assert [json.loads(line) for line in ended.stderr.splitlines()] == entries
    else:
        assert len(ended.stderr.splitlines()) > len(entries) and "camera=a" in ended.stderr  # tracebacks take lines


def test_the_same_message_comes_so_often_in_a_period_and_then_says_what_was_left_out():
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
    assert passes(camera="a") == {"event": "lost", "camera": "a", "left_out": 7}
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


def test_a_log_file_that_cannot_be_written_is_a_clear_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=rf"log.file: {tmp_path} cannot be written \(Is a directory\)"):
        LogFile(tmp_path)


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
