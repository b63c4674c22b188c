"""The ledger of one camera: the outcome of every frame, in counters that survive the worker.

A small memory-mapped file of 64-bit counters in the run folder, written only by the camera's capture worker, which
locks it, and read by any process.  At every read: captured = segmented + dropped + failed + in_flight.  Frames that
were in flight when a worker died are counted as failed by the next one.
"""

import fcntl
import mmap
import os
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import StoreError, WireError
from pipeline.types import Cause

MAGIC = 0x6461736E_65740003  # changes with the layout below
CAUSES = tuple(Cause)
DROP_CAUSES = (Cause.OVERLOAD, Cause.CORRUPT)  # why a capture worker drops frames; it is blind for any cause
_COUNTERS = ("captured", "segmented", "in_flight", "credits", "reconnects", "up", "updated_utc_ns")
_FIELDS = (
    *_COUNTERS,
    *(f"dropped.{cause}" for cause in CAUSES),
    *(f"failed.{cause}" for cause in CAUSES),
    *(f"blind_ns.{cause}" for cause in CAUSES),
)
DEAD_WRITER_S = 0.2  # a write takes microseconds
_WORD_BYTES = 8
_HEADER_WORDS = 2  # magic, and a sequence number that is odd during a write
SIZE_BYTES = (_HEADER_WORDS + len(_FIELDS)) * _WORD_BYTES


@dataclass(frozen=True)
class Account:
    """One consistent reading of a ledger."""

    captured: int = 0
    segmented: int = 0
    in_flight: int = 0
    credits: int = 0
    reconnects: int = 0
    up: bool = False
    updated_utc_ns: int = 0
    dropped: dict[Cause, int] = field(default_factory=dict)
    failed: dict[Cause, int] = field(default_factory=dict)
    blind_ns: dict[Cause, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Return whether every captured frame has exactly one outcome or is in flight."""
        accounted = self.segmented + sum(self.dropped.values()) + sum(self.failed.values()) + self.in_flight
        return self.captured == accounted and self.in_flight <= self.credits


def read(path: Path) -> Account:
    """Read a ledger consistently.  Raise StoreError where the file is not a ledger of this version."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), SIZE_BYTES, access=mmap.ACCESS_READ) as memory,
        # A memoryview reads and writes whole words; `struct` would write them byte by byte.
        memoryview(memory) as octets,
        octets.cast("Q") as words,
    ):
        if words[0] != MAGIC:
            raise StoreError(f"{path}: is not a ledger of this version; remove it to start a new one")
        deadline_s = time.monotonic() + DEAD_WRITER_S
        while True:
            before = words[1]
            body = words[_HEADER_WORDS:].tobytes()  # in one copy, so that a write rarely interferes
            is_consistent = before % 2 == 0 and before == words[1]
            if is_consistent or time.monotonic() > deadline_s:
                break
    values = dict(zip(_FIELDS, array("Q", body), strict=True))
    if not is_consistent:  # the writer died during a write
        _fail_in_flight(values)
    return _account(values)


def _account(values: dict[str, int]) -> Account:
    return Account(
        **{name: values[name] for name in _COUNTERS if name != "up"},
        up=bool(values["up"]),
        dropped={cause: values[f"dropped.{cause}"] for cause in CAUSES},
        failed={cause: values[f"failed.{cause}"] for cause in CAUSES},
        blind_ns={cause: values[f"blind_ns.{cause}"] for cause in CAUSES},
    )


def _fail_in_flight(values: dict[str, int]) -> None:
    """Count every captured frame without an outcome as failed: its worker died."""
    accounted = sum(count for name, count in values.items() if name.startswith(("dropped.", "failed.")))
    values[f"failed.{Cause.FAILED}"] += max(0, values["captured"] - values["segmented"] - accounted)
    values["in_flight"] = 0


