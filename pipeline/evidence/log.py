"""The evidence log: a file to which leaves are appended, and the root of the Merkle tree over its lines.

In: what leaves say.  Out: `evidence/log.jsonl`, synced to disk leaf by leaf or batch by batch.  One process writes it;
others may read it at any time.  What a crash or a power cut left incomplete was never acknowledged, and is
cut off.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from pipeline.errors import DasnetError
from pipeline.evidence.leaves import PREVIOUS_DIGITS, AnyLeaf, LogState, decode_leaf, encode_leaf
from pipeline.evidence.merkle import Frontier, leaf_hash
from pipeline.store.folders import sync_folder

FOLDER, LOG, HEADS = "evidence", "log.jsonl", "heads.jsonl"
TORN_BYTES = 1 << 20  # more than a batch has
FIRST = "0" * PREVIOUS_DIGITS  # stands for the predecessor of the first leaf

Draft = Callable[..., AnyLeaf]  # a leaf's class with all but what `Leaf` has


class EvidenceError(DasnetError):
    """The evidence log, or what belongs to it, cannot be read or written."""


class EvidenceLog:
    """The writer's side.  Not thread-safe.

    Attributes:
        state: what the leaves say.

    Raises:
        EvidenceError: the file cannot be opened, or another process writes it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG
        self.state = LogState()
        self._frontier = Frontier()
        self._previous = FIRST
        self._end = 0  # where the next line begins
        self._descriptor = -1
        try:
            self._open()
        except OSError as error:
            self.close()
            raise EvidenceError(f"{self._path}: {error.strerror}") from error

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EvidenceError(f"{self._path}: is written by another process") from error
        sync_folder(self._path.parent)
        for line in read_lines(self._path):
            if b"\0" in line and self._is_torn_batch(self._end):
                break
            self._take(line)
            try:
                self.state.take(decode_leaf(line))
            except msgspec.DecodeError:
                continue  # changed by someone: part of the tree all the same, and `dasnet evidence verify` names it

    def _is_torn_batch(self, start: int) -> bool:
        """Return whether the rest of the file is one batch of which a power cut left some sectors, the others zero."""
        rest = os.pread(self._descriptor, TORN_BYTES, start)
        times = set[int]()
        for line in rest.splitlines():
            with suppress(msgspec.DecodeError):
                times.add(decode_leaf(line).time_utc_ns)
        return len(times) <= 1 and start + len(rest) == os.fstat(self._descriptor).st_size

    @property
    def size(self) -> int:
        """Return the number of leaves."""
        return self._frontier.size

    @property
    def size_bytes(self) -> int:
        """Return the size of the file."""
        return self._end

    def root(self) -> bytes:
        """Return the root of the tree."""
        return self._frontier.root()

    def append(self, drafts: Sequence[Draft]) -> None:
        """Append leaves, all or none, synced to disk.  Raise EvidenceError."""
        if not drafts:
            return
        time_utc_ns, previous = time.time_ns(), self._previous
        leaves, lines = list[AnyLeaf](), list[bytes]()
        for n, draft in enumerate(drafts, start=self.size):
            leaves.append(draft(n=n, previous=previous, time_utc_ns=time_utc_ns))
            lines.append(encode_leaf(leaves[-1]))
            previous = leaf_hash(lines[-1]).hex()[:PREVIOUS_DIGITS]
        try:
            self._write(b"".join(line + b"\n" for line in lines))
        except OSError as error:
            raise EvidenceError(f"{self._path}: {error.strerror}") from error
        for leaf, line in zip(leaves, lines, strict=True):
            self._take(line)
            self.state.take(leaf)

    def _write(self, data: bytes) -> None:
        if not os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
            raise FileNotFoundError(0, "was replaced while it was written")
        os.ftruncate(self._descriptor, self._end)  # what a crash or a failed write left
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], self._end + written)
        os.fsync(self._descriptor)

    def _take(self, line: bytes) -> None:
        hashed = leaf_hash(line)
        self._frontier.append(hashed)
        self._previous = hashed.hex()[:PREVIOUS_DIGITS]
        self._end += len(line) + 1

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a log, without their ends.  Raise OSError."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line[:-1]
