"""The supervisor: starts the workers, restarts them, stops them in order, and serves the host's `/metrics`.

The whole system is one flat table: see `processes`.  What flows between the supervisor and its workers:

    Config --control channel--> worker      as the supervisor read it, at each start and reload: see `control`
    worker --heartbeat--> supervisor        once a second, with its samples, its process id and the run's id
    worker --control channel--> supervisor  a reload was applied; a recording was read
    SIGHUP, `dasnet reload` --> supervisor  see `reload`

Only a capture worker that reported the end of its recording may end; every other one is restarted.
"""

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from pipeline.checkpoints import checkpoint_path
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.runtime import reload
from pipeline.runtime.heartbeat import HeartbeatReceiver
from pipeline.runtime.owned_cameras import SharedCapture, shared_capture
from pipeline.runtime.process import finish_startup, set_event_on_signal
from pipeline.runtime.process_table import StartSettings, WorkerProcess, capture_name, end, processes, sender
from pipeline.runtime.run_folder import owned
from pipeline.runtime.summary import log_accounts
from pipeline.runtime.systemd import notify
from pipeline.store.owned import write_owned
from pipeline.telemetry import health
from pipeline.telemetry.host import HostMetricsCollector
from pipeline.timeouts import WORKER_STOP_TIMEOUT_S
from pipeline.transport.wire import Heartbeat

SYSTEMD_WATCHDOG_PERIOD_S = 1.0


