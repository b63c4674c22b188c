"""Dead letters: events that a sink's destination refused again and again, one JSON object per line.

In: an event and the reason.  Out: `dead-letters/SINK.jsonl` beside the store, of bounded size: at MAX_BYTES it becomes
SINK.jsonl.1, and the one of that name is deleted.
"""

import os
from pathlib import Path

import msgspec

from pipeline.store.folders import sync_folder
from pipeline.types import Event

FOLDER = "dead-letters"
MAX_BYTES = 10_000_000


class DeadLetter(msgspec.Struct, frozen=True):
    """A line of the file."""

    refused_utc_ns: int
    reason: str  # without secrets
    event: Event


def append(store_path: Path, sink: str, letter: DeadLetter) -> Path:
    """Append a line, synced to disk, and return the file.  Raise OSError."""
    path = store_path.with_name(FOLDER) / f"{sink}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size >= MAX_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    with path.open("ab") as file:
        file.write(msgspec.json.encode(letter) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return path
