"""A host's worker processes: which there are, how one is started, and how it fares."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.models import Config
from pipeline.runtime.control import FROM_SUPERVISOR, Applied, SupervisorEnd

RESTART_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_S = 30.0  # a worker that lived this long starts again without delay
SILENCE_S = 15.0  # without a heartbeat for so long, a worker hangs and is killed
STARTING_S = 90.0  # the first heartbeat may take this long: torch is large


@dataclass(frozen=True)
class Start:
    """What all workers of a run are started with."""

    run: str  # its id
    folder: Path  # where the program was started
    lock: int  # the descriptor of `run_folder`


@dataclass
class Process:
    """One worker."""

    name: str
    arguments: list[str]
    stop_order: int  # lower ones stop first: cameras before what they feed
    child: "subprocess.Popen[bytes] | None" = None
    control: SupervisorEnd | None = None
    pid: int = 0  # of the newest child, also after it ended
    started_s: float = 0.0
    heard_s: float = 0.0
    ever_heard: bool = False
    failures: int = 0
    restart_s: float = 0.0
    leaving: bool = False  # its camera was removed or changed
    told: int = 0  # the number of the configuration that it was handed last, ...
    told_s: float = 0.0  # when, or when it was told to end
    applied: int = 0  # ... and of the one that it has in use
    finished: bool = False  # ended by itself: a recording that was read to its end, ...
    broken: bool = False  # ... or as far as it can be

    def start(self, how: Start, number: int, config: Config) -> None:
        """Raises OSError."""
        self.started_s, self.heard_s = time.monotonic(), 0.0
        self.control = SupervisorEnd()
        with self.control.worker_end as worker_end:
            self.control.hand_over(how.run, number, config)  # waits for the worker, which need not wait for us
            # Ctrl-C reaches the whole terminal: it is blocked until the worker ignores it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self.child = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "worker", *self.arguments, FROM_SUPERVISOR],
                stdin=worker_end.fileno(),
                env=_environment(),
                cwd=how.folder,
                pass_fds=(how.lock,),
            )
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.pid = self.child.pid
        self.told = self.applied = number

    def hand_over(self, run: str, number: int, config: Config) -> None:
        """To a worker that runs."""
        self.told, self.told_s = number, time.monotonic()
        if self.control is not None:
            self.control.hand_over(run, number, config)

    def listen(self) -> None:
        """Take in what it said on the control channel."""
        for message in self.control.received() if self.control is not None else ():
            if isinstance(message, Applied):
                self.applied = message.number
            else:
                self.finished, self.broken = True, message.broken

    def is_hanging(self, since_s: float) -> bool:
        """Nothing was heard of what it was asked for then."""
        return time.monotonic() - since_s > (SILENCE_S if self.heard_s else STARTING_S)

    def leave(self) -> None:
        """Its camera was removed or changed."""
        self.leaving, self.told_s = True, time.monotonic()
        if self.child is not None:
            self.child.terminate()

    def ended(self) -> None:
        """Its process is gone."""
        self.listen()
        if self.control is not None:
            self.control.close()
        self.child = self.control = None

    def postpone(self) -> float:
        """It failed.  Returns in how many seconds it is due again."""
        now_s = time.monotonic()
        self.failures = 0 if now_s - self.started_s > STABLE_S else self.failures + 1
        pause_s = RESTART_BACKOFF_S[min(self.failures, len(RESTART_BACKOFF_S) - 1)]
        self.restart_s = now_s + pause_s
        return pause_s


def processes(config: Config, host: str | None = None) -> list[Process]:
    """Everything that runs on a host; None: on the one that searches."""
    searching = [
        Process("segmentation", ["segmentation"], 1),
        Process("tracking", ["tracking"], 2),
        Process("console", ["console"], 3),
    ]
    cameras = [camera.id for camera in config.cameras if camera.host == host]
    return [
        *(searching if host is None else []),
        *(Process(capture_name(camera), ["capture", "--camera", camera], 0) for camera in cameras),
    ]


def capture_name(camera: str) -> str:
    return f"capture-{camera}"


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return {**inherited, "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", "1")}