@dataclass
class Supervisor:
    """Run the workers of a host.

    Attributes:
        config_path: the site's YAML file, read again at each reload.
        config: in use.
        check_cameras: raises ConfigError where a configuration's cameras, of these ids, cannot be opened.
        host: an edge host, or one of several inference hosts; None: the only inference host.
        table: the workers.
    """

    config_path: Path
    config: Config
    check_cameras: Callable[[Config, Sequence[str]], None]
    host: str | None = None
    table: list[WorkerProcess] = field(init=False)

    def __post_init__(self) -> None:
        self.config = self.config.for_host(self.host)
        self._edge_host = None if self.config.inference_host is not None else self.host
        self._shared = shared_capture(self.config, self._edge_host)
        self.table = processes(self.config, self._edge_host, self._shared)
        self._start_folder = Path.cwd()
        self._run_id = secrets.token_hex(8)
        self._number = 1  # of the configuration in use
        self._change: reload.Change | None = None  # under way
        self._stop = threading.Event()
        self._exit_code = 0
        self._ready = False  # and systemd was notified
        self._next_watchdog_s = 0.0
        self._watched: tuple[list[str], list[str]] = [], []  # processes and cameras, where these are shared
        self._collector = HostMetricsCollector(self.config, [process.name for process in self.table])
        self._log = structlog.get_logger()

    def run(self) -> int:
        """Run until a signal, or until all recordings were read.

        Return the exit code: 0, 1 where a recording was broken, or that of a worker which could not start.
        """
        # make and shells may start this process with SIGINT ignored: both signals get handlers.
        for number in (signal.SIGINT, signal.SIGTERM):
            set_event_on_signal(number, self._stop)
        if self._edge_host is None:
            checkpoint_path(self.config.model.checkpoint)
        run_dir = self.config.run_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        os.chdir(run_dir)
        with (
            owned(run_dir) as lock,
            HeartbeatReceiver(self._receive, self._collector.refused),
            reload.Requests(self.config_path) as requests,
        ):
            self._settings = StartSettings(self._run_id, self._start_folder, lock)
            self._serve_metrics()
            finish_startup()
            try:
                self._watch(requests)
            finally:
                notify("STOPPING=1")
                if self._shared is not None:
                    self._shared.close()
                self._stop_all()
                self.config.metrics_address_path.unlink(missing_ok=True)
        log_accounts(self.config)
        return self._exit_code or int(any(process.broken for process in self.table))

    def _watch(self, requests: reload.Requests) -> None:
        self._start_all(self.table)
        while not self._stop.wait(0.1):
            for process in self.table:
                self._check(process)
            self._notify_systemd()
            if requests.terminal_closed() or self._all_read():
                return
            if self._change is None and requests.due():
                self._start_reload(requests)
            if self._change is not None:
                self._continue_reload(self._change, requests)
            elif self._shared is not None:
                self._follow_owners(self._shared)

    def _serve_metrics(self) -> None:
        registry = CollectorRegistry()
        registry.register(self._collector)
        health.serve(self.config.metrics, registry, self._collector.not_ready, self._stop, self._metrics_bound)

    def _metrics_bound(self, url: str) -> None:
        try:
            self.config.metrics_address_path.write_text(url, encoding="utf-8")
        except OSError as error:
            self._log.warning("metrics address cannot be written", reason=error.strerror)
        health.announce(url)

    def _notify_systemd(self) -> None:
        """Notify systemd: alive while this loop runs, ready after the first heartbeat of every worker."""
        now_s = time.monotonic()
        if now_s >= self._next_watchdog_s:
            notify("WATCHDOG=1")
            self._next_watchdog_s = now_s + SYSTEMD_WATCHDOG_PERIOD_S
        if not self._ready and all(process.ever_heard for process in self.table):
            self._ready = notify("READY=1")

    def _start_all(self, processes: Iterable[WorkerProcess]) -> None:
        for process in processes:
            if self._shared is None or not self._shared.must_wait(process):
                self._start(process)

    def _start(self, process: WorkerProcess) -> None:
        try:
            config = self._shared.config_of(process, self.config) if self._shared is not None else self.config
            process.start(self._settings, self._number, config)
        except OSError as error:  # out of memory, process ids or descriptors, which is temporary
            process.ended()
            pause_s = process.postpone()
            reason = error.strerror
            self._log.error("worker cannot be started", worker=process.name, reason=reason, restart_in_s=pause_s)

    def _receive(self, heartbeat: Heartbeat) -> None:
        """Record a heartbeat.  Raise WireError for a process that this run did not start, or has replaced."""
        process = sender(self.table, heartbeat, self._run_id)
        self._collector.receive(heartbeat)
        process.heartbeat_s = time.monotonic()
        process.ever_heard = True

    def _check(self, process: WorkerProcess) -> None:
        if process.child is None:
            if not process.finished and time.monotonic() >= process.restart_s:
                self._collector.restarted(process.name)
                self._start(process)
            return
        code = process.child.poll()
        process.listen()
        if code is not None:
            process.ended()
            self._ended(process, code)
        elif process.is_hanging(process.heartbeat_s or process.started_s):
            self._kill(process, process.heartbeat_s or process.started_s)

    def _kill(self, process: WorkerProcess, silent_since_s: float) -> None:
        silent_s = round(time.monotonic() - silent_since_s, 1)
        log = self._log.debug if process.killed else self._log.error
        log("worker hangs, killing it", worker=process.name, silent_s=silent_s)
        process.killed = True
        if process.child is not None:
            process.child.kill()

    def _ended(self, process: WorkerProcess, code: int) -> None:
        """Handle the end of a worker: expected, or to be followed by a restart."""
        self._collector.ended(process.name)
        if process.leaving:
            self._remove(process)
        elif process.finished:
            self._collector.finished(process.name)
        elif code > 0 and not process.ever_heard and not self._ready:
            # Failed on first start: the worker printed the reason; do not retry.
            self._log.error("worker cannot start", worker=process.name, code=code)
            self._exit_code = code
            self._stop.set()
        else:
            pause_s = process.postpone()
            self._log.error("worker ended", worker=process.name, code=code, restart_in_s=pause_s)

    def _remove(self, process: WorkerProcess) -> None:
        self.table = [other for other in self.table if other is not process]  # another thread may iterate over it

    def _all_read(self) -> bool:
        """Return whether every recording was read; cameras of other hosts never end."""
        captures = [process for process in self.table if process.stop_order == 0]
        return (
            self._change is None
            and len(captures) == len(self.config.cameras)
            and all(process.finished and process.child is None for process in captures)
        )

    def _follow_owners(self, shared: SharedCapture) -> None:
        """Capture the cameras that this host is to capture, and no others."""
        for process in shared.due(self.table):
            self._start(process)
        moved, wanted = shared.follow(self.table), processes(self.config, self._edge_host, shared)
        names, present = {process.name for process in wanted}, {process.name for process in self.table}
        self._let_leave(process for process in self.table if process.name not in names or process in moved)
        added = [process for process in wanted if process.name not in present]
        self.table = [*self.table, *added]
        self._watch_owned(shared)
        self._start_all(added)

    def _watch_owned(self, shared: SharedCapture) -> None:
        """Collect the metrics of these processes and cameras, where they have changed."""
        config, names = shared.watched(self.config), [process.name for process in self.table]
        cameras = [camera.id for camera in config.cameras]
        if (names, cameras) != self._watched:
            self._watched = names, cameras
            self._collector.watch(config, names)
            write_owned(config, cameras)

    def _start_reload(self, requests: reload.Requests) -> None:
        try:
            # Relative paths refer to the folder where the program was started.
            with contextlib.chdir(self._start_folder):
                read = load(self.config_path)
                change = reload.change(self.config, read.for_host(self.host))
                self.check_cameras(read, [*change.added, *change.changed])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, the site runs on
            unexpected = f"{self.config_path}: cannot be read ({type(error).__name__})"
            requests.reject(reload.one_line(error) if isinstance(error, ConfigError) else unexpected)
            return
        self._change, self._number, self.config = change, self._number + 1, change.config
        leaving = {capture_name(camera) for camera in (*change.removed, *change.changed)}
        self._let_leave(process for process in self.table if process.name in leaving)

    def _let_leave(self, processes: Iterable[WorkerProcess]) -> None:
        """End processes for good."""
        for process in list(processes):
            if not process.leaving:
                process.leave()
                if process.child is None:
                    self._remove(process)

    def _continue_reload(self, change: reload.Change, requests: reload.Requests) -> None:
        """Take the next step of a reload, as far as the workers have come; see `reload`."""
        leaving = [process for process in self.table if process.leaving]
        for process in leaving:
            if time.monotonic() - process.requested_s > WORKER_STOP_TIMEOUT_S and process.child is not None:
                process.child.kill()
        if leaving or not all(self._has_applied(process) for process in self.table if process.stop_order > 0):
            return
        known = {process.name: process for process in self.table}
        table = [known.get(process.name, process) for process in processes(self.config, self._edge_host, self._shared)]
        watched = self._shared.watched(self.config) if self._shared is not None else self.config
        self._collector.watch(watched, [process.name for process in table])
        self.table = table
        for process in table:
            if process.name not in known:
                self._collector.expect(process.name)
                self._start(process)
        self._change = None
        requests.applied(change)

    def _has_applied(self, process: WorkerProcess) -> bool:
        """Hand the new configuration over; return whether the worker uses it, or is down and will start with it."""
        if process.child is None or process.applied == self._number:
            return True
        if process.handed_over < self._number:
            with contextlib.suppress(OSError):  # it has ended, which `_check` handles
                process.hand_over(self._run_id, self._number, self.config)
        elif process.is_hanging(process.requested_s):
            self._kill(process, process.requested_s)
        return False

    def _stop_all(self) -> None:
        """Stop the capture workers first, then the later stages, so that every frame in flight has its outcome."""
        for order in sorted({process.stop_order for process in self.table}):
            end([p.child for p in self.table if p.stop_order == order and p.child is not None])
