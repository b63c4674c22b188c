"""What the values in messages must be, whoever sends them; all raise WireError."""

import re

from pipeline.errors import WireError
from pipeline.store.clips import ClipRecord
from pipeline.types import AxisSample

MAX_NUMBER = 2**63 - 1  # SQLite's largest integer
MAX_PTS_S = 1e9
MAX_DEG = 1e5  # of directions: some cameras count turns
MAX_SESSION_CHARACTERS = 64
_CLIP_TEXTS = re.compile(r".{0,64}\n([0-9a-f]{64})?\n[a-z_0-9]{0,20}\n.{0,300}")  # codec, digest, `ended`, reason
_ALERT = re.compile(r"[A-Za-z0-9_-]{1,64}")  # names a file


def check_session(session: str) -> None:
    """Reject a session without an id, or with a long one."""
    if not 1 <= len(session) <= MAX_SESSION_CHARACTERS:
        raise WireError(f"session of {len(session)} characters: must be 1 to {MAX_SESSION_CHARACTERS}")


def check_alert(alert: str) -> None:
    """Reject an id that could not name a file."""
    if not _ALERT.fullmatch(alert):
        raise WireError(f"alert {alert[:40]!r}: must match {_ALERT.pattern}")


def check_clip(record: ClipRecord, camera: str) -> None:
    """Reject a record that no capture worker writes, or of another camera."""
    check_alert(record.alert)
    check_session(record.session)
    if record.camera != camera:
        raise WireError(f"clip of camera {record.camera[:64]!r}: must be of camera {camera!r}")
    for pts_s in (record.first_detection_pts_s, record.zero_pts_s, record.first_pts_s, record.last_pts_s):
        check_time(pts_s or 0.0)
    check_numbers(*record.size_px, record.packets, record.missed_packets, record.size_bytes)
    if not _CLIP_TEXTS.fullmatch("\n".join((record.codec, record.sha256, record.ended, record.reason))):
        raise WireError(f"clip of alert {record.alert!r}: must have short texts of one line, and a SHA-256")
    if not record.is_lost and not (record.sha256 and record.size_bytes):
        raise WireError(f"clip of alert {record.alert!r}: must have a size and a SHA-256")


def check_axis(sample: AxisSample) -> None:
    """Reject directions that are none; NaN too."""
    is_direction = abs(sample.azimuth_deg) <= MAX_DEG and abs(sample.elevation_deg) <= MAX_DEG
    if not is_direction or not 0 < sample.hfov_deg < 180:
        raise WireError(
            f"axis at {sample.azimuth_deg}, {sample.elevation_deg} with a field of view of {sample.hfov_deg} degrees: "
            f"must be at most {MAX_DEG:.0f} degrees, and of 0 to 180"
        )


def check_time(pts_s: float) -> None:
    """Reject what is no presentation time; NaN too."""
    if not abs(pts_s) <= MAX_PTS_S:
        raise WireError(f"presentation time {pts_s} s: must be at most {MAX_PTS_S:.0f}")


def check_numbers(*numbers: int) -> None:
    """Reject what SQLite does not hold."""
    for number in numbers:
        if not 0 <= number <= MAX_NUMBER:
            raise WireError(f"number or time {number}: must be 0 to {MAX_NUMBER}")
