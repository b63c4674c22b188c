"""Every alert rule, by its own fault: the real program, real cameras, a real Prometheus.  Each fires, and clears.

The rules are the shipped ones with shorter windows and waits (`SHORTER`); what each of them means over its own times is
tested by `promtool` in `test_dashboard.py`.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml
from endurance import chaos
from endurance.fleet import encoded, processes
from support.program import CLIPS, REPOSITORY, Running, free_port
from support.prometheus import Prometheus, hasty_dashboard, needs_prometheus, until
from support.rtsp import RtspCameras

from pipeline.errors import StoreError
from pipeline.store.reader import StoreReader
from pipeline.store.reviews import acknowledge

SHORTER = {  # one after the other: what became [1m] must not become [5s] too
    r"for: \w+": "for: 1s",
    r"\[1m\]": "[5s]",
    r"\[5m\]": "[5s]",
    r"\[30m\]": "[10s]",
    r"\[15m\]": "[1m]",
    r"\[1h\]": "[15s]",
    r"\[6h\]": "[30s]",
    r"backlog > \d+": "backlog > 0",
    r'"alarm"} > \d+': '"alarm"} > 3',
}
FPS = 4
DISK_MB = 32


class Operator(threading.Thread):
    """Acknowledges every alert, unless away."""

    def __init__(self, store: Path) -> None:
        super().__init__(daemon=True)
        self._store = store
        self.away, self.ended = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            with suppress(StoreError):  # another fault
                if not self.away.is_set():
                    self._acknowledge()

    def _acknowledge(self) -> None:
        with StoreReader(self._store) as reader:
            waiting = reader.alerts(100, unacknowledged=True)
        for alert in waiting:
            acknowledge(self._store, alert.id, time.time_ns())


@dataclass
class Site:
    folder: Path
    program: Running
    cameras: RtspCameras
    prometheus: Prometheus
    console_port: int
    operator: Operator

    def pid(self, worker: str) -> int:
        return processes(self.program)[worker][0]

    @property
    def supervisor(self) -> int:
        return next(pid for pid, command in self.program.children().items() if "-m pipeline run" in command)


Mend = Callable[[], object]


def camera_down(site: Site) -> Mend:
    site.cameras.command("down north")
    return partial(site.cameras.command, "up north")


def operator_away(site: Site) -> Mend:
    site.operator.away.set()
    return site.operator.away.clear


def worker_halted(site: Site) -> Mend:
    return halted(site.pid("console"))


def host_halted(site: Site) -> Mend:
    return halted(site.supervisor)


def halted(pid: int) -> Mend:
    os.kill(pid, signal.SIGSTOP)
    return partial(os.kill, pid, signal.SIGCONT)


def console_port_taken(site: Site) -> Mend:
    """Another program binds the console's port while the console restarts."""
    taken: list[socket.socket] = []

    def take() -> bool:
        with suppress(OSError):
            taken.append(socket.create_server(("127.0.0.1", site.console_port)))
        return bool(taken)

    os.kill(site.pid("console"), signal.SIGKILL)
    until(take)
    return taken[0].close


def worker_killed_again_and_again(site: Site) -> Mend:
    for _ in range(5):
        killed = site.pid("capture-gate")
        os.kill(killed, signal.SIGKILL)
        until(lambda killed=killed: processes(site.program).get("capture-gate", [killed]) != [killed])  # type: ignore[misc]
    return lambda: None


def slow_network(site: Site) -> Mend:
    """It stands still for most of the time: every frame is late."""
    ended = threading.Event()

    def halt_and_go_on() -> None:
        while not ended.wait(0.2):
            mend = halted(site.pid("segmentation"))
            time.sleep(1.0)  # the fault itself
            mend()

    thread = threading.Thread(target=halt_and_go_on)
    thread.start()

    def mend() -> None:
        ended.set()
        thread.join()

    return mend


def sink_refused(site: Site) -> Mend:
    """A folder stands where the sink's file was."""
    file = site.folder / "events.jsonl"
    file.rename(site.folder / "old.jsonl")
    file.mkdir()
    up = camera_down(site)  # an event that cannot be delivered

    def mend() -> None:
        up()
        file.rmdir()

    return mend