class _Memory:
    """The locked, writable file.  Raise StoreError where another process holds its lock."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # holds the lock
        try:
            _lock(self._descriptor, path)
            fresh = os.fstat(self._descriptor).st_size != SIZE_BYTES
            os.ftruncate(self._descriptor, SIZE_BYTES)
            os.posix_fallocate(self._descriptor, 0, SIZE_BYTES)  # a full disk: OSError now, not SIGBUS later
            self._memory = mmap.mmap(self._descriptor, SIZE_BYTES)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._words = memoryview(self._memory).cast("Q")
        if fresh or self._words[0] != MAGIC:
            self._memory[:] = bytes(SIZE_BYTES)
            self._words[0] = MAGIC
        self._sequence = self._words[1] + self._words[1] % 2  # odd after a writer died during a write

    def read(self) -> dict[str, int]:
        return dict(zip(_FIELDS, self._words[_HEADER_WORDS:].tolist(), strict=True))

    def write(self, values: dict[str, int]) -> None:
        self._words[1] = self._sequence + 1
        self._words[_HEADER_WORDS:] = memoryview(array("Q", values.values()))
        self._sequence += 2
        self._words[1] = self._sequence

    def close(self) -> None:
        if not self._memory.closed:
            self._words.release()
            self._memory.flush()
            self._memory.close()
            os.close(self._descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(f"{path}: is locked by another process; a camera must have only one capture worker") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be locked ({error.strerror}); configure another run_dir") from error


class LedgerCopies:
    """Copies of the ledgers of cameras on edge hosts, in this host's run folder."""

    def __init__(self) -> None:
        self._memories: dict[Path, _Memory] = {}

    def write(self, path: Path, words: bytes) -> None:
        """Write `words`, as returned by `Ledger.words`, with this host's time.

        Raise WireError where they are not a balanced ledger, or where a capture worker of this host writes it.
        """
        if len(words) != len(_FIELDS) * _WORD_BYTES:
            raise WireError(f"ledger copy of {len(words)} bytes; must be {len(_FIELDS) * _WORD_BYTES}")
        values = dict(zip(_FIELDS, array("Q", words), strict=True))
        if max(values.values()) >= 2**63 or not _account(values).balanced:
            raise WireError("ledger copy whose counters do not balance")
        values["updated_utc_ns"] = time.time_ns()
        if path not in self._memories:
            try:
                self._memories[path] = _Memory(path)
            except StoreError as error:
                raise WireError(str(error)) from error
        self._memories[path].write(values)

    def release(self, path: Path) -> None:
        """Close the copy: the camera is on this host now, or was removed."""
        if path in self._memories:
            self._memories.pop(path).close()

    def close(self) -> None:
        """Close all copies."""
        for memory in self._memories.values():
            memory.close()


class Ledger:
    """The writer's side: one per camera.  Not thread-safe: the caller serialises."""

    def __init__(self, path: Path, credits: int) -> None:
        self._memory = _Memory(path)
        self._values = self._memory.read()
        self.segmented_ns = 0  # when the last frame was segmented, monotonic; 0: none by this writer yet
        with self._change() as values:
            _fail_in_flight(values)
            values["credits"] = credits
            values["up"] = 0

    @contextmanager
    def _change(self) -> Iterator[dict[str, int]]:
        yield self._values
        self._memory.write(self._values)

    def sent(self) -> None:
        """Count a frame that was captured and sent to segmentation."""
        with self._change() as values:
            values["captured"] += 1
            values["in_flight"] += 1

    def dropped(self, cause: Cause, frames: int = 1) -> None:
        """Count frames that were captured but not sent to segmentation."""
        with self._change() as values:
            values["captured"] += frames
            values[f"dropped.{cause}"] += frames

    def segmented(self) -> None:
        """Count a frame in flight as segmented."""
        with self._change() as values:
            values["in_flight"] -= 1
            values["segmented"] += 1
        self.segmented_ns = time.monotonic_ns()

    def failed(self, cause: Cause = Cause.FAILED, frames: int = 1) -> None:
        """Count frames in flight as failed."""
        with self._change() as values:
            values["in_flight"] -= frames
            values[f"failed.{cause}"] += frames

    def blind(self, cause: Cause, duration_ns: int) -> None:
        """Add time for which the camera was blind."""
        with self._change() as values:
            values[f"blind_ns.{cause}"] += duration_ns

    def connection(self, *, up: bool, reconnect: bool = False) -> None:
        """Record whether the camera is connected, and count a reconnection."""
        with self._change() as values:
            values["up"] = int(up)
            values["reconnects"] += int(reconnect)

    def touch(self, utc_ns: int) -> None:
        """Record that the worker was alive at this time."""
        with self._change() as values:
            values["updated_utc_ns"] = utc_ns

    def lost(self) -> dict[Cause, int]:
        """Return the frames dropped or failed so far, by cause."""
        return {cause: self._values[f"dropped.{cause}"] + self._values[f"failed.{cause}"] for cause in CAUSES}

    @property
    def words(self) -> bytes:
        """Return all counters as bytes, for another host: see `LedgerCopies`."""
        return array("Q", self._values.values()).tobytes()

    @property
    def is_up(self) -> bool:
        """Return whether the camera is connected."""
        return bool(self._values["up"])

    @property
    def updated_utc_ns(self) -> int:
        """Return when the worker was last known to be alive."""
        return self._values["updated_utc_ns"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release its lock."""
        self._memory.close()
