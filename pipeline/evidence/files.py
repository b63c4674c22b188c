"""Complete files of the run folder that the evidence log does not hold yet.

In: the folders of snapshots, clips and sidecars.  Out: leaves with their digests.  A folder is listed only when its
time of change says that something is new.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from pipeline.evidence.leaves import CONFIGURATIONS, SIDECARS, FileLeaf
from pipeline.evidence.log import Draft
from pipeline.store.clips import RECORD, VIDEO, read_record

SETTLED_S = 2.0  # a change within the same tick of the file system's clock as a listing would not be seen
_ULID = "[0-9A-HJKMNP-TV-Z]{26}"


class Digest(NamedTuple):
    """What a file holds."""

    sha256: str
    size_bytes: int


def file_digest(path: Path) -> Digest:
    """Return the digest of a file.  Raise OSError."""
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())


def _one(path: Path) -> dict[str, Digest]:
    return {path.name: file_digest(path)}


def _clip(path: Path) -> dict[str, Digest]:
    """Return what a clip's record says of the clip, which is complete since the record is there; and the record."""
    record, about = read_record(path), file_digest(path)
    if record.is_lost:
        return {path.name: about}
    return {path.with_suffix(VIDEO).name: Digest(record.sha256, record.size_bytes), path.name: about}


_FOLDERS: dict[str, tuple[re.Pattern[str], Callable[[Path], dict[str, Digest]]]] = {
    "snapshots": (re.compile(rf"{_ULID}(-\d+)?(\.crop)?\.jpg"), _one),
    "clips": (re.compile(rf"{_ULID}\{RECORD}"), _clip),
    SIDECARS: (re.compile(rf"{_ULID}(-\d+)?\.json"), _one),
    CONFIGURATIONS: (re.compile(r"[0-9a-f]{16}\.json"), _one),
}


class NewFiles:
    """Find new files of a run folder."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._listed_ns: dict[str, int] = {}  # time of change at the last listing
        self._unreadable: set[str] = set()

    def drafts(self, known: Container[str], deleting: Container[str]) -> list[Draft]:
        """Return the leaves of files that are neither known nor being deleted."""
        return [draft for folder in _FOLDERS for draft in self._of_folder(folder, known, deleting)]

    def _of_folder(self, folder: str, known: Container[str], deleting: Container[str]) -> Iterator[Draft]:
        try:
            changed_ns = (self._run_dir / folder).stat().st_mtime_ns
        except OSError:
            return
        if self._listed_ns.get(folder) == changed_ns:
            return
        is_complete = time.time_ns() - changed_ns > SETTLED_S * 1e9
        for name in _listed(self._run_dir, folder):
            if name in known or name in deleting or not _is_ours(folder, name):
                continue
            try:
                digests = _FOLDERS[folder][1](self._run_dir / name)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                is_complete = False
                self._warn(name, error)
                continue
            for file, digest in digests.items():
                yield partial(FileLeaf, file=f"{folder}/{file}", sha256=digest.sha256, size_bytes=digest.size_bytes)
        if is_complete:
            self._listed_ns[folder] = changed_ns

    def _warn(self, name: str, error: Exception) -> None:
        if name not in self._unreadable:
            self._unreadable.add(name)
            structlog.get_logger().warning("file not in the evidence log yet", file=name, reason=str(error))


def _listed(run_dir: Path, folder: str) -> list[str]:
    with os.scandir(run_dir / folder) as entries:
        return sorted(f"{folder}/{entry.name}" for entry in entries)


def _is_ours(folder: str, name: str) -> bool:
    return _FOLDERS[folder][0].fullmatch(name, len(folder) + 1) is not None


def all_names(run_dir: Path) -> Iterator[str]:
    """Yield all files of a run folder that belong into the log."""
    for folder in _FOLDERS:
        if (run_dir / folder).is_dir():
            yield from (name for name in _listed(run_dir, folder) if _is_ours(folder, name))
