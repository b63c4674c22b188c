"""What a sink is: a place outside to which events are delivered, and how the configured ones are built.

In: the configuration.  Out: one Sink for each entry of `sinks`.
"""

from collections.abc import Sequence
from typing import Protocol

from pipeline.config.models import Config
from pipeline.errors import DasnetError
from pipeline.types import Event

EVENTS_SHARE = 0.1  # of retention.max_gb: all files of one JSONL sink together


class SinkError(DasnetError):
    """The far side did not take the events.  The outbox tries again."""


class Sink(Protocol):
    """Driven by one thread of the outbox.  After any failure: `close`, wait, `open`, and the same events again."""

    @property
    def name(self) -> str:
        """Unique among the sinks; the key of its cursor, so the same at the next start."""

    def open(self) -> str | None:
        """Connect.  Returns the id of the newest event that the far side is known to hold, where it can tell."""

    def send(self, events: Sequence[Event]) -> None:
        """Deliver all, in order.  When it returns they are acknowledged, and will not be sent again."""

    def close(self) -> None:
        """Let go.  May be called at any time, more than once."""


def configured(config: Config) -> list[Sink]:
    from pipeline.sinks.jsonl import (  # each kind is imported where it is wanted: some need optional packages
        KEPT,
        ROTATE_BYTES,
        JsonlSink,
    )

    share = EVENTS_SHARE * config.retention.max_gb * 1e9 / (KEPT + 1)
    return [JsonlSink(config.sink_path(entry), round(min(ROTATE_BYTES, share))) for entry in config.sinks]
