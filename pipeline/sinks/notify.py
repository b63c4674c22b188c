"""Notification sink: mail, push and chat services through Apprise.

In: events from the outbox, and snapshots.  Out: one short notification per event; of events that waited while the
service was down, one per BATCH, so that its return does not ring hundreds of times.  The newest snapshot is attached.

Apprise only says that a notification was not accepted, not whether it may be later: it is retried without end, after
SNAPSHOT_TRIES tries without its snapshot, which may be what the service refuses.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import apprise
from apprise.attachment.memory import AttachMemory

from pipeline.config.sinks import NotifySinkConfig
from pipeline.sinks.filters import event_filter
from pipeline.sinks.sink import Sink, SinkError
from pipeline.sinks.snapshots import snapshot_of
from pipeline.sinks.wording import SEVEREST, line, title
from pipeline.types import Event, Severity

BATCH = 20  # events
SNAPSHOT_TRIES = 3
_TYPES = {
    Severity.ALARM: apprise.NotifyType.FAILURE,
    Severity.WARNING: apprise.NotifyType.WARNING,
    Severity.INFO: apprise.NotifyType.INFO,
}

logging.getLogger("apprise").propagate = False  # its messages quote addresses, which are secrets


class NotifySink(Sink):
    """Notify one service."""

    batch_size = BATCH

    def __init__(self, entry: NotifySinkConfig, snapshots: Path) -> None:
        super().__init__(entry.name or entry.type, event_filter(entry))
        self._entry = entry
        self._snapshots = snapshots
        self._service: apprise.Apprise | None = None
        self._failures = 0  # in a row

    def open(self) -> None:
        """Read the address.  Raise SinkError."""
        service = apprise.Apprise()
        if not service.add(self._entry.url):
            raise SinkError("url is not an address that Apprise knows")
        self._service = service

    def send(self, events: Sequence[Event]) -> None:
        """Notify.  Raise SinkError."""
        assert self._service is not None
        snapshot = self._snapshot(events) if self._failures < SNAPSHOT_TRIES else None
        severity = min((event.severity for event in events), key=SEVEREST.index)
        accepted = self._service.notify(
            title=title(events),
            body="\n".join(map(line, events)),
            notify_type=_TYPES[severity],
            body_format=apprise.NotifyFormat.TEXT,
            attach=snapshot,
        )
        if not accepted:
            self._failures += 1
            raise SinkError(f"{self._entry.url.partition(':')[0]} did not accept the notification")
        self._failures = 0

    def close(self) -> None:
        """Forget the service; every notification has a connection of its own."""
        self._service = None

    def _snapshot(self, events: Sequence[Event]) -> AttachMemory | None:
        for event in reversed(events):
            jpeg = snapshot_of(event, self._snapshots)
            if jpeg is not None:
                return AttachMemory(content=jpeg, name=event.snapshot, mimetype="image/jpeg")  # type: ignore[no-untyped-call]
        return None


def is_known(url: str) -> bool:
    """Return whether Apprise has the service of an address, and the address is complete."""
    return apprise.Apprise.instantiate(url) is not None
