"""Start and end of every worker process: signals, end of the supervisor, logging, memory."""

import _thread
import ctypes
import faulthandler
import gc
import signal
import threading
from types import FrameType

from pipeline.runtime import logs
from pipeline.runtime.control import Control
from pipeline.timeouts import WORKER_EXIT_TIMEOUT_S

TRIM_PERIOD_S = 60.0


def start_worker(name: str, control: Control) -> threading.Event:
    """Prepare this process as a worker; return the event that tells it to stop, at SIGTERM or without its supervisor.

    SIGINT is ignored in a supervised worker: in a terminal it reaches every process, and the supervisor stops workers
    in order.  Until `finish_startup`, SIGTERM ends the process at once: no work has begun, and importing takes seconds.
    """
    stop = threading.Event()
    if control.run:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logs.configure(control.config, name)
    threading.Thread(target=_trim, args=(stop, TRIM_PERIOD_S), name="trim", daemon=True).start()

    def supervisor_gone() -> None:
        faulthandler.dump_traceback_later(WORKER_EXIT_TIMEOUT_S, exit=True)
        stop.set()

    control.follow(supervisor_gone)
    return stop


def _trim(stop: threading.Event, period_s: float) -> None:
    """Return free memory inside glibc's heaps to the kernel periodically.

    Aligned blocks, which hold tensors and frames, leave gaps that later ones do not fit into (glibc bug 14581, before
    2.38), so that a process whose live memory is constant grows by hundreds of MB in hours.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None and not stop.wait(period_s):
        trim(0)


def finish_startup(stop: threading.Event | None = None) -> None:
    """Exclude start-up objects from garbage collection (gc.freeze), and let signals set `stop`.

    A full collection of the libraries' objects stops a process for 70 ms, two frames of a camera.  A worker that has
    not ended WORKER_EXIT_TIMEOUT_S after the signal dumps the stacks of its threads to stderr and exits.
    """
    gc.collect()
    gc.freeze()
    if stop is not None:
        set_event_on_signal(signal.SIGTERM, stop, WORKER_EXIT_TIMEOUT_S)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # started alone
            set_event_on_signal(signal.SIGINT, stop, WORKER_EXIT_TIMEOUT_S)


def set_event_on_signal(number: int, event: threading.Event, exit_timeout_s: float | None = None) -> None:
    """Set the event when the signal arrives, in a thread of its own: the main thread may be holding its lock.

    `exit_timeout_s`: how long the process may run after that; see `finish_startup`.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        if exit_timeout_s is not None:
            faulthandler.dump_traceback_later(exit_timeout_s, exit=True)
        _thread.start_new_thread(event.set, ())

    signal.signal(number, handle)
