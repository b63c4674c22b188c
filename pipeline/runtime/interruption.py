"""Quiet end of a command on Ctrl-C or SIGTERM, with the exit codes that shells know (130 and 143)."""

import signal
from types import FrameType

IMPORT_SYSTEM = "<frozen importlib._bootstrap"


def end_quietly() -> None:
    """Let both signals end this process without a traceback, unless it was started with them ignored.

    Files and terminals are left in order.  A second signal ends the process at once.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    if _is_importing(frame):
        signal.raise_signal(number)
    raise SystemExit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether an exception would pass through a library's import, where some print or replace it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORT_SYSTEM):
            return True
        frame = frame.f_back
    return False
