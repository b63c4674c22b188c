"""What a disk may hold after a power cut: a program's system calls are journalled, and cut off at any of them.

A disk keeps what was synced. Of what was written since, it keeps any of the sectors, and of the names that were made,
renamed and deleted since their folder was synced, the first few: file systems journal those in order.
"""

import os
import random
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).with_suffix(".c")
SECTOR_BYTES = 512
_HEAD = struct.Struct("qqqq")


class Call(NamedTuple):
    """A system call: c creates, w writes, t truncates, s syncs a file, d syncs a folder, r renames, u unlinks."""

    kind: str
    path: Path
    offset: int
    data: bytes


@dataclass
class _Node:
    """A file: what is surely on the disk, and what was written since."""

    synced: bytearray = field(default_factory=bytearray)
    since: list[Call] = field(default_factory=list)

    def after_cut(self, choose: random.Random) -> bytes:
        content = bytearray(self.synced)
        kept = choose.choice((0.0, 0.5, 1.0))
        torn_at = choose.randrange(len(self.since) + 1) if choose.random() < 0.5 else len(self.since)
        for call in self.since[:torn_at]:  # half of the time the writes reach the disk in order, and the last is torn
            for part in _sectors(call) if kept < 1 else [call]:
                if choose.random() < kept or kept == 1:
                    _apply(content, part)
        if torn_at < len(self.since) and self.since[torn_at].kind == "w":
            torn = self.since[torn_at]
            _apply(content, torn._replace(data=torn.data[: choose.randrange(len(torn.data) + 1)]))
        return bytes(content)

    def sync(self) -> None:
        for call in self.since:
            _apply(self.synced, call)
        self.since.clear()


def _sectors(call: Call) -> Iterator[Call]:
    """Yield the parts of a call that reach the disk each by itself."""
    if call.kind == "t":
        yield call
        return
    start, end = call.offset, call.offset + len(call.data)
    while start < end:
        stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield Call("w", call.path, start, call.data[start - call.offset : stop - call.offset])
        start = stop


def _apply(content: bytearray, call: Call) -> None:
    if call.kind == "t":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return
    content.extend(bytes(max(0, call.offset - len(content))))
    content[call.offset : call.offset + len(call.data)] = call.data


class Disk:
    """A disk on which calls are made."""

    def __init__(self) -> None:
        self._names: dict[Path, _Node] = {}  # as programs see them
        self._synced: dict[Path, _Node] = {}
        self._since: dict[Path, list[tuple[Path | None, Path | None, _Node]]] = {}  # old and new name, by folder

    def make(self, call: Call) -> None:
        """Make a call."""
        if call.kind == "d":
            self._sync_folder(call.path)
        elif call.kind in "ru":
            node = self._names.pop(call.path, None)
            if node is not None:
                new = Path(call.data.decode()) if call.kind == "r" else None
                self._rename(call.path, new, node)
        else:
            node = self._names.get(call.path)
            if node is None:
                node = _Node()
                self._rename(None, call.path, node)
            if call.kind == "s":
                node.sync()
            elif call.kind != "c":
                node.since.append(call)

    def _rename(self, old: Path | None, new: Path | None, node: _Node) -> None:
        if new is not None:
            self._names[new] = node
        folder = (new or old or Path()).parent
        self._since.setdefault(folder, []).append((old, new, node))

    def _sync_folder(self, folder: Path) -> None:
        for change in self._since.pop(folder, []):
            _rename(self._synced, *change)

    def write(self, root: Path, copy: Path, choose: random.Random) -> None:
        """Write what the disk may hold after a power cut now."""
        names = dict(self._synced)
        for changes in self._since.values():
            for change in changes[: choose.randrange(len(changes) + 1)]:
                _rename(names, *change)
        for path, node in names.items():
            if path.name.endswith("-shm"):  # shared memory: SQLite makes it anew from the write-ahead log
                continue
            target = copy / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(node.after_cut(choose))


def _rename(names: dict[Path, _Node], old: Path | None, new: Path | None, node: _Node) -> None:
    if old is not None:
        names.pop(old, None)
    if new is not None:
        names[new] = node


def journalled(command: Sequence[str], root: Path, folder: Path) -> list[Call]:
    """Run a program, and return its calls on files under a folder."""
    library, journal = folder / "power_cut.so", folder / "journal"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    except FileNotFoundError:
        pytest.skip("needs a C compiler")
    preloaded = {"POWER_CUT_ROOT": str(root), "POWER_CUT_JOURNAL": str(journal), "LD_PRELOAD": str(library)}
    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
    subprocess.run(command, check=True, env=os.environ | preloaded | path, timeout=280)
    return list(_calls(journal.read_bytes()))


def _calls(journal: bytes) -> Iterator[Call]:
    at = 0
    while at < len(journal):
        kind, path_size, offset, size = _HEAD.unpack_from(journal, at)
        at += _HEAD.size
        path, data = journal[at : at + path_size], journal[at + path_size : at + path_size + size]
        at += path_size + size
        yield Call(chr(kind), Path(path.decode()), offset, data)