def disk_full(site: Site) -> Mend:
    filler = site.folder / "store" / "filler"
    filler.write_bytes(bytes((DISK_MB << 20) * 93 // 100))
    return filler.unlink


def store_locked(site: Site) -> Mend:
    other = sqlite3.connect(site.folder / "store" / "store.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def spill_file_damaged(site: Site) -> Mend:
    """What an earlier track worker left is no event."""
    (site.folder / "run" / "spill.jsonl").write_text("garbage\n")
    os.kill(site.pid("tracking"), signal.SIGKILL)
    return lambda: None


def snapshots_folder_is_a_file(site: Site) -> Mend:
    folder = site.folder / "run" / "snapshots"
    folder.rename(site.folder / "run" / "old-snapshots")
    folder.touch()
    camera_down(site)()  # its targets are new ones when it is back
    return folder.unlink


def clock_hours_behind(site: Site) -> Mend:
    """So that what was done now was done long ago."""
    clock = site.folder / "clock"
    clock.write_text(str(-3 * 3600))
    return partial(clock.write_text, "+0")


def clock_set_wrong(site: Site) -> Mend:
    clock = site.folder / "clock"
    clock.write_text("+10")
    return partial(clock.write_text, "+0")


FAULTS: dict[str, Callable[[Site], Mend]] = {
    "DasnetAlarmUnacknowledged": operator_away,
    "DasnetCameraBlind": camera_down,
    "DasnetScanLate": slow_network,
    "DasnetWorkerDown": worker_halted,
    "DasnetNotListening": console_port_taken,
    "DasnetSinkBacklog": sink_refused,
    "DasnetDiskLow": disk_full,
    "DasnetStoreFailing": store_locked,
    "DasnetEventsLost": spill_file_damaged,
    "DasnetSnapshotsLost": snapshots_folder_is_a_file,
    "DasnetRetentionCannotKeepUp": disk_full,  # by what is none of its own
    "DasnetRetentionStopped": clock_hours_behind,
    "DasnetObjectiveBurnsFast": slow_network,
    "DasnetObjectiveBurnsSlowly": slow_network,
    "DasnetHostDown": host_halted,
    "DasnetClockDrift": clock_set_wrong,
    "DasnetWorkerFailsAgainAndAgain": worker_killed_again_and_again,
}


# By promtool alone: this site has one inference host, and its cameras do not turn.
ELSEWHERE = {"DasnetCameraNotOwned", "DasnetPoseUnknown"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    script = hasty_dashboard(folder, SHORTER)
    (folder / "clock").write_text("+0")
    clip = encoded(CLIPS / "IR_DRONE_015.mp4", folder / "clip.mp4", FPS)
    settings: dict[str, str | int] = {"file": str(clip), "fps": FPS, "password": "p", "user": "viewer"}
    with small_disk(folder / "store"), RtspCameras({"north": settings, "gate": settings}) as cameras:
        config = folder / "site.yaml"
        content = {
            "cameras": [{"id": name, "uri": cameras.uri(name), "band": "infrared"} for name in cameras.ports],
            "objective": {"capture_to_track_ms": 800, "scan_revisit_s": 5},
            "run_dir": str(folder / "run"),
            "store": {"path": str(folder / "store" / "store.sqlite")},
            "sinks": [{"type": "jsonl", "path": str(folder / "events.jsonl")}],
            "metrics": {"port": free_port()},
            "console": {"port": (console_port := free_port())},
        }
        config.write_text(yaml.safe_dump(content))
        command = chaos.command(folder, folder / "clock", [sys.executable, str(script)])
        with Running(config, command=command) as program:
            address = program.wait_for_line(r"^prometheus: (http://127\.0\.0\.1:\d+)/graph")[1]
            for name in cameras.ports:
                program.wait_for_metric(f'dasnet_frames_segmented_total{{camera="{name}"}}', 5, timeout_s=100)
            operator = Operator(folder / "store" / "store.sqlite")
            operator.start()
            yield Site(folder, program, cameras, Prometheus(address), console_port, operator)
            operator.ended.set()
            operator.join()
            os.killpg(program.process.pid, signal.SIGINT)
            assert program.stop() == 0


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "dasnet-test", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_every_rule_has_its_fault():
    groups = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "alerts.rules.yml").read_text())["groups"]
    assert {rule["alert"] for group in groups for rule in group["rules"]} == {*FAULTS, *ELSEWHERE}


@needs_prometheus
@pytest.mark.slow
@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs root: a small disk is mounted")
@pytest.mark.parametrize("alert", FAULTS)
def test_an_alert_fires_while_its_fault_lasts_and_clears_afterwards(site: Site, alert: str):
    def fires() -> bool:
        return alert in {name for name, _ in site.prometheus.firing()}

    until(lambda: not site.prometheus.firing(), timeout_s=100)  # a fault before may have had others too
    mend = FAULTS[alert](site)
    try:
        until(fires, timeout_s=60)
    finally:
        mend()
    until(lambda: not fires(), timeout_s=100)
