"""The sidecar of an alert: one JSON file that says what was seen, by what, and which files show it.

In: the tracks of alerts as they end, their events, and the digests of their files.  Out: `evidence/<alert>.json`,
written once the clip is complete, or shortly after it should be.  An alert that is active again, and ends again, has
another one, `evidence/<alert>-2.json`.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from pipeline.config.models import Config
from pipeline.evidence.configuration import configuration_name, pose_of, write_once
from pipeline.evidence.leaves import SIDECARS, Program
from pipeline.evidence.log import EvidenceError
from pipeline.evidence.track_paths import BoxAt, TrackPath, TrackPaths
from pipeline.ids import ULID_LENGTH
from pipeline.types import Event, FrameRef, Track

MAX_WAITING = 256  # alerts whose tracks wait for their sidecar
CLIP_TIMEOUT_S = 15.0  # beside `recording.post_s`
SNAPSHOT_TIMEOUT_S = 2.0  # where there are no clips
COLUMNS = BoxAt.__struct_fields__


class Sidecar(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known of an alert; docs/evidence.md describes it."""

    version: int = 1
    alert: str
    camera: str
    program: Program
    configuration: str  # its file, without secrets
    pose: dict[str, float] | None = None  # of the camera
    events: list[msgspec.Raw]  # as in the store
    tracks_incomplete: str = ""  # why
    columns: tuple[str, ...] = COLUMNS  # of `tracks[].boxes`
    tracks: list[TrackPath]
    files: dict[str, str]  # digest by name


class Sidecars:
    """Make sidecars.  `track` and `close` are called by one thread, all else by another."""

    def __init__(self, config: Config) -> None:
        self._folder = config.evidence_path
        self._paths = TrackPaths()  # of the first thread
        self._lock = threading.Lock()  # guards the next one
        self._waiting: dict[str, list[TrackPath]] = {}
        self._due_s: dict[str, float] = {}

    def track(self, ref: FrameRef, tracks: Sequence[Track], events: Sequence[Event]) -> None:
        """Take the tracks and events of a frame.  Does not block."""
        ended = self._paths.update(ref, tracks, events)
        with self._lock:
            for alert, paths in ended.items():
                self._waiting[alert] = paths
                while len(self._waiting) > MAX_WAITING:
                    del self._waiting[next(iter(self._waiting))]

    def close(self, camera: str) -> None:
        """Forget a camera whose session ended."""
        self._paths.close(camera)

    def due(self, ended: Iterable[str], files: Mapping[str, str], config: Config) -> list[str]:
        """Return which of the alerts that ended have all their files, or should have."""
        now_s, recording = time.monotonic(), config.recording
        wait_s = recording.post_s + CLIP_TIMEOUT_S if recording.enabled else SNAPSHOT_TIMEOUT_S
        self._due_s = {alert: self._due_s.get(alert, now_s + wait_s) for alert in ended}
        return [alert for alert, due_s in self._due_s.items() if now_s >= due_s or f"clips/{alert}.json" in files]

    def write(
        self,
        alert: str,
        events: Sequence[bytes],
        program: Program,
        files: Mapping[str, str],
    ) -> None:
        """Write a sidecar.

        Args:
            alert: its id.
            events: their JSON.
            program: that opened it.
            files: digest by name, of all files.

        Raises:
            EvidenceError: it cannot be written.
        """
        with self._lock:
            tracks = self._waiting.pop(alert, None)
        camera = msgspec.json.decode(events[0], type=_OfCamera).camera if events else ""
        configuration = configuration_name(program.configuration_sha256)
        sidecar = Sidecar(
            alert=alert,
            camera=camera,
            program=program,
            configuration=configuration,
            pose=pose_of(camera, self._folder.parent / configuration),
            events=[msgspec.Raw(event) for event in events],
            tracks_incomplete="" if tracks is not None else "the track worker ended before the alert did",
            tracks=tracks or [],
            files={name: sha256 for name, sha256 in files.items() if is_of(alert, name)},
        )
        write_once(self._free_path(alert), msgspec.json.encode(sidecar))

    def _free_path(self, alert: str) -> Path:
        path, number = self._folder / f"{alert}.json", 2
        while path.exists():
            path, number = self._folder / f"{alert}-{number}.json", number + 1
        return path


class _OfCamera(msgspec.Struct):
    camera: str


def is_of(alert: str, name: str) -> bool:
    """Return whether a file of the run folder is a snapshot or clip of an alert."""
    folder, _, file = name.partition("/")
    return folder != SIDECARS and file[:ULID_LENGTH] == alert


def read_sidecar(data: bytes, name: str) -> Sidecar:
    """Return a sidecar.  Raise EvidenceError, which names the file."""
    try:
        return msgspec.json.decode(data, type=Sidecar)
    except msgspec.DecodeError as error:
        raise EvidenceError(f"{name}: is no sidecar of this version ({error})") from error
