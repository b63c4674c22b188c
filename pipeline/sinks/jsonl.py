"""Events to a file, one JSON object a line.

In: events from the outbox.  Out: the file, each event in it once: its last line says what was delivered before a crash.
At `rotate_bytes` it becomes FILE.1, that one FILE.2, and so on; KEPT of them are kept.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.sinks.sink import SinkError
from pipeline.types import Event

CHUNK_BYTES = 64 << 10
ROTATE_BYTES = 32_000_000
KEPT = 4


class _Line(msgspec.Struct):
    id: str
    kind: str


class JsonlSink:
    """Appends, and syncs to disk, batch by batch.  A file that was moved away by other means is begun anew."""

    def __init__(self, path: Path, rotate_bytes: int = ROTATE_BYTES) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._descriptor = -1

    @property
    def name(self) -> str:
        return f"jsonl:{self._path}"

    def open(self) -> str | None:
        """Repairs a half-written last line.  Returns the id in the last whole one."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self._path.exists()
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            if is_new:
                _sync_folder(self._path.parent)
            return self._last_id() or self._last_rotated_id()
        except OSError as error:
            raise SinkError(f"{self._path}: {error.strerror}") from error

    def send(self, events: Sequence[Event]) -> None:
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
        """Of the newest rotated file: the crash may have come just after the rotation."""
        newest = JsonlSink(rotated(self._path, 1))
        try:
            newest._descriptor = os.open(newest._path, os.O_RDONLY)
            return newest._last_id()
        except (OSError, SinkError):  # there is none, or it is something else
            return None
        finally:
            newest.close()

    def _last_id(self) -> str | None:
        size = os.fstat(self._descriptor).st_size
        end = _line_start(self._descriptor, size)
        if end < size:
            self._drop_half_line(end, size)
        if not end:
            return None
        start = _line_start(self._descriptor, end - 1)
        try:
            return msgspec.json.decode(_read(self._descriptor, start, end), type=_Line).id
        except msgspec.DecodeError as error:
            raise SinkError(f"{self._path}: its last line is no event; name another file, or move this away") from error

    def _drop_half_line(self, start: int, size: int) -> None:
        """Cut off what a crash left; but never the end of a file that is something else, named here by mistake."""
        tail = _read(self._descriptor, start, min(size, start + len(b'{"id":')))
        if not b'{"id":'.startswith(tail) and tail.strip(b"\0"):  # after a power cut the tail may be zeros
            raise SinkError(f"{self._path}: is no file of events; name another, or move this away")
        os.ftruncate(self._descriptor, start)
        os.fsync(self._descriptor)


def rotated(path: Path, number: int) -> Path:
    """The name of a rotated file: 1 is the newest, KEPT the oldest."""
    return path.with_name(f"{path.name}.{number}")


def _line_start(descriptor: int, end: int) -> int:
    """Where the line begins that holds the byte before `end`: after the last newline of the first `end` bytes."""
    while end:
        start = max(0, end - CHUNK_BYTES)
        at = _read(descriptor, start, end).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _read(descriptor: int, start: int, end: int) -> bytes:
    return os.pread(descriptor, end - start, start)


def _sync_folder(folder: Path) -> None:
    """Without it a power cut could lose the new file's name, and the events with it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
