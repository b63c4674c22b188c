"""Events as CloudEvents 1.0, and the JSON Schema of what they hold.  Pure.

`id` is that of the event: the same in every delivery, so that a receiver can drop duplicates.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

from pipeline.types import Event

SCHEMA_VERSION = 1  # increases with every change that a reader of the previous version could not read
SCHEMA = f"urn:dasnet:event:{SCHEMA_VERSION}"


class CloudEvent(msgspec.Struct, frozen=True):
    """The envelope: its attributes, and the event as data."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str
    datacontenttype: str
    dataschema: str
    severity: str  # an extension attribute
    data: Event


def cloud_event(event: Event) -> CloudEvent:
    """Return the event in its envelope."""
    return CloudEvent(
        specversion="1.0",
        id=event.id,
        source=f"/dasnet/cameras/{event.camera}",
        type=f"dasnet.{event.kind}",
        time=event.time_utc or iso_utc(event.time_utc_ns),
        subject=event.track.ulid if event.track is not None else event.camera,
        datacontenttype="application/json",
        dataschema=SCHEMA,
        severity=event.severity,
        data=event,
    )


def iso_utc(time_utc_ns: int) -> str:
    """Return a time as RFC 3339 in UTC, to the millisecond."""
    time = datetime.fromtimestamp(time_utc_ns / 1e9, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event_schema() -> dict[str, Any]:
    """Return the JSON Schema of an event, as every sink sends it."""
    (reference,), definitions = msgspec.json.schema_components([Event], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        "title": "Event of dasnet",
        **reference,
        "$defs": definitions,
    }
