"""What retention deletes: by age, by bytes and by the least free disk space.  Pure.

In: what there is that may be deleted, and how much space is left.  Out: which snapshots, and up to which time events,
tracks and closed alerts.  Snapshots go first, the oldest first; what has expired goes in any case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

GB = 1_000_000_000
DEFAULT_FREE_BYTES, DEFAULT_FREE_SHARE = 2 * GB, 0.1  # the smaller of both
DAY_NS = 86_400_000_000_000


@dataclass(frozen=True)
class Limits:
    days: float
    max_bytes: int
    min_free_bytes: int | None  # None: by the size of the disk

    def free_bytes(self, disk_bytes: int) -> int:
        """What is to stay free on a disk of that size."""
        if self.min_free_bytes is not None:
            return self.min_free_bytes
        return min(DEFAULT_FREE_BYTES, round(DEFAULT_FREE_SHARE * disk_bytes))


class StoredSnapshot(NamedTuple):
    name: str
    size_bytes: int
    time_ns: int


class Rows(NamedTuple):
    """Events and tracks of a stretch of time that may be deleted."""

    end_ns: int
    size_bytes: int


@dataclass(frozen=True)
class Disk:
    device: int
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Inventory:
    now_ns: int
    used_bytes: int  # of all that counts for `max_gb`, whether it may be deleted or not
    snapshots: Sequence[StoredSnapshot]  # that may be deleted, the oldest first
    rows: Sequence[Rows]  # likewise
    snapshots_disk: Disk
    store_disk: Disk


@dataclass(frozen=True)
class Plan:
    snapshots: tuple[StoredSnapshot, ...]
    before_ns: int  # rows of an earlier time
    expired_ns: int  # rows of an earlier time also where no sink has taken them yet
    excess_bytes: int  # over the limits with all that deleted


@dataclass
class _Need:
    """Bytes that are to be given back: on any disk for `max_gb`, on each disk for `min_free_gb`."""

    total: int
    by_device: dict[int, int]

    def give_back(self, size_bytes: int, device: int) -> None:
        self.total -= size_bytes
        self.by_device[device] -= size_bytes

    def is_met_by(self, device: int) -> bool:
        """Deleting on this disk would help no more."""
        return self.total <= 0 and self.by_device[device] <= 0


def plan(inventory: Inventory, limits: Limits) -> Plan:
    snapshots, store = inventory.snapshots_disk, inventory.store_disk
    need = _Need(
        inventory.used_bytes - limits.max_bytes,
        {disk.device: limits.free_bytes(disk.total_bytes) - disk.free_bytes for disk in (snapshots, store)},
    )
    expired_ns = before_ns = inventory.now_ns - round(limits.days * DAY_NS)
    for rows in inventory.rows:
        if rows.end_ns <= expired_ns:
            need.give_back(rows.size_bytes, store.device)
    deleted = []
    for snapshot in inventory.snapshots:
        if snapshot.time_ns < expired_ns or not need.is_met_by(snapshots.device):
            deleted.append(snapshot)
            need.give_back(snapshot.size_bytes, snapshots.device)
    for rows in inventory.rows:
        if rows.end_ns > expired_ns and not need.is_met_by(store.device):
            before_ns = rows.end_ns
            need.give_back(rows.size_bytes, store.device)
    return Plan(tuple(deleted), before_ns, expired_ns, max(0, need.total, *need.by_device.values()))
