"""What every worker process does first and last: signals, life tied to the supervisor's, logging, memory."""

import _thread
import ctypes
import faulthandler
import gc
import signal
import threading
from types import FrameType

from pipeline import logs
from pipeline.transport.control import Control

TRIM_PERIOD_S = 60.0
STOP_WITHIN_S = 7.0  # less than the supervisor waits, which may not be there any more


def start_worker(name: str, control: Control) -> threading.Event:
    """Prepare this process as a worker; the event is set when it shall stop: at SIGTERM, or without its supervisor.

    A worker that has not ended STOP_WITHIN_S after it was told to says on stderr where its threads are, and is ended.
    One that was started alone stops at SIGINT too, which the others ignore: see `parent`.
    """
    stop = threading.Event()
    set_on(signal.SIGTERM, stop, STOP_WITHIN_S)
    if not control.run:
        set_on(signal.SIGINT, stop, STOP_WITHIN_S)
    logs.configure(control.config, name)
    threading.Thread(target=_trim, args=(stop, TRIM_PERIOD_S), name="trim", daemon=True).start()

    def supervisor_gone() -> None:
        faulthandler.dump_traceback_later(STOP_WITHIN_S, exit=True)
        stop.set()

    control.follow(supervisor_gone)
    return stop


def _trim(stop: threading.Event, period_s: float) -> None:
    """Give free memory inside glibc's heaps back to the kernel, again and again.

    Aligned blocks, of which tensors and pictures are made, leave gaps that no later one fits into (glibc bug 14581, in
    versions before 2.38), so that a process whose live memory is constant grows by hundreds of MB in hours.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None and not stop.wait(period_s):
        trim(0)


def settle() -> None:
    """What is there now stays: from here on no search for garbage looks through it.

    A search through all that libraries define stops a process for 70 ms, two frames of a camera.
    """
    gc.collect()
    gc.freeze()


def set_on(number: int, event: threading.Event, end_within_s: float | None = None) -> None:
    """Set the event when the signal comes, in a thread of its own: the main thread may just be holding its lock.

    `end_within_s`: how long the process may go on after that; see `start_worker`.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        if end_within_s is not None:
            faulthandler.dump_traceback_later(end_within_s, exit=True)
        _thread.start_new_thread(event.set, ())

    signal.signal(number, handle)
