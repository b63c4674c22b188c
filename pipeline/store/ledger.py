"""The ledger of one camera: every frame's fate, counted where it cannot be lost.

A small memory-mapped file of 64-bit counters in the run folder, written by the camera's capture worker alone, which
locks it, and read by anybody.  At every read: captured = segmented + dropped + failed + in_flight.  The file outlives
the worker; what was in flight when one died is counted as failed by the next.
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

MAGIC = 0x6461736E_65740001  # changes with the layout below
CAUSES = tuple(Cause)
_COUNTERS = ("captured", "segmented", "in_flight", "credits", "reconnects", "up", "updated_utc_ns")
_FIELDS = (
    *_COUNTERS,
    *(f"dropped.{cause}" for cause in CAUSES),
    *(f"failed.{cause}" for cause in CAUSES),
    *(f"blind_ns.{cause}" for cause in CAUSES),
)
DEAD_WRITER_S = 0.2  # an entry takes microseconds
_WORD_BYTES = 8
_HEADER_WORDS = 2  # magic, and a sequence that is odd while a write is under way
SIZE_BYTES = (_HEADER_WORDS + len(_FIELDS)) * _WORD_BYTES


@dataclass(frozen=True)
class Account:
    """One consistent reading."""

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
        fates = self.segmented + sum(self.dropped.values()) + sum(self.failed.values()) + self.in_flight
        return self.captured == fates and self.in_flight <= self.credits


def read(path: Path) -> Account:
    """Raises StoreError where the file is no ledger of this version."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), SIZE_BYTES, access=mmap.ACCESS_READ) as memory,
        # Words are read and written one at a time, whole; `struct` would write them byte by byte.
        memoryview(memory) as octets,
        octets.cast("Q") as words,
    ):
        if words[0] != MAGIC:
            raise StoreError(f"{path}: no ledger of this version; remove it to start a new one")
        deadline_s = time.monotonic() + DEAD_WRITER_S
        while True:
            before = words[1]
            body = words[_HEADER_WORDS:].tobytes()  # one copy, so that a busy writer seldom comes between
            whole_entry = before % 2 == 0 and before == words[1]
            if whole_entry or time.monotonic() > deadline_s:
                break
    values = dict(zip(_FIELDS, array("Q", body), strict=True))
    if not whole_entry:  # its writer died in the middle of an entry
        _settle(values)
    return _account(values)


def _account(values: dict[str, int]) -> Account:
    return Account(
        **{name: values[name] for name in _COUNTERS if name != "up"},
        up=bool(values["up"]),
        dropped={cause: values[f"dropped.{cause}"] for cause in CAUSES},
        failed={cause: values[f"failed.{cause}"] for cause in CAUSES},
        blind_ns={cause: values[f"blind_ns.{cause}"] for cause in CAUSES},
    )


def _settle(values: dict[str, int]) -> None:
    """What a dead writer had captured and given no fate, in flight or cut off half-way, is counted as failed."""
    fates = sum(count for name, count in values.items() if name.startswith(("dropped.", "failed.")))
    values[f"failed.{Cause.FAILED}"] += max(0, values["captured"] - values["segmented"] - fates)
    values["in_flight"] = 0


