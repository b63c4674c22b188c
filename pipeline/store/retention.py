"""What retention deletes, by age, total size and free disk space.  Pure.

In: an inventory of what may be deleted, and the free space.  Out: which snapshots to delete, and up to which time
events, tracks and closed alerts.  Snapshots and clips are deleted first, the oldest first; whatever has expired is
always deleted.  Clips of alerts that ended and wait for a person go next, only if space is short: they are the largest
files, and a disk that they fill would stop the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

GB = 1_000_000_000
DEFAULT_FREE_BYTES, DEFAULT_FREE_SHARE = 2 * GB, 0.1  # the smaller of the two
DAY_NS = 86_400_000_000_000


@dataclass(frozen=True)
class Limits:
    """The configured limits of retention."""

    days: float
    max_bytes: int
    min_free_bytes: int | None  # None: depends on the size of the disk

    def free_bytes(self, disk_bytes: int) -> int:
        """Return how much must stay free on a disk of that size."""
        if self.min_free_bytes is not None:
            return self.min_free_bytes
        return min(DEFAULT_FREE_BYTES, round(DEFAULT_FREE_SHARE * disk_bytes))


class StoredFile(NamedTuple):
    """A snapshot, or a clip with its record."""

    name: str
    size_bytes: int
    time_ns: int


class Rows(NamedTuple):
    """Events and tracks of one minute that may be deleted."""

    end_ns: int
    size_bytes: int


@dataclass(frozen=True)
class Disk:
    """Free and total space of a disk."""

    device: int
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Inventory:
    """What may be deleted, and how much space is used and free."""

    now_ns: int
    used_bytes: int  # everything that counts towards `max_gb`, deletable or not
    files: Sequence[StoredFile]  # deletable ones, oldest first
    reserve: Sequence[StoredFile]  # likewise, only where space is short
    rows: Sequence[Rows]  # deletable ones, oldest first
    files_disk: Disk
    store_disk: Disk


@dataclass(frozen=True)
class DeletionPlan:
    """What to delete, and what remains above the limits."""

    files: tuple[StoredFile, ...]
    before_ns: int  # delete rows before this time
    expired_ns: int  # before this time, delete rows that were not delivered, too
    excess_bytes: int  # above the limits after the deletion


@dataclass
class _Excess:
    """Bytes to free: on any disk for `max_gb`, on each disk for `min_free_gb`."""

    total: int
    by_device: dict[int, int]

    def free(self, size_bytes: int, device: int) -> None:
        self.total -= size_bytes
        self.by_device[device] -= size_bytes

    def is_freed_on(self, device: int) -> bool:
        """Return whether deleting on this disk would not help any further."""
        return self.total <= 0 and self.by_device[device] <= 0


def plan(inventory: Inventory, limits: Limits) -> DeletionPlan:
    """Choose what to delete to keep the limits."""
    files, store = inventory.files_disk, inventory.store_disk
    excess = _Excess(
        inventory.used_bytes - limits.max_bytes,
        {disk.device: limits.free_bytes(disk.total_bytes) - disk.free_bytes for disk in (files, store)},
    )
    expired_ns = before_ns = inventory.now_ns - round(limits.days * DAY_NS)
    for rows in inventory.rows:
        if rows.end_ns <= expired_ns:
            excess.free(rows.size_bytes, store.device)
    deleted = []
    for stored, expiring_ns in ((inventory.files, expired_ns), (inventory.reserve, 0)):
        for file in stored:
            if file.time_ns < expiring_ns or not excess.is_freed_on(files.device):
                deleted.append(file)
                excess.free(file.size_bytes, files.device)
    for rows in inventory.rows:
        if rows.end_ns > expired_ns and not excess.is_freed_on(store.device):
            before_ns = rows.end_ns
            excess.free(rows.size_bytes, store.device)
    return DeletionPlan(tuple(deleted), before_ns, expired_ns, max(0, excess.total, *excess.by_device.values()))
