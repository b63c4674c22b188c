"""The spill file: events on disk while the store cannot be written.

In: events, in order.  Out: the same, in order, also after a restart.  One JSON object per line; bounded in size.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline.store.folders import sync_folder
from pipeline.types import Event

LIMIT_BYTES = 256_000_000
CHUNK_BYTES = 1 << 20


class SpillFullError(OSError):
    """The spill file has reached its limit."""


class SpilledBatch(NamedTuple):
    """Events read from the spill file."""

    events: list[Event]
    unreadable: int  # lines that cannot be decoded
    end: int  # where the next batch begins


class SpillFile:
    """A queue of events in a file, for one thread."""

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._start = 0  # where the first event that was not taken begins
        self.count = 0  # lines from there on
        read = whole = 0
        with suppress(FileNotFoundError), path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self.count += chunk.count(b"\n")
                last = chunk.rfind(b"\n")
                whole = read + last + 1 if last >= 0 else whole
                read += len(chunk)
        self._end = self._inherited_end = whole  # a crash may have left a partial line after it

    @property
    def is_inherited(self) -> bool:
        """Return whether the next events are those of an earlier process."""
        return self._start < self._inherited_end

    def append(self, events: Sequence[Event]) -> None:
        """Append all events or none, synced to disk.  Raise OSError, SpillFullError at the size limit."""
        data = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
        if self._end + len(data) > self._limit_bytes:
            raise SpillFullError(f"{self._path}: size limit of {self._limit_bytes} bytes reached")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            if is_new:
                sync_folder(self._path.parent)
            os.ftruncate(descriptor, self._end)  # a partial line of a failed write
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], self._end + written)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._end += len(data)
        self.count += len(events)

    def batch(self, limit: int) -> SpilledBatch:
        """Return the oldest events, all of the same process.  Raise OSError."""
        events, unreadable = list[Event](), 0
        boundary = self._inherited_end if self.is_inherited else self._end
        with self._path.open("rb") as file:
            file.seek(self._start)
            while len(events) < limit and file.tell() < boundary:
                line = file.readline()
                if not line:  # the file was truncated by someone else
                    return SpilledBatch(events, max(0, self.count - len(events)), self._end)
                try:
                    events.append(msgspec.json.decode(line, type=Event))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    unreadable += 1
            return SpilledBatch(events, unreadable, file.tell())

    def taken(self, batch: SpilledBatch) -> None:
        """Discard a batch that was stored; delete the file after the last one."""
        self._start = batch.end
        self.count -= len(batch.events) + batch.unreadable
        if self._start >= self._end:
            self.clear()

    def clear(self) -> int:
        """Delete the file and return how many events were left in it."""
        left, self.count = max(0, self.count), 0
        self._start = self._end = self._inherited_end = 0
        with suppress(OSError):  # stored again at the next start, where duplicates are ignored
            self._path.unlink(missing_ok=True)
        return left
