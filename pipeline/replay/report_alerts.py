"""The alerts of a replayed input, as the report lists them: read from events.jsonl."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline.errors import SourceError
from pipeline.types import UNKNOWN, Event, EventKind, Severity


@dataclass
class ReportAlert:
    """An alert.

    Attributes:
        id: of the alert.
        opened_s: presentation time.
        opened_time_utc: wall-clock time in ISO 8601; None: unknown.
        severity: its highest.
        label: of its target, the last one.
        tracks: ids of its tracks, in the order of their appearance.
        ended_s: presentation time; None: not before the end.
        rule: that decided; None: the default.
    """

    id: str
    opened_s: float
    opened_time_utc: str | None
    severity: Severity
    label: str = UNKNOWN
    tracks: list[int] = field(default_factory=list)
    ended_s: float | None = None
    rule: str | None = None

    def add(self, event: Event) -> None:
        """Add an event of this alert."""
        if event.track is not None:
            self.label = event.track.label
            if event.track.id not in self.tracks:
                self.tracks.append(event.track.id)
        if event.kind is EventKind.ALERT_ESCALATED and event.severity is Severity.ALARM:
            self.severity = event.severity
        if event.ends_alert:
            self.ended_s = event.pts_s
        self.rule = event.rule or self.rule


def read_alerts(path: Path) -> list[ReportAlert]:
    """Return the alerts of an events.jsonl, in the order of their opening; none where there is no file.

    Raise SourceError where it cannot be read.
    """
    alerts: dict[str, ReportAlert] = {}
    if not path.is_file():
        return []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                event = msgspec.json.decode(line, type=Event)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise SourceError(f"{path}, line {number}: not an event of dasnet, or damaged: {error}") from None
            if event.alert is None or (event.alert not in alerts and event.kind is not EventKind.ALERT_OPENED):
                continue
            opened = ReportAlert(event.alert, event.pts_s, event.time_utc, event.severity)
            alerts.setdefault(event.alert, opened).add(event)
    return list(alerts.values())
