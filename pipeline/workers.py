"""What every worker process does first and last: signals, life tied to the supervisor's, logging."""

import ctypes
import signal
import threading

from pipeline import logs
from pipeline.config import Config

PR_SET_PDEATHSIG = 1


def start_worker(name: str, config: Config) -> threading.Event:
    """Prepare this process as a worker; the event is set when it shall stop.

    SIGINT is ignored: in a terminal it reaches every process, and the supervisor stops the workers in order.
    """
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # the supervisor's death must not leave an orphan
    logs.configure(config, name)
    return stop
