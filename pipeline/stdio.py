"""Lossy standard output and error, for a process that must outlive their readers.

A write that fails (full disk, closed pipe) or would block (stopped terminal) loses its text and never stops the
process.  Losses are counted (`dasnet_log_lines_lost_total`).
"""

import io
import os
import select
import sys

WAIT_MS = 100  # for a slow reader; after a loss 0, until a write succeeds again

lost = {"stderr": 0, "stdout": 0, "file": 0}  # writes, usually a line each; `file` is the log file


class LossyStream(io.RawIOBase):
    """A raw stream that never raises or blocks; closing it leaves its file descriptor open."""

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__()
        self._descriptor, self._name = descriptor, name
        self._wait_ms = WAIT_MS

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        """Write what can be written; return the length of `data` in any case."""
        view = memoryview(data).cast("B")
        try:
            while view:
                if not self._is_writable():
                    raise BlockingIOError
                view = view[os.write(self._descriptor, view[: select.PIPE_BUF]) :]  # fits once the poll succeeds
            self._wait_ms = WAIT_MS
        except OSError:
            lost[self._name] += 1
            self._wait_ms = 0
        return len(data)

    def _is_writable(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(self._wait_ms))  # also true where it is closed: the write then fails

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)


def _text(descriptor: int, name: str) -> io.TextIOWrapper:
    stream = LossyStream(descriptor, name)
    # A raw stream serves as a buffer: every flush is one write.
    return io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[arg-type]


stderr = _text(2, "stderr")
_stdout = _text(1, "stdout")


def protect() -> None:
    """Make stderr lossy for the whole process, and open descriptors 0 to 2 where they were closed.

    Otherwise the next opened file, such as a database, would get one of these numbers and receive printed text.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = stderr


def announce(line: str) -> None:
    """Print and flush a line that tools and people wait for; continue where it cannot be written."""
    _stdout.write(f"{line}\n")
