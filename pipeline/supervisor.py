"""The supervisor: starts the workers, keeps them alive, stops them in order, and serves the host's `/metrics`.

The whole system as one flat table: see `processes`.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import zmq
from prometheus_client import CollectorRegistry

from pipeline import health, ledger
from pipeline.checkpoints import checkpoint_path
from pipeline.config import Config
from pipeline.errors import DasnetError, StoreError, WireError
from pipeline.host_metrics import HostCollector
from pipeline.notify import notify
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.refusals import Refusals
from pipeline.transport.sockets import bound
from pipeline.transport.wire import Heartbeat, decode
from pipeline.workers import set_on, settle

RESTART_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_S = 30.0  # a worker that lived this long starts again without delay
SILENCE_S = 15.0  # without a heartbeat for so long, a worker hangs and is killed
STARTING_S = 90.0  # the first heartbeat may take this long: torch is large
SIGN_S = 1.0  # between signs of life to systemd
STOP_S = 8.0  # from the request to stop until a worker is killed


@dataclass
class Process:
    """One worker: how it is started, and how it fares."""

    name: str
    arguments: list[str]
    stop_order: int  # lower ones stop first: cameras before what they feed
    child: "subprocess.Popen[bytes] | None" = None
    started_s: float = 0.0
    heard_s: float = 0.0
    ever_heard: bool = False
    failures: int = 0
    restart_s: float = 0.0
    is_recording: bool = False
    finished: bool = False  # ended by itself: a recording that was read to its end, ...
    broken: bool = False  # ... or as far as it can be


def processes(config: Config, host: str | None = None) -> list[Process]:
    """Everything that runs on a host; None: on the one that searches."""
    searching = [
        Process("segmentation", ["segmentation"], 1),
        Process("tracking", ["tracking"], 2),
        Process("console", ["console"], 3),
    ]
    return [
        *(searching if host is None else []),
        *(
            Process(f"capture-{camera.id}", ["capture", "--camera", camera.id], 0, is_recording=not camera.is_live)
            for camera in config.cameras
            if camera.host == host
        ),
    ]


@dataclass
class Supervisor:
    """`run` returns the exit code: 0 after a stop or when all recordings were read, 1 where one of them was broken, and
    that of a worker which could not start.

    `host`: run the cameras of that host alone, which send to the one that searches.
    """

    config_path: Path
    config: Config
    host: str | None = None
    table: list[Process] = field(init=False)

    def __post_init__(self) -> None:
        self.config = self.config.at(self.host)
        self.table = processes(self.config, self.host)
        self._folder = Path.cwd()  # the workers read the configuration from where it was read here
        self._stop = threading.Event()
        self._exit_code = 0
        self._ready = False  # and systemd knows
        self._next_sign_s = 0.0
        self._collector = HostCollector(self.config, [process.name for process in self.table])
        self._log = structlog.get_logger()

    def run(self) -> int:
        # make and shells may start us with SIGINT ignored: both signals get handlers of our own.
        for number in (signal.SIGINT, signal.SIGTERM):
            set_on(number, self._stop)
        if self.host is None:
            checkpoint_path(self.config.model.checkpoint)
        run_dir = self.config.run_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        os.chdir(run_dir)
        with _Lock(run_dir), _Heartbeats(self._collector, self._heard):
            self._serve_metrics()
            settle()
            try:
                for process in self.table:
                    self._start(process)
                while not self._stop.wait(0.1):
                    self._supervise()
                    self._tell_systemd()
                    if self._all_read():
                        break
            finally:
                notify("STOPPING=1")
                self._stop_all()
                self.config.metrics_address_path.unlink(missing_ok=True)
        self._summarise()
        return self._exit_code or int(any(process.broken for process in self.table))

    def _serve_metrics(self) -> None:
        registry = CollectorRegistry()
        registry.register(self._collector)
        address = self.config.metrics
        port = health.serve(address, registry, self._collector.not_ready)
        url = f"http://{address.host}:{port}/metrics"
        self.config.metrics_address_path.write_text(url, encoding="utf-8")
        print(f"metrics: {url}", flush=True)

    def _tell_systemd(self) -> None:
        """Alive while this loop turns; ready once every worker was heard."""
        now_s = time.monotonic()
        if now_s >= self._next_sign_s:
            notify("WATCHDOG=1")
            self._next_sign_s = now_s + SIGN_S
        if not self._ready and all(process.ever_heard for process in self.table):
            self._ready = notify("READY=1")

    def _start(self, process: Process) -> None:
        command = [sys.executable, "-m", "pipeline", "worker", *process.arguments, str(self.config_path)]
        # Ctrl-C reaches the whole terminal: workers inherit that it is blocked, before they can ignore it themselves.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=_environment(), cwd=self._folder)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        process.started_s = time.monotonic()
        process.heard_s = 0.0

    def _heard(self, heartbeat: Heartbeat) -> None:
        for process in self.table:
            if process.name == heartbeat.worker:
                process.heard_s = time.monotonic()
                process.ever_heard = True

    def _supervise(self) -> None:
        now_s = time.monotonic()
        for process in self.table:
            if process.finished:
                continue
            if process.child is None:
                if now_s >= process.restart_s:
                    self._collector.restarted(process.name)
                    self._start(process)
                continue
            code = process.child.poll()
            if code is None:
                self._check_alive(process, now_s)
            elif code == 0 or (code == DasnetError.exit_code and process.is_recording):
                process.finished, process.broken, process.child = True, code != 0, None
                self._collector.finished(process.name)
            elif code > 0 and not process.ever_heard:
                # It told why; what never started will not by itself, and a person stands before it.
                self._log.error("worker cannot start", worker=process.name, code=code)
                self._exit_code = code
                self._stop.set()
            else:
                self._failed(process, code, now_s)

    def _check_alive(self, process: Process, now_s: float) -> None:
        silent_s = now_s - (process.heard_s or process.started_s)
        if process.child is not None and silent_s > (SILENCE_S if process.heard_s else STARTING_S):
            self._log.error("worker hangs", worker=process.name, silent_s=round(silent_s, 1))
            process.child.kill()

    def _failed(self, process: Process, code: int, now_s: float) -> None:
        self._collector.ended(process.name)
        lived_s = now_s - process.started_s
        process.failures = 0 if lived_s > STABLE_S else process.failures + 1
        pause_s = RESTART_BACKOFF_S[min(process.failures, len(RESTART_BACKOFF_S) - 1)]
        process.child, process.restart_s = None, now_s + pause_s
        self._log.error("worker ended", worker=process.name, code=code, restart_in_s=pause_s)

    def _all_read(self) -> bool:
        """Cameras on other hosts are never done."""
        captures = [process for process in self.table if process.name.startswith("capture-")]
        return len(captures) == len(self.config.cameras) and all(process.finished for process in captures)

    def _stop_all(self) -> None:
        """Cameras first, then what they feed, so that every frame under way meets its fate."""
        for order in sorted({process.stop_order for process in self.table}):
            children = [p.child for p in self.table if p.stop_order == order and p.child is not None]
            for child in children:
                child.terminate()
            deadline_s = time.monotonic() + STOP_S
            for child in children:
                try:
                    child.wait(max(0.1, deadline_s - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self._log.error("worker killed, it did not stop", pid=child.pid)
                    child.kill()
                    child.wait()

    def _summarise(self) -> None:
        for camera in self.config.cameras:
            try:
                account = ledger.read(self.config.ledger_path(camera.id))
            except (OSError, ValueError, StoreError):
                continue
            self._log.info(
                "camera closed",
                camera=camera.id,
                captured=account.captured,
                segmented=account.segmented,
                dropped={cause.value: count for cause, count in account.dropped.items() if count},
                failed={cause.value: count for cause, count in account.failed.items() if count},
                blind_s={cause.value: round(ns / 1e9, 1) for cause, ns in account.blind_ns.items() if ns},
            )


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return {**inherited, "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", "1")}


class _Lock:
    """One supervisor a run folder: two would write the same ledgers."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "supervisor.lock"

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DasnetError(
                f"{self._path.parent}: another dasnet runs in this folder; stop it, or set another run_dir"
            ) from error

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Heartbeats:
    """Receives the workers' heartbeats in a thread of its own."""

    def __init__(self, collector: HostCollector, heard: Callable[[Heartbeat], None]) -> None:
        self._collector = collector
        self._refusals = Refusals("heartbeat", collector.refused)
        self._heard = heard
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def __enter__(self) -> None:
        self._socket = bound(zmq.PULL, Endpoints().heartbeat, high_water=64)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(200):
                continue
            try:
                message, _ = decode(self._socket.recv_multipart())
                if not isinstance(message, Heartbeat):
                    raise WireError(f"a {type(message).__name__} sent to the supervisor")
                self._collector.receive(message)
                self._heard(message)
            except WireError as error:
                self._refusals.refuse(error)
        self._socket.close(0)
