"""`dasnet status`: a table of live camera status in the terminal, read from the run folder.

Reads the cameras' ledgers, which outlive the program, and `/readyz` of the running program.  The table is refreshed in
a terminal, and printed once elsewhere.
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
from pipeline.runtime.arming import is_armed
from pipeline.telemetry import health

PERIOD_S = 1.0
READYZ_TIMEOUT_S = 2.0
NOT_RUNNING = "dasnet is not running; these are the last counts"
DISARMED = "the site is disarmed: rules that need arming do not apply"
_COLOURS = {"up": "green", "blind": "yellow", "down": "red", "starting": "cyan"}


@dataclass(frozen=True)
class Reading:
    """Status of the site at one moment."""

    faults: list[str] | None  # reported by /readyz; None: the program is not running
    cameras: list[CameraStatus]
    armed: bool = True

    @property
    def good(self) -> bool:
        """Whether the program is ready and all cameras are up."""
        return self.faults == [] and all(camera.state == "up" for camera in self.cameras)


class SiteReader:
    """Reads the status of a site from its run folder."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._cameras = CameraMonitor(config)
        self._frames = LiveFrames(camera.id for camera in config.cameras)  # stays empty: images are not shown

    def read(self) -> Reading:
        """Return the current status."""
        return Reading(self._faults(), self._cameras.status(self._frames), is_armed(self._config.run_dir))

    def _faults(self) -> list[str] | None:
        url = health.published(self._config.metrics_address_path)
        if url is None:
            return None
        try:
            with urllib.request.urlopen(url.removesuffix("/metrics") + "/readyz", timeout=READYZ_TIMEOUT_S) as answer:
                answered = json.load(answer)
        except urllib.error.HTTPError as error:  # 503, with the faults
            answered = json.load(error)
        except (OSError, ValueError):  # the program was killed and left its address file behind
            return None
        return [str(fault) for fault in answered["not_ready"]]


def show(config: Config) -> int:
    """Show the status until interrupted in a terminal, once elsewhere.

    Returns:
        The exit code: 0 where all cameras are up and processed, otherwise 1.
    """
    console = Console(highlight=False)
    site = SiteReader(config)
    reading = site.read()
    if not console.is_terminal:
        time.sleep(PERIOD_S)  # blindness is the difference of two readings
        reading = site.read()
        console.width = max(console.width, 160)  # the width of a file or pipe is unknown
        console.print(_screen(reading))
        return 0 if reading.good else 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs of a shell
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
    for name in ("captured", "segmented"):
        table.add_column(name, justify="right")
    for name in ("dropped", "failed"):
        table.add_column(name)
    table.add_column("reconnects", justify="right")
    table.add_column("blind, s")
    for camera in reading.cameras:
        table.add_row(*_row(camera, running=reading.faults is not None))
    faults = [NOT_RUNNING] if reading.faults is None else reading.faults
    faults = [*faults, *([] if reading.armed else [DISARMED])]
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
