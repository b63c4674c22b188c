"""What every worker process does first and last: signals, life tied to the supervisor's, logging."""

import ctypes
import logging
import os
import signal
import threading

import structlog

PR_SET_PDEATHSIG = 1


def start_worker(name: str) -> threading.Event:
    """Prepare this process as a worker; the event is set when it shall stop.

    SIGINT is ignored: in a terminal it reaches every process, and the supervisor stops the workers in order.
    """
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # the supervisor's death must not leave an orphan
    configure_logging()
    structlog.contextvars.bind_contextvars(worker=name)
    return stop


def configure_logging() -> None:
    """One line an event on stderr: JSON where it is collected, readable where a person looks."""
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=False)
        if os.environ.get("DASNET_LOG", "console") == "console"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(open(2, "w", buffering=1, closefd=False)),  # noqa: SIM115
    )
