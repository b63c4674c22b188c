"""The log of a process: its own events, Python's loggers and warnings, and uncaught errors.

In: structlog's events.  Out: one line each, on stderr in `log.format`, and as JSON in the site's log file, to which all
its processes append.  No line holds a secret, and the same message is logged at most MAX_PER_MINUTE times a minute by
one process; the next one, or the last line of the process, says how many were suppressed.

Logging never raises: a line that cannot be written or rendered is lost and counted (`stdio.lost`).
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

MAX_PER_MINUTE = 20
MAX_BYTES = 10_000_000  # of the log file, before it is rotated
MAX_KEYS = 1000
KEPT = 4  # rotated files: FILE.1, the newest, to FILE.4

_ERRORS = (logging.ERROR, logging.CRITICAL)
_KEYS = ("camera", "sink", "worker")  # messages that differ in these are limited separately


def configure(config: Config, worker: str = "supervisor") -> None:
    """Set up logging for this process.  Raise ConfigError where the log file is a folder, or its folder is a file."""
    limit = RateLimit(MAX_PER_MINUTE, 60.0)
    formats: dict[str, Processor] = {
        "console": structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        "json": structlog.processors.JSONRenderer(),
    }
    file = LogFile(config.log_path)
    remember(config.secrets)
    structlog.configure(
        processors=[
            _FailSafe(
                limit,
                _WithWorker(worker),
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _Render(formats[config.log.format], file),
            )
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stdio.stderr),
    )
    if not file.is_open:
        structlog.get_logger().warning("log file cannot be opened, trying again", path=str(config.log_path))
    logging.basicConfig(handlers=[_ForwardHandler()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    atexit.register(limit.report)


def files(path: Path) -> list[Path]:
    """Return the log file and the rotated ones that exist, newest first."""
    return [file for file in (path, *(_rotated(path, number) for number in range(1, KEPT + 1))) if file.exists()]


class RateLimit:
    """Pass the same message `limit` times in `period_s`.  Thread-safe."""

    def __init__(self, limit: int, period_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._period_s, self._clock = limit, period_s, clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}  # start of its period, count since

    def __call__(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        """Return the event, or raise DropEvent above the limit."""
        key = (level, str(event["event"])[:200], *(str(event.get(name, "")) for name in _KEYS))
        now_s = self._clock()
        with self._lock:
            start_s, count = self._seen.get(key, (now_s, 0))
            suppressed = 0
            if now_s - start_s >= self._period_s:
                start_s, count, suppressed = now_s, 0, max(0, count - self._limit)
            self._seen[key] = start_s, count + 1
            if len(self._seen) > MAX_KEYS:  # some libraries put numbers into their messages
                self._seen = {k: v for k, v in self._seen.items() if now_s - v[0] < self._period_s}
            if count >= self._limit:
                raise structlog.DropEvent
        if suppressed:
            event["suppressed"] = suppressed
        return event

    def report(self) -> None:
        """Log how many messages were suppressed and not reported yet."""
        with self._lock:
            seen, self._seen = self._seen, {}
        for (_, message, *_), (_, count) in seen.items():
            if count > self._limit:
                structlog.get_logger().info("messages suppressed", message=message, suppressed=count - self._limit)


class LogFile:
    """A log file that several processes append to; the process that finds it full rotates it.

    On a disk that is full, read-only or gone, lines are lost and counted; each line tries again.  Raise ConfigError for
    a path where no file can ever be.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path, self._max_bytes, self._kept = path, max_bytes, kept
        self._lock = threading.Lock()
        self._descriptor = -1  # not open
        self._is_truncated = False  # the last line
        try:
            self._reopen()
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            raise ConfigError(f"log.file: {path} cannot be written ({error.strerror})") from error
        except OSError:
            pass

    @property
    def is_open(self) -> bool:
        """Whether lines can be written."""
        return self._descriptor >= 0

    def write(self, line: str) -> None:
        """Append a line; count one that cannot be written."""
        data = line.encode(errors="backslashreplace") + b"\n"
        with self._lock:
            try:
                self._append(data)
            except OSError:
                stdio.lost["file"] += 1

    def _append(self, data: bytes) -> None:
        try:
            self._rotate(len(data))
        except OSError:  # continue in the present file, within limits
            if not self.is_open or os.fstat(self._descriptor).st_size > 2 * self._max_bytes:
                raise
        if self._is_truncated:
            data = b"\n" + data
        written = os.write(self._descriptor, data)
        self._is_truncated = written < len(data)
        if self._is_truncated:
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
        if not self._is_replaced() and os.fstat(self._descriptor).st_size + coming <= self._max_bytes:
            return
        fcntl.flock(
            self._descriptor, fcntl.LOCK_EX
        )  # released with the descriptor; another process may have rotated it already
        try:
            if not self._is_replaced():
                for number in range(self._kept - 1, 0, -1):
                    older = _rotated(self._path, number)
                    if older.exists():
                        older.replace(_rotated(self._path, number + 1))
                self._path.replace(_rotated(self._path, 1))
            self._reopen()
        except OSError:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            raise

    def _is_replaced(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True


def _rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


class _FailSafe:
    """Run the processors of a message; where one fails, the message is lost and counted."""

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


class _WithWorker:
    """Add the worker's name to every event."""

    def __init__(self, worker: str) -> None:
        self._worker = worker

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {"worker": self._worker, **event}


class _Render:
    """The last processor: write the event as JSON to the file, and return it in the configured format for stderr.

    Secrets are redacted in the values, before these are quoted, and in the line, which also holds non-text values.
    """

    def __init__(self, renderer: Processor, file: LogFile) -> None:
        self._renderer, self._file = renderer, file
        self._json = structlog.processors.JSONRenderer()

    def __call__(self, logger: WrappedLogger, level: str, event: EventDict) -> str:
        plain = redact_every(structlog.processors.format_exc_info(logger, level, dict(event)))
        self._file.write(redact(str(self._json(logger, level, dict(plain)))))
        return redact(str(self._renderer(logger, level, plain)))


class _ForwardHandler(logging.Handler):
    """Forward what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger().error if record.levelno in _ERRORS else structlog.get_logger().warning
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - its arguments do not fit its text
            message = str(record.msg)
        log(message, logger=record.name, exc_info=record.exc_info)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and issubclass(kind, Exception):
        structlog.get_logger().error("uncaught error", exc_info=(kind, error, trace))
