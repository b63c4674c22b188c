"""The alerts of one recording without and with rules, and what differs.  Pure.

In: two lists of events of the same tracks.  Out: one Difference per alert.  An alert has the same id in both.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from pipeline.types import Event, EventKind, Severity

Kind = Literal["appears", "disappears", "severity", "time", "same"]
DEFAULT_NAME = "no rule"
_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.ALARM: 2}


class AlertOutcome(msgspec.Struct, frozen=True):
    """An alert: its highest severity, the rule that gave it (None: no rule), and when it was opened."""

    severity: Severity
    rule: str | None
    opened_s: float


class Difference(msgspec.Struct, frozen=True):
    """One alert before and after; None: there is none.

    `recorded_by` is the rule by which its target is only recorded, or in its cooldown; `tracks` are ids.
    """

    kind: Kind
    alert: str
    camera: str
    label: str
    tracks: list[int]
    before: AlertOutcome | None
    after: AlertOutcome | None
    recorded_by: str | None = None


class Comparison(msgspec.Struct, frozen=True):
    """One recording, or one camera of a live run: its alerts before and after.

    `exact` is false where only events were known: rules then see few places of each track.
    """

    source: str
    exact: bool
    differences: list[Difference]


def compare(before: Sequence[Event], after: Sequence[Event]) -> list[Difference]:
    """Return the alerts of both, in the order of their first opening."""
    own = _alerts_by_track(before)
    own = _alerts_by_track(after) | own  # joined before, a target is one, also where few places of it are known
    old, new = _outcomes(before, own), _outcomes(after, own)
    recorded = {
        own.get(_key(event), event.id): event.rule
        for event in reversed(after)
        if event.kind is EventKind.TRACK_CONFIRMED and event.alert is None
    }
    named = {own[_key(event)]: event for event in (*after, *before) if event.track is not None and _key(event) in own}
    made = [
        _difference(named[alert], alert, own, old.get(alert), new.get(alert), recorded.get(alert))
        for alert in {**old, **new}
    ]
    return sorted(made, key=lambda each: min(one.opened_s for one in (each.before, each.after) if one is not None))


def _key(event: Event) -> tuple[str, int]:
    return event.session, event.track.id if event.track is not None else -1


def _alerts_by_track(events: Iterable[Event]) -> dict[tuple[str, int], str]:
    """Return the alert of each track that belongs to one."""
    return {_key(event): event.alert for event in events if event.alert is not None and event.track is not None}


def _outcomes(events: Iterable[Event], own: dict[tuple[str, int], str]) -> dict[str, AlertOutcome]:
    outcomes: dict[str, AlertOutcome] = {}
    for event in events:
        if event.kind not in (EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED) or event.alert is None:
            continue
        alert = own.get(_key(event), event.alert)
        known = outcomes.get(alert)
        if known is None or _RANK[event.severity] > _RANK[known.severity]:
            opened_s = known.opened_s if known is not None else event.pts_s
            outcomes[alert] = AlertOutcome(event.severity, event.rule, opened_s)
    return outcomes


def _difference(
    event: Event,
    alert: str,
    own: dict[tuple[str, int], str],
    before: AlertOutcome | None,
    after: AlertOutcome | None,
    recorded_by: str | None,
) -> Difference:
    kind: Kind = "same"
    if before is None or after is None:
        kind = "appears" if before is None else "disappears"
    elif before.severity != after.severity:
        kind = "severity"
    elif before.opened_s != after.opened_s:
        kind = "time"
    tracks = sorted(number for (session, number), owner in own.items() if owner == alert and session == event.session)
    label = event.track.label if event.track is not None else ""
    return Difference(kind, alert, event.camera, label, tracks, before, after, recorded_by if after is None else None)


def report(comparisons: Sequence[Comparison]) -> str:
    """Return what differs as text, a line per alert, and a summary."""
    lines: list[str] = []
    for comparison in comparisons:
        lines.append(comparison.source + ("" if comparison.exact else "  (approximate: known from events alone)"))
        changed = [each for each in comparison.differences if each.kind != "same"]
        lines += [f"  {_line(each)}" for each in changed] or ["  the same alerts"]
    differences = [each for comparison in comparisons for each in comparison.differences]
    kinds = [each.kind for each in differences]
    before = sum(each.before is not None for each in differences)
    after = sum(each.after is not None for each in differences)
    lines.append(
        f"alerts: {before} before, {after} with these rules; {kinds.count('appears')} appear, "
        f"{kinds.count('disappears')} disappear, {kinds.count('severity')} change severity, "
        f"{kinds.count('time')} open at another time"
    )
    by_rule: dict[str, list[int]] = {}  # alerts, targets that are only recorded
    for each in differences:
        name = each.after.rule if each.after is not None else each.recorded_by
        by_rule.setdefault(name or DEFAULT_NAME, [0, 0])[each.after is None] += 1
    lines += [f"  {name}: {alerts} alerted, {recorded} not" for name, (alerts, recorded) in sorted(by_rule.items())]
    return "\n".join(lines)


def _line(each: Difference) -> str:
    shown_before, shown_after = (_shown(outcome) for outcome in (each.before, each.after))
    if each.after is None and each.recorded_by is not None:
        shown_after = f"recorded ({each.recorded_by})"
    tracks = ", ".join(f"#{number}" for number in each.tracks)
    return f"{each.kind:<10} {each.label} {tracks}: {shown_before} -> {shown_after}"


def _shown(outcome: AlertOutcome | None) -> str:
    if outcome is None:
        return "no alert"
    rule = f" ({outcome.rule})" if outcome.rule is not None else ""
    return f"{outcome.severity} at {outcome.opened_s:.1f} s{rule}"
