"""Camera status for operators, computed from the cameras' ledgers and the newest live frames.

Polled about once a second.  A camera is blind while its ledger reports blind time for most of the recent window.
"""

import threading
import time
from collections import deque
from typing import Literal

import msgspec

from pipeline.config.camera import Camera
from pipeline.config.models import Config
from pipeline.console.frames import LiveFrames
from pipeline.console.sectors import sector_lines
from pipeline.errors import StoreError
from pipeline.store import ledger
from pipeline.store.owned import processed_here
from pipeline.timeouts import CAPTURE_SILENCE_TIMEOUT_S
from pipeline.types import Band, Cause

WINDOW_S = 4.0  # of the blind share
BLIND_SHARE = 0.5

State = Literal["starting", "up", "blind", "down"]


class FrameStatus(msgspec.Struct, frozen=True):
    """The newest tracked frame."""

    session: str
    seq: int
    received_utc_ns: int
    age_s: float
    width: int
    height: int
    tracks: int


class CameraStatus(msgspec.Struct, frozen=True):
    """Status and counts of a camera."""

    id: str
    band: Band
    uri: str  # without credentials
    state: State
    cause: Cause | None  # of being down, blind or partly blind
    blind_share: float  # of the last seconds, 0..1
    captured: int
    segmented: int
    in_flight: int
    reconnects: int
    dropped: dict[str, int]
    failed: dict[str, int]
    blind_s: dict[str, float]
    zones: dict[str, list[tuple[float, float]]]  # by name: polygons of three or more points, lines of two; frame pixels
    sectors: dict[str, list[list[tuple[float, float]]]]  # by name: lines, in frame widths from the frame's middle
    frame: FrameStatus | None


class CameraMonitor:
    """Keeps recent readings of every ledger; thread-safe."""

    def __init__(self, config: Config) -> None:
        self._lock = threading.Lock()
        self._readings: dict[str, deque[tuple[float, ledger.Account]]] = {}
        self.set_cameras(config)

    def set_cameras(self, config: Config) -> None:
        """Set the cameras of the site."""
        with self._lock:
            self._config = config
            self._redact = config.redactor
            self._sectors = {camera.id: sector_lines(camera) for camera in config.cameras}
            self._readings = {camera.id: self._readings.get(camera.id, deque()) for camera in config.cameras}

    def status(self, frames: LiveFrames) -> list[CameraStatus]:
        """Return the current status of every camera that this host processes."""
        with self._lock:
            return [self._status_of(camera, frames) for camera in processed_here(self._config)]

    def _status_of(self, camera: Camera, frames: LiveFrames) -> CameraStatus:
        account = self._read(camera.id)
        share, cause = self._blind_share(camera.id, account) if account else (0.0, None)
        state = _state(account, share) if account else "starting"
        account = account or ledger.Account()
        return CameraStatus(
            id=camera.id,
            band=camera.band,
            uri=self._redact(camera.public_uri),
            state=state,
            cause=Cause.OFFLINE if state == "down" else cause,
            blind_share=round(share, 3),
            captured=account.captured,
            segmented=account.segmented,
            in_flight=account.in_flight,
            reconnects=account.reconnects,
            dropped=_present(account.dropped),
            failed=_present(account.failed),
            blind_s={cause: duration / 1e9 for cause, duration in account.blind_ns.items() if duration},
            zones=camera.zones,
            sectors=self._sectors[camera.id],
            frame=_frame(frames, camera.id),
        )

    def _read(self, camera: str) -> ledger.Account | None:
        """Return the ledger, or None where the supervisor has not created it yet in this version's format."""
        try:
            return ledger.read(self._config.ledger_path(camera))
        except (OSError, ValueError, StoreError):
            return None

    def _blind_share(self, camera: str, account: ledger.Account) -> tuple[float, Cause | None]:
        """Return the blind share of the window, and its main cause."""
        now_s, readings = time.monotonic(), self._readings[camera]
        if readings and readings[-1][1].captured > account.captured:
            readings.clear()  # the ledger was reset
        readings.append((now_s, account))
        while len(readings) > 2 and readings[1][0] < now_s - WINDOW_S:
            readings.popleft()
        then_s, then = readings[0]
        if now_s - then_s < 0.5:
            return 0.0, None
        blind_ns = {cause: account.blind_ns[cause] - then.blind_ns[cause] for cause in account.blind_ns}
        worst = max(blind_ns, key=lambda cause: blind_ns[cause])
        share = min(1.0, max(0.0, sum(blind_ns.values()) / 1e9 / (now_s - then_s)))
        return share, worst if blind_ns[worst] > 0 else None


def _state(account: ledger.Account, blind_share: float) -> State:
    silent_ns = time.time_ns() - account.updated_utc_ns if account.updated_utc_ns else 0
    if not account.up or silent_ns > CAPTURE_SILENCE_TIMEOUT_S * 1e9:
        return "down"
    return "blind" if blind_share >= BLIND_SHARE else "up"


def _present(counts: dict[Cause, int]) -> dict[str, int]:
    return {cause: count for cause, count in counts.items() if count}


def _frame(frames: LiveFrames, camera: str) -> FrameStatus | None:
    known = frames.cameras.get(camera)
    newest = known.newest if known else None
    if newest is None:
        return None
    age_s = (time.time_ns() - newest.received_utc_ns) / 1e9
    size = (newest.width, newest.height)
    return FrameStatus(newest.session, newest.seq, newest.received_utc_ns, round(age_s, 3), *size, len(newest.tracks))
