"""Files of the alerts' clips: their names, and the record beside each.

A clip is `<alert>.mp4` with `<alert>.json`.  While it is written, or still on its camera's edge host, both have
`.partial` in their names.  Of a clip that is lost there is the record alone, which says why.
"""

from pathlib import Path

import msgspec

from pipeline.store.folders import write_whole

VIDEO, RECORD = ".mp4", ".json"
PARTIAL = ".partial"
LOST = "lost"
MAX_REASON_CHARACTERS = 300


class ClipRecord(msgspec.Struct):
    """What a clip of an alert holds; times are `FrameRef.pts_s` of the session."""

    alert: str
    camera: str
    session: str
    first_detection_pts_s: float
    codec: str
    size_px: tuple[int, int]
    zero_pts_s: float  # of time 0 in the file
    first_pts_s: float | None = None  # of the first and the last packet
    last_pts_s: float | None = None
    packets: int = 0
    missed_packets: int = 0  # overwritten before they were written: the disk was too slow
    size_bytes: int = 0
    sha256: str = ""  # of the file
    covers_first_detection: bool = False
    ended: str = ""  # post_s | max_s | stream | stopped | killed | lost; empty while it is written
    reason: str = ""  # why it is incomplete

    @property
    def is_complete(self) -> bool:
        """Return whether the first detection is in it and nothing is missing."""
        return not self.reason

    @property
    def is_lost(self) -> bool:
        """Return whether there is no clip."""
        return self.ended == LOST


def record_without_clip(
    alert: str, camera: str, session: str, first_pts_s: float, reason: str, ended: str = LOST
) -> ClipRecord:
    """Return the record of a clip that is lost, or that is not here yet (`ended` is empty)."""
    line = " ".join(reason.split())[:MAX_REASON_CHARACTERS]
    return ClipRecord(alert, camera, session, first_pts_s, "", (0, 0), 0.0, ended=ended, reason=line)


def video_path(folder: Path, alert: str) -> Path:
    """Return the file of an alert's clip."""
    return folder / f"{alert}{VIDEO}"


def record_path(folder: Path, alert: str) -> Path:
    """Return the file of a clip's record."""
    return folder / f"{alert}{RECORD}"


def partial(path: Path) -> Path:
    """Return the name of a file while it is written."""
    return path.with_name(path.stem + PARTIAL + path.suffix)


def write_record(path: Path, record: ClipRecord) -> None:
    """Write a record, at once or not at all.  Raise OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(record)))


def read_record(path: Path) -> ClipRecord:
    """Read a record.  Raise OSError or ValueError."""
    return msgspec.json.decode(path.read_bytes(), type=ClipRecord)


def alert_of(name: str) -> str:
    """Return the alert whose clip a file belongs to, complete or not; empty: none."""
    alert, _, suffix = name.partition(".")
    return alert if suffix.endswith((VIDEO[1:], RECORD[1:])) else ""
