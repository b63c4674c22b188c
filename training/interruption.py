"""Interruption of a training run: the first SIGTERM or Ctrl-C asks it to save its state and end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """Yield an event that the first SIGTERM or Ctrl-C sets; the second one acts as usual.

    Outside of the main thread, where Ray runs a training, nothing sets it: signals are Ray's.
    """
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def restore() -> None:
        for kind, handler in before.items():
            signal.signal(kind, handler)

    def stop(*_: object) -> None:
        stopping.set()
        restore()

    for kind in kinds:
        signal.signal(kind, stop)
    try:
        yield stopping
    finally:
        restore()
