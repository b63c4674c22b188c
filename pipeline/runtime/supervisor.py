"""The supervisor: starts the workers, keeps them alive, stops them in order, and serves the host's `/metrics`.

The whole system as one flat table: see `processes`.  What flows between it and its workers:

    Config --control channel--> worker      as it was read here, at each start and reload: see `transport.control`
    worker --heartbeat--> supervisor        once a second, with its samples, its process id and this run's id
    worker --control channel--> supervisor  a reload was applied; a recording was read
    SIGHUP, `dasnet reload` --> supervisor  see `reload`

Only a capture worker that said that its recording was read may end; every other one is replaced.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from pipeline.checkpoints import checkpoint_path
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError, StoreError, WireError
from pipeline.runtime import reload
from pipeline.runtime.heartbeat import HeartbeatReceiver
from pipeline.runtime.process import finish_startup, set_event_on_signal
from pipeline.runtime.process_table import Process, Start, capture_name, processes
from pipeline.runtime.run_folder import owned
from pipeline.runtime.systemd import notify
from pipeline.store import ledger
from pipeline.telemetry import health
from pipeline.telemetry.host import HostMetricsCollector
from pipeline.transport.wire import Heartbeat

SIGN_S = 1.0  # between signs of life to systemd
STOP_S = 8.0  # from the request to stop until a worker is killed


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
        self._folder = Path.cwd()
        self._run_id = secrets.token_hex(8)
        self._number = 1  # of the configuration in use
        self._change: reload.Change | None = None  # under way
        self._stop = threading.Event()
        self._exit_code = 0
        self._ready = False  # and systemd knows
        self._next_sign_s = 0.0
        self._collector = HostMetricsCollector(self.config, [process.name for process in self.table])
        self._log = structlog.get_logger()

    def run(self) -> int:
        # make and shells may start us with SIGINT ignored: both signals get handlers of our own.
        for number in (signal.SIGINT, signal.SIGTERM):
            set_event_on_signal(number, self._stop)
        if self.host is None:
            checkpoint_path(self.config.model.checkpoint)
        run_dir = self.config.run_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        os.chdir(run_dir)
        with (
            owned(run_dir) as lock,
            HeartbeatReceiver(self._heard, self._collector.refused),
            reload.Requests(self.config_path) as requests,
        ):
            self._how = Start(self._run_id, self._folder, lock)
            self._serve_metrics()
            finish_startup()
            try:
                self._watch(requests)
            finally:
                notify("STOPPING=1")
                self._stop_all()
                self.config.metrics_address_path.unlink(missing_ok=True)
        self._summarise()
        return self._exit_code or int(any(process.broken for process in self.table))

    def _watch(self, requests: reload.Requests) -> None:
        for process in self.table:
            self._start(process)
        while not self._stop.wait(0.1):
            for process in self.table:
                self._look_after(process)
            self._tell_systemd()
            if requests.terminal_closed() or self._all_read():
                return
            if self._change is None and requests.due():
                self._begin_reload(requests)
            if self._change is not None:
                self._go_on_with_reload(self._change, requests)

    def _serve_metrics(self) -> None:
        registry = CollectorRegistry()
        registry.register(self._collector)
        health.serve(self.config.metrics, registry, self._collector.not_ready, self._stop, self._serves_metrics)

    def _serves_metrics(self, url: str) -> None:
        try:
            self.config.metrics_address_path.write_text(url, encoding="utf-8")
        except OSError as error:
            self._log.warning("address of the metrics cannot be written", reason=error.strerror)
        health.announce(url)

    def _tell_systemd(self) -> None:
        """Alive while this loop turns; ready once every worker was heard."""
        now_s = time.monotonic()
        if now_s >= self._next_sign_s:
            notify("WATCHDOG=1")
            self._next_sign_s = now_s + SIGN_S
        if not self._ready and all(process.ever_heard for process in self.table):
            self._ready = notify("READY=1")

    def _start(self, process: Process) -> None:
        try:
            process.start(self._how, self._number, self.config)
        except OSError as error:  # no memory, no process ids or descriptors left: not for ever
            process.ended()
            pause_s = process.postpone()
            reason = error.strerror
            self._log.error("worker cannot be started", worker=process.name, reason=reason, restart_in_s=pause_s)

    def _heard(self, heartbeat: Heartbeat) -> None:
        """Raises WireError for a process that this run did not start, or has replaced."""
        process = next((process for process in self.table if process.name == heartbeat.worker), None)
        if process is None or (heartbeat.run, heartbeat.pid) != (self._run_id, process.pid):
            raise WireError(
                f"a heartbeat of process {heartbeat.pid} as {heartbeat.worker[:80]!r}, which is no worker here"
            )
        self._collector.receive(heartbeat)
        process.heard_s = time.monotonic()
        process.ever_heard = True

    def _look_after(self, process: Process) -> None:
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
        elif process.is_hanging(process.heard_s or process.started_s):
            self._kill(process, process.heard_s or process.started_s)

    def _kill(self, process: Process, silent_since_s: float) -> None:
        silent_s = round(time.monotonic() - silent_since_s, 1)
        self._log.error("worker hangs", worker=process.name, silent_s=silent_s)
        if process.child is not None:
            process.child.kill()

    def _ended(self, process: Process, code: int) -> None:
        """Without having been told to, but where it is leaving."""
        self._collector.ended(process.name)
        if process.leaving:
            self._remove(process)
        elif process.finished:
            self._collector.finished(process.name)
        elif code > 0 and not process.ever_heard and not self._ready:
            # It told why; what never started will not by itself, and a person stands before it.
            self._log.error("worker cannot start", worker=process.name, code=code)
            self._exit_code = code
            self._stop.set()
        else:
            pause_s = process.postpone()
            self._log.error("worker ended", worker=process.name, code=code, restart_in_s=pause_s)

    def _remove(self, process: Process) -> None:
        self.table = [other for other in self.table if other is not process]  # another thread may go through it

    def _all_read(self) -> bool:
        """Cameras on other hosts are never done."""
        captures = [process for process in self.table if process.stop_order == 0]
        return (
            self._change is None
            and len(captures) == len(self.config.cameras)
            and all(process.finished and process.child is None for process in captures)
        )

    def _begin_reload(self, requests: reload.Requests) -> None:
        try:
            with contextlib.chdir(self._folder):  # what is relative is so to where the program was started
                change = reload.change(self.config, load(self.config_path).at(self.host))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, the site goes on
            unexpected = f"{self.config_path}: cannot be read ({type(error).__name__})"
            requests.refuse(reload.one_line(error) if isinstance(error, ConfigError) else unexpected)
            return
        self._change, self._number, self.config = change, self._number + 1, change.config
        leaving = {capture_name(camera) for camera in (*change.removed, *change.changed)}
        for process in self.table:
            if process.name in leaving:
                process.leave()
                if process.child is None:
                    self._remove(process)

    def _go_on_with_reload(self, change: reload.Change, requests: reload.Requests) -> None:
        """As far as possible now; see `reload`."""
        leaving = [process for process in self.table if process.leaving]
        for process in leaving:
            if time.monotonic() - process.told_s > STOP_S and process.child is not None:
                process.child.kill()
        if leaving or not all(self._has_applied(process) for process in self.table if process.stop_order > 0):
            return
        known = {process.name: process for process in self.table}
        table = [known.get(process.name, process) for process in processes(self.config, self.host)]
        self._collector.watch(self.config, [process.name for process in table])
        self.table = table
        for process in table:
            if process.name not in known:
                self._collector.expect(process.name)
                self._start(process)
        self._change = None
        requests.applied(change)

    def _has_applied(self, process: Process) -> bool:
        """The configuration in use, which it is handed here; one that is down will be started with it."""
        if process.child is None or process.applied == self._number:
            return True
        if process.told < self._number:
            with contextlib.suppress(OSError):  # it is gone, which is noticed soon
                process.hand_over(self._run_id, self._number, self.config)
        elif process.is_hanging(process.told_s):
            self._kill(process, process.told_s)
        return False

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
