"""The log of a process: what it says, Python's own loggers and warnings, and every error that nobody caught.

In: structlog's events.  Out: one line each, on stderr as `log.format` says, and as JSON in the site's log file, to
which all its processes append.  No line holds a secret, and the same message comes at most SAME_A_MINUTE times a minute
from one process; the next one, or the last line of the process, says how many were left out.
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

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.redaction import redact, redact_every, remember

SAME_A_MINUTE = 20
MAX_BYTES = 10_000_000  # of the log file, before it is put aside
MOST_KEYS = 1000
KEPT = 4  # files put aside: FILE.1, the newest, to FILE.4

_ERRORS = (logging.ERROR, logging.CRITICAL)
_NAMES = ("camera", "sink", "worker")  # what makes two messages of one text different


def configure(config: Config, worker: str = "supervisor") -> None:
    """Raises ConfigError where the log file cannot be written."""
    limit = RateLimit(SAME_A_MINUTE, 60.0)
    formats: dict[str, Processor] = {
        "console": structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        "json": structlog.processors.JSONRenderer(),
    }
    file = LogFile(config.log_path)
    remember(config.secrets)
    structlog.configure(
        processors=[
            limit,
            _Named(worker),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _Lines(formats[config.log.format], file),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(open(2, "w", buffering=1, closefd=False)),  # noqa: SIM115
    )
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
    """Lines to one file, from several processes.  Full, it is put aside by whoever writes the line after."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path, self._max_bytes, self._kept = path, max_bytes, kept
        self._turn = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._open()
        except OSError as error:
            raise ConfigError(f"log.file: {path} cannot be written ({error.strerror})") from error

    def write(self, line: str) -> None:
        """A disk that is full or gone costs the line, never the work that it tells of."""
        data = line.encode(errors="replace") + b"\n"
        with self._turn:
            try:
                self._rotate(len(data))
                os.write(self._descriptor, data)
            except OSError:
                return

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _rotate(self, coming: int) -> None:
        if not self._moved() and os.fstat(self._descriptor).st_size + coming <= self._max_bytes:
            return
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # goes with the descriptor; another process may have been first
        if not self._moved():
            for number in range(self._kept - 1, 0, -1):
                older = _aside(self._path, number)
                if older.exists():
                    older.replace(_aside(self._path, number + 1))
            self._path.replace(_aside(self._path, 1))
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor = fresh

    def _moved(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


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
        say(record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and issubclass(kind, Exception):
        structlog.get_logger().error("uncaught error", exc_info=(kind, error, trace))
