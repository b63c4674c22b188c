"""What a sink is sent: the filter of its entry, applied to events and to alerts."""

from functools import partial

from pipeline.config.camera import Camera
from pipeline.config.models import Config
from pipeline.config.sink import BaseSinkConfig
from pipeline.store.alert import Alert
from pipeline.types import Event, Severity

_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.ALARM: 2}


def cameras_of(entry: BaseSinkConfig, config: Config) -> list[Camera]:
    """Return the cameras that pass the filter."""
    return [camera for camera in config.cameras if entry.cameras is None or camera.id in entry.cameras]


def wants_event(entry: BaseSinkConfig, event: Event) -> bool:
    """Return whether an event passes the filter."""
    label = event.track.label if event.track is not None else None
    return (entry.kinds is None or event.kind in entry.kinds) and _wants(entry, event.camera, event.severity, label)


def wants_alert(entry: BaseSinkConfig, alert: Alert) -> bool:
    """Return whether an alert passes the filter, whose kinds do not matter."""
    return _wants(entry, alert.camera, alert.severity, alert.label)


def _wants(entry: BaseSinkConfig, camera: str, severity: Severity, label: str | None) -> bool:
    return (
        (entry.min_severity is None or _RANK[severity] >= _RANK[entry.min_severity])
        and (entry.cameras is None or camera in entry.cameras)
        and (entry.labels is None or label in entry.labels)
    )


def event_filter(entry: BaseSinkConfig) -> "partial[bool]":
    """Return the filter of an entry as a function of an event."""
    return partial(wants_event, entry)
