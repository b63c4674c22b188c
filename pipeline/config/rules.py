"""The entries of `rules`, and of cameras' `zones` and `sectors`: which targets are alerted."""

import math
import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_validator

from pipeline.config.section import Identifier, Names, Section
from pipeline.geometry import Point, polygon_fault

MAX_POINTS = 100
_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _zone(points: list[Point]) -> list[Point]:
    if len(points) == 2 and points[0] == points[1]:
        raise ValueError("the two points of a line must differ")
    fault = polygon_fault(points) if len(points) > 2 else None
    if fault is not None:
        raise ValueError(f"{fault}; must be a polygon whose edges do not cross, or a line of two points")
    return points


def _time_of_day(value: Any) -> Any:
    if type(value) is int:  # YAML 1.1 reads an unquoted 22:00 as the number 22 * 60
        value = f"{value // 60:02}:{value % 60:02}"
    if not isinstance(value, str) or not _TIME_OF_DAY.fullmatch(value):
        raise ValueError('must be a time of day such as "06:30", or "24:00"')
    return value


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError("unknown time zone; must be a name of the IANA database such as Europe/Berlin") from None
    return name


ZonePoints = Annotated[list[Point], Field(min_length=2, max_length=MAX_POINTS), AfterValidator(_zone)]
"""Two points: a line; more: a polygon."""
TimeOfDay = Annotated[str, BeforeValidator(_time_of_day)]
Azimuth = Annotated[float, Field(ge=0, le=360)]
Elevation = Annotated[float, Field(ge=-90, le=90)]
Positive = Annotated[float, Field(gt=0)]


class SectorConfig(Section):
    """A range of directions as seen from the camera."""

    azimuth_deg: tuple[Azimuth, Azimuth]
    """From, to: clockwise from true north."""
    elevation_deg: tuple[Elevation, Elevation] = (-90.0, 90.0)
    """From, to: above the horizon."""

    @model_validator(mode="after")
    def _not_empty(self) -> "SectorConfig":
        if self.azimuth_deg[0] == self.azimuth_deg[1]:
            raise ValueError("azimuth_deg: must be two different directions; all of them are [0, 360]")
        if self.elevation_deg[0] >= self.elevation_deg[1]:
            raise ValueError("elevation_deg: must be the lower and the higher one")
        return self


class Schedule(Section):
    """Hours of days of the week."""

    days: Annotated[list[Day], Field(min_length=1)] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    """Days on which the hours begin."""
    from_: TimeOfDay = Field(default="00:00", alias="from")
    """Beginning of the hours, such as `"06:30"`."""
    to: TimeOfDay = "24:00"
    """Their end, exclusive; not after `from`: on the next day."""
    timezone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    """Name of the time zone in the IANA database."""


class RuleConfig(Section):
    """Which targets are alerted: the first rule that applies to a target decides; see [Rules](rules.md)."""

    name: Identifier
    """Name of the rule, unique among the rules; the events that it causes have it."""
    cameras: Names | None = None
    """Cameras of the rule; default: all."""
    zones: Names | None = None
    """Zones or sectors of these cameras, in one of which it must happen; default: anywhere."""
    when: Literal["inside", "enter", "leave", "dwell", "cross", "approach"] = "inside"
    """What the target does with respect to a zone, or `approach`: its size doubles."""
    dwell_s: Positive | None = None
    """Least duration of a stay in a zone, in seconds; required with `when: dwell`."""
    labels: Annotated[list[Literal["uav", "unknown"]], Field(min_length=1)] | None = None
    """Labels of the target; default: both."""
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least score: the mean probability of its detections."""
    min_log_odds: float | None = None
    """Least log-odds of `uav` over the next probable class, as `evidence.uav` of a track."""
    min_size_px: Positive | None = None
    """Least size: the square root of its box's area, in frame pixels."""
    max_size_px: Positive | None = None
    """Greatest size."""
    min_speed_px_s: Positive | None = None
    """Least speed, in frame pixels per second."""
    max_speed_px_s: Positive | None = None
    """Greatest speed."""
    min_duration_s: Positive | None = None
    """Least time since it was first detected, in seconds."""
    min_count: Annotated[int, Field(ge=2, le=1000)] | None = None
    """How many targets of a camera must meet all other conditions at once; default: one."""
    schedule: Schedule | None = None
    between: tuple[AwareDatetime, AwareDatetime] | None = None
    """From, to: two times in ISO 8601 with their zone, as of an authorised flight."""
    needs_arming: bool = False
    """The rule applies only while the site is armed: see `dasnet arm`."""
    action: Literal["alert", "record"] = "alert"
    """`alert`, or `record`: the track is stored, and not alerted."""
    severity: Literal["warning", "alarm"] | None = None
    """Severity of its alerts; default: `alarm` for a uav, `warning` for an unknown target."""
    cooldown_s: Annotated[float, Field(ge=0)] = 0.0
    """After an alert of this rule, no other of the same or a lower severity is opened for this long, per camera."""

    @model_validator(mode="after")
    def _complete(self) -> "RuleConfig":
        if self.when not in ("inside", "approach") and self.zones is None:
            raise ValueError(f"zones: is required with when: {self.when}")
        if (self.when == "dwell") != (self.dwell_s is not None):
            raise ValueError("dwell_s: must be set with when: dwell, and only then")
        if self.action == "record" and (self.severity is not None or self.cooldown_s):
            raise ValueError("severity, cooldown_s: must not be set with action: record")
        for quantity in ("size_px", "speed_px_s"):
            least, greatest = getattr(self, f"min_{quantity}") or 0, getattr(self, f"max_{quantity}") or math.inf
            if least > greatest:
                raise ValueError(f"max_{quantity}: must not be less than min_{quantity} ({least:g})")
        if self.between is not None and self.between[0] >= self.between[1]:
            raise ValueError("between: the second time must be after the first")
        return self
