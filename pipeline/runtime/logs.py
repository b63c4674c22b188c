"""The log of a process: what it says, Python's own loggers and warnings, and every error that nobody caught.

In: structlog's events.  Out: one line each, on stderr as `log.format` says, and as JSON in the site's log file, to
which all its processes append.  No line holds a secret, and the same message comes at most SAME_A_MINUTE times a minute
from one process; the next one, or the last line of the process, says how many were left out.

Logging never raises: a line that cannot be written or rendered is lost and counted (`streams.lost`).
"""

import atexit
import fcntl
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from pipeline import stdio
from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.redaction import redact, redact_every, remember

SAME_A_MINUTE = 20
MAX_BYTES = 10_000_000  # of the log file, before it is put aside
MOST_KEYS = 1000
KEPT = 4  # files put aside: FILE.1, the newest, to FILE.4

_ERRORS = (logging.ERROR, logging.CRITICAL)
_NAMES = ("camera", "sink", "worker")  # what makes two messages of one text different


def configure(config: Config, worker: str = "supervisor") -> None:
    """Raise ConfigError where the log file is a folder, or in none."""
    limit = RateLimit(SAME_A_MINUTE, 60.0)
    formats: dict[str, Processor] = {
        "console": structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        "json": structlog.processors.JSONRenderer(),
    }
    file = LogFile(config.log_path)
    remember(config.secrets)
    structlog.configure(
        processors=[
            _Lossy(
                limit,
                _Named(worker),
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _Lines(formats[config.log.format], file),
            )
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stdio.stderr),
    )
    if not file.is_open:
        structlog.get_logger().warning("log file cannot be opened, trying again", path=str(config.log_path))
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda fault: _uncaught(fault.exc_type, fault.exc_value, fault.exc_traceback)
    atexit.register(limit.report)


def files(path: Path) -> list[Path]:
    """The log file and those put aside, as far as they are there, the newest first."""
    return [file for file in (path, *(_aside(path, number) for number in range(1, KEPT + 1))) if file.exists()]


class RateLimit:
    """Lets the same message through `limit` times in `period_s`.  Thread-safe."""

    def __init__(self, limit: int, period_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._period_s, self._clock = limit, period_s, clock
        self._turn = threading.Lock()
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}  # when its period began, how many since

    def __call__(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        key = (level, str(event["event"])[:200], *(str(event.get(name, "")) for name in _NAMES))
        now_s = self._clock()
        with self._turn:
            begun_s, count = self._seen.get(key, (now_s, 0))
            left_out = 0
            if now_s - begun_s >= self._period_s:
                begun_s, count, left_out = now_s, 0, max(0, count - self._limit)
            self._seen[key] = begun_s, count + 1
            if len(self._seen) > MOST_KEYS:  # libraries put numbers into their messages
                self._seen = {k: v for k, v in self._seen.items() if now_s - v[0] < self._period_s}
            if count >= self._limit:
                raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        return event

    def report(self) -> None:
        """Log what was left out and has not been told."""
        with self._turn:
            seen, self._seen = self._seen, {}
        for (_, message, *_), (_, count) in seen.items():
            if count > self._limit:
                structlog.get_logger().info("messages left out", message=message, left_out=count - self._limit)


class LogFile:
    """Lines to one file, from several processes.  Full, it is put aside by whoever writes the line after.

    A disk that is full, read-only or gone costs lines, which are counted, never the work that they tell of; it is
    tried again with each line.  Raises ConfigError for a path where no file can ever be.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path, self._max_bytes, self._kept = path, max_bytes, kept
        self._turn = threading.Lock()
        self._descriptor = -1  # not open
        self._cut = False  # the last line is not whole
        try:
            self._reopen()
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            raise ConfigError(f"log.file: {path} cannot be written ({error.strerror})") from error
        except OSError:
            pass

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def write(self, line: str) -> None:
        data = line.encode(errors="backslashreplace") + b"\n"
        with self._turn:
            try:
                self._append(data)
            except OSError:
                stdio.lost["file"] += 1

    def _append(self, data: bytes) -> None:
        try:
            self._rotate(len(data))
        except OSError:  # go on in the file there is, but not without end
            if not self.is_open or os.fstat(self._descriptor).st_size > 2 * self._max_bytes:
                raise
        if self._cut:
            data = b"\n" + data
        written = os.write(self._descriptor, data)
        self._cut = written < len(data)
        if self._cut:
            raise OSError("the disk is full")

    def _reopen(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        if self.is_open:
            os.close(self._descriptor)
        self._descriptor = fresh

    def _rotate(self, coming: int) -> None:
        if not self.is_open:
            self._reopen()
        if not self._moved() and os.fstat(self._descriptor).st_size + coming <= self._max_bytes:
            return
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # goes with the descriptor; another process may have been first
        try:
            if not self._moved():
                for number in range(self._kept - 1, 0, -1):
                    older = _aside(self._path, number)
                    if older.exists():
                        older.replace(_aside(self._path, number + 1))
                self._path.replace(_aside(self._path, 1))
            self._reopen()
        except OSError:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            raise

    def _moved(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


class _Lossy:
    """Run the steps of a message; one that fails costs the message, which is counted, never the work it tells of."""

    def __init__(self, *steps: Processor) -> None:
        self._steps = steps

    def __call__(self, logger: WrappedLogger, level: str, event: EventDict) -> Any:
        result: Any = event
        try:
            for step in self._steps:
                result = step(logger, level, result)
        except structlog.DropEvent:
            raise
        except Exception as error:
            stdio.lost["file"] += 1
            raise structlog.DropEvent from error
        return result


class _Named:
    """Says which process speaks, in whichever of its threads."""

    def __init__(self, worker: str) -> None:
        self._worker = worker

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {"worker": self._worker, **event}


class _Lines:
    """The last step: the event as JSON to the file, and as configured to stderr.

    Secrets are hidden in the values, before these are quoted, and in the line, which has also what is no text.
    """

    def __init__(self, shown: Processor, file: LogFile) -> None:
        self._shown, self._file = shown, file
        self._json = structlog.processors.JSONRenderer()

    def __call__(self, logger: WrappedLogger, level: str, event: EventDict) -> str:
        plain = redact_every(structlog.processors.format_exc_info(logger, level, dict(event)))
        self._file.write(redact(str(self._json(logger, level, dict(plain)))))
        return redact(str(self._shown(logger, level, plain)))


class _Forward(logging.Handler):
    """What libraries log, as an event like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        say = structlog.get_logger().error if record.levelno in _ERRORS else structlog.get_logger().warning
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - its arguments do not fit its text
            message = str(record.msg)
        say(message, logger=record.name, exc_info=record.exc_info)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and issubclass(kind, Exception):
        structlog.get_logger().error("uncaught error", exc_info=(kind, error, trace))
