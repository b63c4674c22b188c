"""A host's worker processes: their table, how each is started, and its state."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from pipeline.config.models import Config
from pipeline.errors import WireError
from pipeline.runtime.control import FROM_SUPERVISOR, Applied, Captures, SupervisorEnd
from pipeline.timeouts import FIRST_HEARTBEAT_TIMEOUT_S, HEARTBEAT_TIMEOUT_S, WORKER_STOP_TIMEOUT_S
from pipeline.transport.wire import Heartbeat

RESTART_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_S = 30.0  # a worker that ran this long restarts without a longer delay


@dataclass(frozen=True)
class StartSettings:
    """Settings that all workers of a run are started with."""

    run: str  # its id
    folder: Path  # where the program was started
    lock: int  # the descriptor of `run_folder`


@dataclass
class WorkerProcess:
    """One worker and its state, as the supervisor knows them."""

    name: str
    arguments: list[str]
    stop_order: int  # lower ones stop first: cameras before the stages that they feed
    child: "subprocess.Popen[bytes] | None" = None
    control: SupervisorEnd | None = None
    pid: int = 0  # of the newest child, also after it ended
    started_s: float = 0.0
    heartbeat_s: float = 0.0  # the last one of this child; 0: none yet
    ever_heard: bool = False  # a heartbeat of any child
    killed: bool = False  # this child, which may take seconds to end on a busy host
    failures: int = 0
    restart_s: float = 0.0
    leaving: bool = False  # its camera was removed or changed
    handed_over: int = 0  # number of the last configuration that was sent to it
    requested_s: float = 0.0  # when that was, or when it was asked to end
    applied: int = 0  # number of the configuration that it uses
    finished: bool = False  # its recording was read
    broken: bool = False  # its recording could not be read to its end
    captures: frozenset[str] = frozenset()  # cameras that this host owns, as the track worker said

    def start(self, settings: StartSettings, number: int, config: Config) -> None:
        """Start the process with this configuration.  Raise OSError."""
        self.started_s, self.heartbeat_s, self.killed = time.monotonic(), 0.0, False
        self.control = SupervisorEnd()
        with self.control.worker_end as worker_end:
            self.control.hand_over(settings.run, number, config)  # buffered until the worker reads it
            # Ctrl-C reaches the whole terminal: it is blocked until the worker ignores it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self.child = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "worker", *self.arguments, FROM_SUPERVISOR],
                stdin=worker_end.fileno(),
                env=_environment(),
                cwd=settings.folder,
                pass_fds=(settings.lock,),
            )
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.pid = self.child.pid
        self.handed_over = self.applied = number

    def hand_over(self, run: str, number: int, config: Config) -> None:
        """Send a configuration to the running worker.  Raise OSError where it is gone."""
        self.handed_over, self.requested_s = number, time.monotonic()
        if self.control is not None:
            self.control.hand_over(run, number, config)

    def listen(self) -> None:
        """Process its messages on the control channel."""
        for message in self.control.received() if self.control is not None else ():
            if isinstance(message, Applied):
                self.applied = message.number
            elif isinstance(message, Captures):
                self.captures = frozenset(message.cameras)
            else:
                self.finished, self.broken = True, message.broken

    def is_hanging(self, since_s: float) -> bool:
        """Return whether the worker has been silent for too long since then."""
        return time.monotonic() - since_s > (HEARTBEAT_TIMEOUT_S if self.heartbeat_s else FIRST_HEARTBEAT_TIMEOUT_S)

    def leave(self) -> None:
        """Ask the worker to end, for its camera was removed or changed."""
        self.leaving, self.requested_s = True, time.monotonic()
        if self.child is not None:
            self.child.terminate()

    def ended(self) -> None:
        """Clean up after the process has ended."""
        self.listen()
        if self.control is not None:
            self.control.close()
        self.child = self.control = None
        self.captures = frozenset()

    def postpone(self) -> float:
        """Schedule the restart of a worker that failed; return the delay in s."""
        now_s = time.monotonic()
        self.failures = 0 if now_s - self.started_s > STABLE_S else self.failures + 1
        pause_s = RESTART_BACKOFF_S[min(self.failures, len(RESTART_BACKOFF_S) - 1)]
        self.restart_s = now_s + pause_s
        return pause_s


def processes(config: Config, host: str | None = None, owned: Container[str] | None = None) -> list[WorkerProcess]:
    """Return all workers of a host.

    Args:
        config: of that host.
        host: an edge host; None: an inference host.
        owned: the cameras that it owns, of those that several hosts share; None: all.
    """
    inference = [
        WorkerProcess("segmentation", ["segmentation"], 1),
        WorkerProcess("tracking", ["tracking"], 2),
        WorkerProcess("console", ["console"], 3),
    ]
    cameras = [camera.id for camera in config.cameras if camera.host == host and (owned is None or camera.id in owned)]
    return [
        *(inference if host is None else []),
        *(WorkerProcess(capture_name(camera), ["capture", "--camera", camera], 0) for camera in cameras),
    ]


def sender(table: Iterable[WorkerProcess], heartbeat: Heartbeat, run: str) -> WorkerProcess:
    """Return the process that sent a heartbeat.  Raise WireError for one that this run did not start, or replaced."""
    for process in table:
        if (process.name, process.pid, run) == (heartbeat.worker, heartbeat.pid, heartbeat.run):
            return process
    raise WireError(f"heartbeat of process {heartbeat.pid} as {heartbeat.worker[:80]!r}: expected a worker of this run")


def end(children: "Sequence[subprocess.Popen[bytes]]") -> None:
    """End processes of one stage, and kill those that do not end in time."""
    for child in children:
        child.terminate()
    deadline_s = time.monotonic() + WORKER_STOP_TIMEOUT_S
    for child in children:
        try:
            child.wait(max(0.1, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            structlog.get_logger().error("worker did not stop in time, killed", pid=child.pid)
            child.kill()
            child.wait()


def capture_name(camera: str) -> str:
    """Return the name of a camera's capture worker."""
    return f"capture-{camera}"


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return {**inherited, "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", "1")}
