"""What `endurance.chaos` breaks: the program under test, its log pipe, cameras, sinks and places."""

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from endurance.chaos_outputs import Receivers
from endurance.fleet import RtspCameras, Running, processes

HOLD_S = {
    "network": 3.0,
    "frozen": 6.0,
    "loss": 8.0,
    "disk": 5.0,
    "stopped": 10.0,
    "lock": 8.0,
    "stderr": 5.0,
    "port": 5.0,
}


class LogPipe:
    """The program's stderr as a named pipe, which can be closed or full for a while."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self._path, self._lines = path, lines
        self._lock = threading.Lock()
        self._text = ""
        os.mkfifo(path)
        self._reader = self._open()
        threading.Thread(target=self._run, daemon=True).start()

    def _open(self) -> int:
        return os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)

    def _run(self) -> None:
        while True:
            with self._lock, suppress(BlockingIOError):
                self._text += os.read(self._reader, 1 << 16).decode(errors="replace")
                *whole, self._text = self._text.split("\n")
                self._lines += whole
            time.sleep(0.05)

    @contextmanager
    def closed(self) -> Iterator[None]:
        with self._lock:
            os.close(self._reader)
            yield
            self._reader = self._open()

    @contextmanager
    def full(self) -> Iterator[None]:
        with self._lock:
            writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            with suppress(BlockingIOError):
                while True:
                    os.write(writer, b"\n" * 4096)
            os.close(writer)
            yield


@dataclass
class Target:
    """The program under test, its cameras, and the state of faults."""

    program: Running
    servers: RtspCameras
    run_dir: Path
    store: Path
    clips: tuple[Path, Path]  # of different resolutions
    rng: random.Random
    ports: tuple[int, ...]  # of HTTP
    config: Path
    clock: Path  # holds the offset of the program's clock, in s
    stderr: LogPipe
    sinks: Receivers
    shown: dict[str, int] = field(default_factory=dict)  # index of each camera's clip
    idle: list[socket.socket] = field(default_factory=list)  # connections that block others

    @property
    def camera(self) -> str:
        return self.rng.choice(sorted(self.servers.ports))

    @property
    def worker(self) -> str:
        return self.rng.choice(sorted(set(processes(self.program)) - {"supervisor"}))

    def pid(self, worker: str) -> int:
        return processes(self.program)[worker][0]


Fault = Callable[[Target], None]


def restart(target: Target, name: str) -> None:
    """Take a camera away for a while."""
    target.servers.command(f"down {name}")
    time.sleep(HOLD_S["network"])
    target.servers.command(f"up {name}")


def changed(target: Target) -> None:
    """Cause events while the fault lasts."""
    restart(target, target.camera)
