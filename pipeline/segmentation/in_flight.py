"""Batches that the device has, and which of them have missed their deadline.  Reads no clock."""

from collections.abc import Iterator
from dataclasses import dataclass

from model.errors import EngineLost
from pipeline.segmentation.batch import Batch
from pipeline.timeouts import DEVICE_HANG_TIMEOUT_S
from pipeline.transport.wire import Stamps


@dataclass(eq=False)
class _Entry:
    batch: Batch
    stamps: list[Stamps]
    has_failed: bool = False  # it missed its deadline, but the device is still busy with it


class BatchesInFlight:
    """Batches under way, oldest first."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_ns = round(deadline_s * 1e9)
        self._entries: list[_Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, batch: Batch, stamps: list[Stamps]) -> None:
        """Append a batch with its frames' time stamps."""
        self._entries.append(_Entry(batch, stamps))

    def running_s(self, now_ns: int) -> float:
        """Return the time since the newest batch was submitted; 0 without one."""
        return (now_ns - self._entries[-1].batch.started_ns) / 1e9 if self._entries else 0.0

    def finished(self) -> Iterator[tuple[Batch, list[Stamps]]]:
        """Remove and yield the batches that are done, in their order, without those that have failed already."""
        while self._entries and self._entries[0].batch.done.done():
            entry = self._entries.pop(0)
            if not entry.has_failed:
                yield entry.batch, entry.stamps

    def overdue(self, now_ns: int) -> Iterator[Batch]:
        """Yield each batch that has missed its deadline, once.  Raise EngineLost where the device hangs."""
        for entry in self._entries:
            running_ns = now_ns - entry.batch.started_ns
            if not entry.has_failed and running_ns > self._deadline_ns:
                entry.has_failed = True
                yield entry.batch
            if running_ns > DEVICE_HANG_TIMEOUT_S * 1e9:
                raise EngineLost(f"the device has been busy with one batch for {DEVICE_HANG_TIMEOUT_S:.0f} s")
