"""JSONL sink: events appended to a file, one JSON object per line.

In: events from the outbox.  Out: the file, with each event once: after a crash its last line shows what was delivered.
At `rotate_bytes` it becomes FILE.1, that one FILE.2, and so on, up to KEPT rotated files.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.config.sinks import JsonlSinkConfig
from pipeline.sinks.filters import event_filter
from pipeline.sinks.sink import Sink, SinkError
from pipeline.store.folders import sync_folder
from pipeline.types import Event

CHUNK_BYTES = 64 << 10
TORN_BYTES = 1 << 20  # more than a batch has
ROTATE_BYTES = 32_000_000
KEPT = 4
REMEDY = "configure another file, or move this one away"


class _Line(msgspec.Struct):
    id: str
    kind: str


class JsonlSink(Sink):
    """Append events, synced to disk batch by batch.  A file that was moved by log rotation is created again."""

    from_now_on = False

    def __init__(self, path: Path, rotate_bytes: int = ROTATE_BYTES, entry: JsonlSinkConfig | None = None) -> None:
        entry = entry or JsonlSinkConfig(type="jsonl")
        super().__init__(entry.name or f"jsonl:{path}", event_filter(entry))
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._descriptor = -1

    def open(self) -> str | None:
        """Truncate a partial last line, and return the id in the last complete one.  Raise SinkError."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self._path.exists()
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            if is_new:
                sync_folder(self._path.parent)
            return self._last_id() or self._last_rotated_id()
        except OSError as error:
            raise SinkError(f"{self._path}: {error.strerror}") from error

    def send(self, events: Sequence[Event]) -> None:
        """Append events and sync them to disk.  Raise SinkError."""
        try:
            if os.fstat(self._descriptor).st_size >= self._rotate_bytes and not self._moved():
                self._rotate()
            if self._moved():
                self.close()
                self.open()
            data = memoryview(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise SinkError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _moved(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True

    def _rotate(self) -> None:
        for number in range(KEPT - 1, 0, -1):
            if rotated(self._path, number).exists():
                rotated(self._path, number).replace(rotated(self._path, number + 1))
        self._path.replace(rotated(self._path, 1))

    def _last_rotated_id(self) -> str | None:
        """Return the last id of the newest rotated file: the crash may have happened just after the rotation."""
        newest = JsonlSink(rotated(self._path, 1))
        try:
            newest._descriptor = os.open(newest._path, os.O_RDONLY)
            return newest._last_id()
        except (OSError, SinkError):  # missing, or not a file of events
            return None
        finally:
            newest.close()

    def _last_id(self) -> str | None:
        size = os.fstat(self._descriptor).st_size
        end = _line_start(self._descriptor, size)
        if end < size:
            self._truncate_partial_line(end, size)
        end = self._truncate_torn_batch(end)
        if not end:
            return None
        start = _line_start(self._descriptor, end - 1)
        try:
            return msgspec.json.decode(_read(self._descriptor, start, end), type=_Line).id
        except msgspec.DecodeError as error:
            raise SinkError(f"{self._path}: last line is not an event; {REMEDY}") from error

    def _truncate_partial_line(self, start: int, size: int) -> None:
        """Cut off a partial line that a crash left, but never the end of a file that does not hold events."""
        tail = _read(self._descriptor, start, min(size, start + len(b'{"id":')))
        if not b'{"id":'.startswith(tail) and tail.strip(b"\0"):  # after a power cut the tail may be zeros
            raise SinkError(f"{self._path}: is not a file of events; {REMEDY}")
        os.ftruncate(self._descriptor, start)
        os.fsync(self._descriptor)

    def _truncate_torn_batch(self, size: int) -> int:
        """Cut off lines of which a power cut left some sectors, the others zero; return the new size."""
        start = max(0, size - TORN_BYTES)
        zero = _read(self._descriptor, start, size).find(b"\0")
        if zero < 0:
            return size
        end = _line_start(self._descriptor, start + zero)
        self._truncate_partial_line(end, size)
        return end


def rotated(path: Path, number: int) -> Path:
    """Return the path of a rotated file: number 1 is the newest, KEPT the oldest."""
    return path.with_name(f"{path.name}.{number}")


def _line_start(descriptor: int, end: int) -> int:
    """Return where the line with the byte before `end` begins: after the last newline of the first `end` bytes."""
    while end:
        start = max(0, end - CHUNK_BYTES)
        at = _read(descriptor, start, end).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _read(descriptor: int, start: int, end: int) -> bytes:
    return os.pread(descriptor, end - start, start)
