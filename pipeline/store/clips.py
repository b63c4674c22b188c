"""Files of the alerts' clips: their names, and the record beside each.

A clip is `<alert>.mp4` with `<alert>.json`.  While it is written both have `.partial` in their names.
"""

from pathlib import Path

import msgspec

from pipeline.store.folders import write_whole

VIDEO, RECORD = ".mp4", ".json"
PARTIAL = ".partial"


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
    ended: str = ""  # post_s | max_s | stream | stopped | killed; empty while it is written
    reason: str = ""  # why it is incomplete

    @property
    def is_complete(self) -> bool:
        """Return whether the first detection is in it and nothing is missing."""
        return not self.reason


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
    write_whole(path, msgspec.json.format(msgspec.json.encode(record)))


def read_record(path: Path) -> ClipRecord:
    """Read a record.  Raise OSError or ValueError."""
    return msgspec.json.decode(path.read_bytes(), type=ClipRecord)


def alert_of(name: str) -> str:
    """Return the alert whose clip a file belongs to, complete or not; empty: none."""
    alert, _, suffix = name.partition(".")
    return alert if suffix.endswith((VIDEO[1:], RECORD[1:])) else ""
