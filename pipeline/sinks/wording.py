"""Events in words, for notifications.  Pure."""

from collections.abc import Sequence

from pipeline.sinks.cloudevents import iso_utc
from pipeline.types import Event, Severity

SEVEREST = (Severity.ALARM, Severity.WARNING, Severity.INFO)


def title(events: Sequence[Event]) -> str:
    """Return a title of a few words; of several events the severest one is named."""
    first = min(events, key=lambda event: SEVEREST.index(event.severity))
    more = f" (+{len(events) - 1})" if len(events) > 1 else ""
    return f"{first.severity.upper()}: {_what(first)}, {first.camera}{more}"


def line(event: Event) -> str:
    """Return one line: time, camera, what happened, and the id by which duplicates are known."""
    track = f", track {event.track.id}, score {event.track.score:.2f}" if event.track is not None else ""
    return f"{event.time_utc or iso_utc(event.time_utc_ns)} {event.camera}: {_what(event)}{track} [{event.id}]"


def _what(event: Event) -> str:
    subject, _, verb = event.kind.partition(".")
    cause = f" ({event.cause})" if event.cause is not None else ""
    return f"{event.track.label if event.track is not None else subject} {verb}{cause}"
