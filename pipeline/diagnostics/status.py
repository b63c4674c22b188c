"""`dasnet status`: how a site fares, as a table in the terminal, from the run folder alone.

In: the cameras' ledgers, which outlive the program, and what the running program says that it is not ready for.  Out: a
table that is kept up to date in a terminal, or one reading elsewhere.
"""

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from pipeline.config.models import Config
from pipeline.console.cameras import CameraMonitor, CameraStatus
from pipeline.console.frames import LiveFrames
from pipeline.telemetry import health

PERIOD_S = 1.0
ANSWER_S = 2.0  # a program that is alive answers at once
NOT_HERE = "nothing runs here; these are the last counts"
_COLOURS = {"up": "green", "blind": "yellow", "down": "red", "starting": "cyan"}


@dataclass(frozen=True)
class Reading:
    """One look at the site."""

    faults: list[str] | None  # what is not ready; None: no program runs
    cameras: list[CameraStatus]

    @property
    def good(self) -> bool:
        return self.faults == [] and all(camera.state == "up" for camera in self.cameras)


class SiteReader:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._cameras = CameraMonitor(config)
        self._frames = LiveFrames(camera.id for camera in config.cameras)  # none: pictures are not looked at

    def read(self) -> Reading:
        return Reading(self._faults(), self._cameras.status(self._frames))

    def _faults(self) -> list[str] | None:
        url = health.published(self._config.metrics_address_path)
        if url is None:
            return None
        try:
            with urllib.request.urlopen(url.removesuffix("/metrics") + "/readyz", timeout=ANSWER_S) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:  # 503, with what is not ready
            told = json.load(error)
        except (OSError, ValueError):  # killed, its address was left behind; or a host that nobody answers at
            return None
        return [str(fault) for fault in told["not_ready"]]


def show(config: Config) -> int:
    """Until interrupted in a terminal, once elsewhere.  0: all cameras are up and searched; 1: they are not."""
    console = Console(highlight=False)
    site = SiteReader(config)
    reading = site.read()
    if not console.is_terminal:
        time.sleep(PERIOD_S)  # blindness is told from two readings
        reading = site.read()
        console.width = max(console.width, 160)  # of a file or a pipe nobody knows the width
        console.print(_screen(reading))
        return 0 if reading.good else 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what is in the background with it ignored
    try:
        with Live(_screen(reading), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(PERIOD_S)
                reading = site.read()
                live.update(_screen(reading), refresh=True)
    except KeyboardInterrupt:
        return 0 if reading.good else 1


def _screen(reading: Reading) -> Group:
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("camera")
    table.add_column("state")
    for name in ("captured", "searched"):
        table.add_column(name, justify="right")
    for name in ("dropped", "failed"):
        table.add_column(name)
    table.add_column("reconnects", justify="right")
    table.add_column("blind, s")
    for camera in reading.cameras:
        table.add_row(*_row(camera, running=reading.faults is not None))
    faults = [NOT_HERE] if reading.faults is None else reading.faults
    return Group(table, *(f"[yellow]{escape(fault)}[/]" for fault in faults))


def _row(camera: CameraStatus, *, running: bool) -> tuple[str, ...]:
    state = camera.state if running else "down"
    why = f" ({camera.cause})" if camera.cause and state in ("blind", "down") else ""
    return (
        escape(camera.id),
        f"[{_COLOURS[state]}]{state}{why}[/]",
        str(camera.captured),
        str(camera.segmented),
        _counts(camera.dropped),
        _counts(camera.failed),
        str(camera.reconnects),
        _counts({cause: round(seconds, 1) for cause, seconds in camera.blind_s.items()}),
    )


def _counts(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in counts.items())
