"""Exclusive use of the run folder by one supervisor and the workers that it started.

`supervisor.lock` is held by the supervisor alone.  `workers.lock` is inherited by every worker as an open file, so that
the kernel keeps it locked while one of them lives.  A supervisor that finds it locked at its start, although no other
supervisor runs, has found orphans: they would write the same ledgers and sockets, and are ended first.
"""

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

import structlog

from pipeline.errors import DasnetError
from pipeline.timeouts import WORKER_KILL_TIMEOUT_S, WORKER_STOP_TIMEOUT_S


@contextmanager
def owned(run_dir: Path) -> Iterator[int]:
    """Lock the folder; yield the descriptor of `workers.lock`, for the workers to inherit.

    Raise DasnetError where another supervisor runs, where orphans cannot be ended, or where no file can be locked.
    """
    with ExitStack() as held:
        supervisor = held.enter_context(_opened(run_dir / "supervisor.lock"))
        if not _locked(supervisor.fileno()):
            raise DasnetError(f"{run_dir}: another dasnet runs in this folder; stop it, or set another run_dir")
        path = run_dir / "workers.lock"
        workers = held.enter_context(_opened(path))
        if not _locked(workers.fileno()):
            _end_orphans(path)
            if not _locked(workers.fileno()):
                raise DasnetError(
                    f"{path}: a process of an earlier run still holds this lock, and cannot be found or ended from "
                    "here (another user's, or of another container); end it, or set another run_dir"
                )
        yield workers.fileno()


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w")
    except OSError as error:
        raise DasnetError(f"{path}: cannot be written ({error.strerror}); set another run_dir") from error


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DasnetError(f"run_dir: no file in it can be locked ({error.strerror}); set another one") from error
    return True


def _end_orphans(path: Path) -> None:
    log = structlog.get_logger()
    orphans = {}
    for process in _holders(path):
        with suppress(ProcessLookupError):
            orphans[process] = os.pidfd_open(process)
    for number, wait_s in ((signal.SIGTERM, WORKER_STOP_TIMEOUT_S), (signal.SIGKILL, WORKER_KILL_TIMEOUT_S)):
        for process in _alive(orphans):
            log.warning("ending orphaned worker of an earlier run", pid=process, signal=number.name)
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(orphans[process], number)
        deadline_s = time.monotonic() + wait_s
        while _alive(orphans) and time.monotonic() < deadline_s:
            select.select([orphans[_alive(orphans)[0]]], [], [], max(0.0, deadline_s - time.monotonic()))
    for descriptor in orphans.values():
        os.close(descriptor)


def _alive(processes: dict[int, int]) -> list[int]:
    """Return the processes that run; `processes` holds a pidfd by id, readable when the process has ended."""
    return [process for process, descriptor in processes.items() if not select.select([descriptor], [], [], 0)[0]]


def _holders(path: Path) -> Iterable[int]:
    """Yield the processes that have the file open, as far as this process may see them."""
    wanted = path.resolve()
    for process in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with suppress(OSError):  # it has ended, or is another user's
            if process != os.getpid() and any(
                link.readlink() == wanted for link in Path(f"/proc/{process}/fd").iterdir()
            ):
                yield process