class _Memory:
    """The file as its one writer has it.  Raises StoreError where another writes it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # holds the lock
        try:
            _lock(self._descriptor, path)
            fresh = os.fstat(self._descriptor).st_size != SIZE_BYTES
            os.ftruncate(self._descriptor, SIZE_BYTES)
            os.posix_fallocate(self._descriptor, 0, SIZE_BYTES)  # on a full disk an OSError here, not a SIGBUS later
            self._memory = mmap.mmap(self._descriptor, SIZE_BYTES)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._words = memoryview(self._memory).cast("Q")
        if fresh or self._words[0] != MAGIC:
            self._memory[:] = bytes(SIZE_BYTES)
            self._words[0] = MAGIC
        self._sequence = self._words[1] + self._words[1] % 2  # a writer that died in the middle left it odd

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
        raise StoreError(f"{path}: another process writes this ledger; a camera must have one capture worker") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be locked ({error.strerror}); set another run_dir") from error


class LedgerCopies:
    """What the ledgers of cameras on other hosts say, as ledgers of this host."""

    def __init__(self) -> None:
        self._memories: dict[Path, _Memory] = {}

    def write(self, path: Path, words: bytes) -> None:
        """`words`: as of `Ledger.words`.  Its time becomes this host's.

        Raises WireError for what is no account, or of a camera that is on this host.
        """
        if len(words) != len(_FIELDS) * _WORD_BYTES:
            raise WireError(f"a ledger of {len(words)} bytes; allowed: {len(_FIELDS) * _WORD_BYTES}")
        values = dict(zip(_FIELDS, array("Q", words), strict=True))
        if max(values.values()) >= 2**63 or not _account(values).balanced:
            raise WireError("a ledger whose account does not balance")
        values["updated_utc_ns"] = time.time_ns()
        if path not in self._memories:
            try:
                self._memories[path] = _Memory(path)
            except StoreError as error:
                raise WireError(str(error)) from error
        self._memories[path].write(values)

    def release(self, path: Path) -> None:
        """The camera is on this host now, or on none."""
        if path in self._memories:
            self._memories.pop(path).close()

    def close(self) -> None:
        for memory in self._memories.values():
            memory.close()


class Ledger:
    """The writer's side.  One a camera at a time; not thread-safe: the caller serialises."""

    def __init__(self, path: Path, credits: int) -> None:
        self._memory = _Memory(path)
        self._values = self._memory.read()
        self.searched_ns = 0  # when the last frame was segmented, on the monotonic clock; 0: not yet by this writer
        with self._change() as values:
            _settle(values)
            values["credits"] = credits
            values["up"] = 0

    @contextmanager
    def _change(self) -> Iterator[dict[str, int]]:
        yield self._values
        self._memory.write(self._values)

    def sent(self) -> None:
        """A frame was captured and went to segmentation."""
        with self._change() as values:
            values["captured"] += 1
            values["in_flight"] += 1

    def dropped(self, cause: Cause, frames: int = 1) -> None:
        """Frames were captured and will not be searched."""
        with self._change() as values:
            values["captured"] += frames
            values[f"dropped.{cause}"] += frames

    def segmented(self) -> None:
        with self._change() as values:
            values["in_flight"] -= 1
            values["segmented"] += 1
        self.searched_ns = time.monotonic_ns()

    def failed(self, cause: Cause = Cause.FAILED, frames: int = 1) -> None:
        """Frames in flight came to nothing."""
        with self._change() as values:
            values["in_flight"] -= frames
            values[f"failed.{cause}"] += frames

    def blind(self, cause: Cause, duration_ns: int) -> None:
        with self._change() as values:
            values[f"blind_ns.{cause}"] += duration_ns

    def connection(self, *, up: bool, reconnect: bool = False) -> None:
        with self._change() as values:
            values["up"] = int(up)
            values["reconnects"] += int(reconnect)

    def touch(self, utc_ns: int) -> None:
        """The worker lives: what is later than this was not watched."""
        with self._change() as values:
            values["updated_utc_ns"] = utc_ns

    def lost(self) -> dict[Cause, int]:
        """Frames dropped or failed so far."""
        return {cause: self._values[f"dropped.{cause}"] + self._values[f"failed.{cause}"] for cause in CAUSES}

    @property
    def words(self) -> bytes:
        """All of it, for another host: see `LedgerCopies`."""
        return array("Q", self._values.values()).tobytes()

    @property
    def is_up(self) -> bool:
        return bool(self._values["up"])

    @property
    def updated_utc_ns(self) -> int:
        return self._values["updated_utc_ns"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._memory.close()
