"""What is known of an alert's clip."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from pipeline.store.clips import ClipRecord, partial, read_record


class AlertClip(msgspec.Struct, frozen=True):
    """Reply with the record of an alert's clip; null: there is none, or none yet.

    `state`: none, pending (it is being written, or not here yet), failed (it is lost) or written; `reason`: why it is
    pending, failed or incomplete.
    """

    state: Literal["none", "pending", "failed", "written"]
    reason: str
    clip: ClipRecord | None


def alert_clip(path: Path) -> AlertClip:
    """Return what is known of a clip from its record at this path, or from that of a clip that is not complete."""
    with suppress(OSError, ValueError):  # there is none, or no longer
        clip = read_record(path)
        return AlertClip("failed", clip.reason, None) if clip.is_lost else AlertClip("written", clip.reason, clip)
    with suppress(OSError, ValueError):
        return AlertClip("pending", read_record(partial(path)).reason, None)
    return AlertClip("none", "", None)
