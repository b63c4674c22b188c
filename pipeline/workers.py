"""What every worker process does first and last: signals, life tied to the supervisor's, logging, memory."""

import _thread
import ctypes
import faulthandler
import gc
import signal
import threading
from types import FrameType

from pipeline import logs
from pipeline.config import Config

PR_SET_PDEATHSIG = 1
STOP_WITHIN_S = 7.0  # less than the supervisor waits, which may not be there any more


def start_worker(name: str, config: Config) -> threading.Event:
    """Prepare this process as a worker; the event is set when it shall stop.

    SIGINT is ignored: in a terminal it reaches every process, and the supervisor stops the workers in order.  Until
    `settle`, SIGTERM ends the process at once: nothing is under way, and imports and engines take seconds.
    """
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # the supervisor's death must not leave an orphan
    logs.configure(config, name)
    return stop


def settle(stop: threading.Event | None = None) -> None:
    """Start-up is over: exclude what is there from garbage collection, and let SIGTERM set `stop`.

    A collection through all that libraries define stops a process for 70 ms, two frames of a camera.  A worker that has
    not ended STOP_WITHIN_S after it was told to says on stderr where its threads are, and is ended.
    """
    gc.collect()
    gc.freeze()
    if stop is not None:
        set_on(signal.SIGTERM, stop, STOP_WITHIN_S)


def set_on(number: int, event: threading.Event, end_within_s: float | None = None) -> None:
    """Set the event when the signal comes, in a thread of its own: the main thread may just be holding its lock.

    `end_within_s`: how long the process may go on after that; see `settle`.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        if end_within_s is not None:
            faulthandler.dump_traceback_later(end_within_s, exit=True)
        _thread.start_new_thread(event.set, ())

    signal.signal(number, handle)
