"""Rules: which of a camera's targets are alerted, and how severely.  Pure.

They stand in order, as in a firewall: the first that applies to a target decides at each frame.  A target to which none
applies is alerted, with the severity of its label (`DEFAULT`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.alerting.schedule import Period
from pipeline.alerting.target import SEVERITIES, apparent_px, rank
from pipeline.alerting.zones import History, Past, Zone
from pipeline.types import UAV, UNKNOWN, FrameRef, Severity, Track


class When(StrEnum):
    """What a target must do, or have done, for a rule to apply; what it has done stays true while it is followed."""

    INSIDE = "inside"  # it is inside a zone
    ENTER = "enter"  # it has come into a zone from outside
    LEAVE = "leave"  # it has gone out of a zone
    DWELL = "dwell"  # it is inside a zone, and has been for long
    CROSS = "cross"  # it has crossed a line in its direction
    APPROACH = "approach"  # its size has doubled; and it is inside a zone, where the rule has zones


@dataclass(frozen=True)
class Limits:
    """Least and greatest value, both included."""

    least: float = -math.inf
    greatest: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.greatest


ANY = Limits()


@dataclass(frozen=True)
class Rule:
    """A rule, as it is for one camera.

    Attributes:
        name: of the rule; None: of the default.
        alerts: whether its targets are alerted, or only recorded.
        severity: of their alerts; None: that of their label.
        cooldown_s: after an alert of this rule, during which no other one of the same or a lower severity is opened.
        zones: of the camera; None: everywhere.
        when: what the target must do in one of the zones.
        dwell_s: least duration of a stay, for `When.DWELL`.
        labels: of the target.
        score: mean probability that it is a target.
        log_odds: evidence that it is a uav rather than the most probable other class.
        size_px: its apparent size.
        speed_px_s: its speed.
        duration_s: time since it was first seen.
        min_count: how many targets must meet all of the above at once.
        period: when the rule applies; None: always.
        needs_arming: it applies only while the site is armed.
    """

    name: str | None = None
    alerts: bool = True
    severity: Severity | None = None
    cooldown_s: float = 0.0
    zones: tuple[Zone, ...] | None = None
    when: When = When.INSIDE
    dwell_s: float = 0.0
    labels: tuple[str, ...] = (UAV, UNKNOWN)
    score: Limits = ANY
    log_odds: Limits = ANY
    size_px: Limits = ANY
    speed_px_s: Limits = ANY
    duration_s: Limits = ANY
    min_count: int = 1
    period: Period | None = None
    needs_arming: bool = False

    def severity_of(self, label: str) -> Severity:
        """Return the severity of an alert of this rule: never that of a distractor, which ends it."""
        is_target = rank(label) > 0
        return self.severity if is_target and self.severity is not None else SEVERITIES[rank(label)]

    def applies_at(self, utc_ns: int, *, armed: bool) -> bool:
        """Return whether it applies to any target at this time."""
        return (armed or not self.needs_arming) and (self.period is None or self.period.holds(utc_ns))

    def applies_to(self, track: Track, past: Past) -> bool:
        """Return whether a target meets its conditions, but for their number."""
        return (
            track.label in self.labels
            and track.score in self.score
            and track.evidence.get(UAV, 0.0) in self.log_odds
            and apparent_px(track) in self.size_px
            and math.hypot(*track.velocity_px_s) in self.speed_px_s
            and track.last_seen.pts_s - track.first_seen.pts_s in self.duration_s
            and self._has_happened(past)
        )

    def _has_happened(self, past: Past) -> bool:
        if self.when is When.APPROACH and not past.has_approached:
            return False
        if self.zones is None:
            return True
        visits = [past.visits[zone] for zone in self.zones if zone in past.visits]
        match self.when:
            case When.INSIDE | When.APPROACH:
                return any(visit.is_inside for visit in visits)
            case When.ENTER:
                return any(visit.has_entered for visit in visits)
            case When.LEAVE:
                return any(visit.has_left for visit in visits)
            case When.CROSS:
                return any(visit.has_crossed for visit in visits)
            case When.DWELL:
                return any(visit.is_inside and visit.stay_s >= self.dwell_s for visit in visits)


DEFAULT = Rule()


def zones_of(rules: Iterable[Rule]) -> tuple[Zone, ...]:
    """Return every zone of these rules once."""
    return tuple(dict.fromkeys(zone for rule in rules for zone in rule.zones or ()))


def decide(
    rules: Sequence[Rule], ref: FrameRef, targets: Sequence[Track], history: History, *, armed: bool
) -> dict[int, Rule]:
    """Return the rule that decides each target of a frame, by the track's id.

    Args:
        rules: of the camera, in their order.
        ref: the frame, whose time is that of the schedules.
        targets: confirmed targets that are visible in it.
        history: of the camera's tracks, which holds this frame.
        armed: whether the site is armed.
    """
    decided: dict[int, Rule] = {}
    for rule in rules:
        if not rule.applies_at(ref.received_utc_ns, armed=armed):
            continue
        matched = [track for track in targets if rule.applies_to(track, history.past(track))]
        if len(matched) >= rule.min_count:
            decided = {track.id: rule for track in matched} | decided
    return {track.id: DEFAULT for track in targets} | decided


class Cooldowns:
    """The times after sent alerts in which rules open no further ones, for one camera and session."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[float, Severity]] = {}  # by rule: when its last alert was sent, and its severity

    def may_open(self, rule: Rule, severity: Severity, pts_s: float) -> bool:
        """Return whether a rule may open an alert of this severity: a higher one than the last always may."""
        if rule.name is None or rule.name not in self._sent:
            return True
        sent_s, sent = self._sent[rule.name]
        return SEVERITIES.index(severity) > SEVERITIES.index(sent) or not 0 <= pts_s - sent_s < rule.cooldown_s

    def start(self, rule: Rule, severity: Severity, pts_s: float) -> None:
        """Take note of a sent alert."""
        if rule.name is not None and rule.cooldown_s > 0:
            self._sent[rule.name] = pts_s, severity


def worst(decided: Mapping[int, Rule], tracks: Iterable[Track]) -> tuple[Track, Rule] | None:
    """Return the track that its rule alerts most severely, of several the one seen first; None: all are recorded."""
    alerted = [(track, decided[track.id]) for track in tracks if track.id in decided and decided[track.id].alerts]
    return max(alerted, key=lambda pair: SEVERITIES.index(pair[1].severity_of(pair[0].label)), default=None)
