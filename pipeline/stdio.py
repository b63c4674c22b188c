"""Standard output and error of a process that must outlive whoever reads them.

A full disk, a closed pipe, a terminal that was stopped: a write that fails costs its text, never the work that it
tells of, and a write that would block is not made.  What is lost is counted (`dasnet_log_lines_lost_total`).
"""

import io
import os
import select
import sys

WAIT_MS = 100  # for a reader that is slow; after a loss not at all, until something could be written again

lost = {"stderr": 0, "stdout": 0, "file": 0}  # writes, usually a line each; `file` is the log file


class LossyStream(io.RawIOBase):
    """Write to a descriptor without raising or blocking; it is not owned, so closing the stream leaves it open."""

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__()
        self._descriptor, self._name = descriptor, name
        self._wait_ms = WAIT_MS

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        view = memoryview(data).cast("B")
        try:
            while view:
                if not self._takes_more():
                    raise BlockingIOError
                view = view[os.write(self._descriptor, view[: select.PIPE_BUF]) :]  # what fits once there is room
            self._wait_ms = WAIT_MS
        except OSError:
            lost[self._name] += 1
            self._wait_ms = 0
        return len(data)

    def _takes_more(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(self._wait_ms))  # also where it is closed, which the write then says

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


def _text(descriptor: int, name: str) -> io.TextIOWrapper:
    stream = LossyStream(descriptor, name)
    # A raw stream serves as a buffer: every flush is one write.
    return io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[arg-type]


stderr = _text(2, "stderr")
_stdout = _text(1, "stdout")


def protect() -> None:
    """Make stderr lossy for all of this process, and open descriptors 0 to 2 where they were closed.

    Else the next file that is opened, perhaps a database, would be written to by every library that prints.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = stderr


def announce(line: str) -> None:
    """Print a line that tools and people wait for, at once; the program goes on where nobody can read it."""
    _stdout.write(f"{line}\n")
