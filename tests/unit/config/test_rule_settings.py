"""Zones, sectors and rules: as written, they become the rules of each camera; each fault is named by key."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipeline.alerting.rules import Limits, Rule, When
from pipeline.alerting.schedule import Period, Span, Weekly
from pipeline.alerting.zones import Area, Line, Sector
from pipeline.config.file import load
from pipeline.errors import ConfigError
from pipeline.tracking.camera_settings import rules_of
from pipeline.types import Severity

CAMERAS = """
cameras:
  - id: north
    uri: "demo:scene"
    zones: {gate: [[0, 0], [100, 0], [100, 100]], fence: [[0, 200], [640, 200]]}
  - id: south
    uri: "demo:scene"
    pose: {lat: 52.0, lon: 13.0, azimuth_deg: 0, hfov_deg: 40}
    sectors: {runway: {azimuth_deg: [350, 10]}}
"""
RULES = """
rules:
  - name: flight
    zones: [runway, gate]
    between: [2026-05-04T03:00:00Z, "2026-05-04T06:00:00+02:00"]
    action: record
  - name: night
    cameras: [north]
    zones: [fence]
    when: cross
    schedule: {days: [sat, sun], from: 22:00, to: 06:30, timezone: Europe/Berlin}
    severity: alarm
    needs_arming: true
    cooldown_s: 30
  - {name: swarm, labels: [uav], min_count: 3, min_size_px: 4, max_speed_px_s: 90, min_log_odds: -1, min_score: 0.5}
  - {name: loiter, zones: [gate], when: dwell, dwell_s: 20, min_duration_s: 30}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text)
    return path


def test_each_camera_has_the_rules_that_can_apply_to_it(tmp_path: Path) -> None:
    rules = rules_of(load(write(tmp_path, CAMERAS + RULES)))
    gate = Area(((0.0, 0.0), (100.0, 0.0), (100.0, 100.0)))
    begin_ns = 1_777_863_600_000_000_000  # date -d 2026-05-04T03:00:00Z +%s
    flight = Rule("flight", alerts=False, zones=(gate,), period=Period((Span(begin_ns, begin_ns + 3600 * 10**9),)))
    night = Rule(
        "night",
        severity=Severity.ALARM,
        cooldown_s=30,
        zones=(Line((0.0, 200.0), (640.0, 200.0)),),
        when=When.CROSS,
        period=Period((Weekly(frozenset({5, 6}), 22 * 60, 6 * 60 + 30, ZoneInfo("Europe/Berlin")),)),
        needs_arming=True,
    )
    swarm = Rule(
        "swarm",
        labels=("uav",),
        min_count=3,
        size_px=Limits(4),
        speed_px_s=Limits(greatest=90),
        log_odds=Limits(-1),
        score=Limits(0.5),
    )
    loiter = Rule("loiter", zones=(gate,), when=When.DWELL, dwell_s=20, duration_s=Limits(30))
    assert rules["north"] == (flight, night, swarm, loiter)
    south = rules["south"]
    assert [rule.name for rule in south] == ["flight", "swarm"]
    assert south[0].zones == (Sector((350.0, 10.0), (-90.0, 90.0)),)


POSE = "pose: {lat: 1, lon: 2, azimuth_deg: 0, hfov_deg: 30}"
FAULTS = {
    "zones: {z: [[0, 0], [10, 10], [10, 0], [0, 10]]}": r"zones.z: edges 1 and 3 cross; must be a polygon whose",
    "zones: {z: [[0, 0], [10, 0], [9, 9], [0, 0]]}": r"zones.z: points 1 and 4 are the same; a polygon closes by",
    "zones: {z: [[1, 1], [1, 1]]}": r"zones.z: the two points of a line must differ",
    "zones: {z: [[1, 1]]}": r"zones.z: .*at least 2 items",
    "zones: {z: [[1, a], [2, 2]]}": r"zones.z\[0\]\[1\]: must be a valid number.*given: 'a'",
    "zones: {z: [[1, 1, 1], [2, 2]]}": r"zones.z\[0\]: .*at most 2 items",
    "zones: {z: [[1, .inf], [2, 2]]}": r"zones.z\[0\]\[1\]: must be a finite number",
    "zones: {'a b': [[1, 1], [2, 2]]}": r"cameras\[0\].zones.a b: must match pattern",
    "sectors: {s: {azimuth_deg: [0, 9]}}": r"cameras\[0\].sectors: must be set with a pose only",
    f"{POSE}, sectors: {{s: {{azimuth_deg: [9, 9]}}}}": r"sectors.s: azimuth_deg: must be two different directions",
    f"{POSE}, sectors: {{s: {{azimuth_deg: [0, 370]}}}}": r"sectors.s.azimuth_deg\[1\]: .*360 \(given: '370'\)",
    f"{POSE}, sectors: {{s: {{azimuth: [0, 9]}}}}": r"sectors.s.azimuth: unknown key; must be one of azimuth_deg, elev",
    f"{POSE}, zones: {{s: [[0, 0], [1, 1]]}}, sectors: {{s: {{azimuth_deg: [0, 9]}}}}": "'s' is also the name of a",
}
RULE_FAULTS = {
    "zones: [gate]": "",
    "zones: [gat]": r"rules\[0\].zones\[0\]: no polygon or sector 'gat'; must be one of gate, runway",
    "zones: [fence]": r"no polygon or sector 'fence'; must be one of gate, runway",
    "zones: [gate], when: cross": r"zones\[0\]: no line 'gate'; must be one of fence",
    "zones: [gate], cameras: [south]": r"no polygon or sector 'gate'; must be one of runway",
    "zones: [fence], when: cross, cameras: [south]": r"no line 'fence'; its cameras have none",
    "cameras: [east]": r"rules\[0\].cameras\[0\]: no camera 'east'; must be one of north, south",
    "when: enter": r"rules\[0\]: zones: is required with when: enter",
    "when: hover": r"when: must be 'inside', 'enter', .*given: 'hover'",
    "when: dwell, zones: [gate]": "dwell_s: must be set with when: dwell, and only then",
    "dwell_s: 3": "dwell_s: must be set with when: dwell, and only then",
    "labels: [bird]": r"labels\[0\]: must be 'uav' or 'unknown' \(given: 'bird'\)",
    "action: record, severity: alarm": "severity, cooldown_s: must not be set with action: record",
    "severity: info": "severity: must be 'warning' or 'alarm'",
    "min_size_px: 9, max_size_px: 8": r"max_size_px: must not be less than min_size_px \(9\)",
    "min_sise_px: 9": "min_sise_px: unknown key; must be one of name, cameras, zones, when",
    "schedule: {from: 25:00}": r'schedule.from: must be a time of day such as "06:30", or "24:00"',
    "schedule: {form: '6:00'}": "schedule.form: unknown key; must be one of days, from, to, timezone",
    "schedule: {days: [monday]}": r"days\[0\]: must be 'mon', 'tue'",
    "schedule: {timezone: Europe/Atlantis}": "timezone: unknown time zone; must be a name of the IANA database",
    "schedule: {timezone: ../../etc/passwd}": "timezone: unknown time zone",
    "between: [2026-05-04T03:00:00, 2026-05-05T03:00:00Z]": r"between\[0\]: must have timezone info",
    "between: [2026-05-05T03:00:00Z, 2026-05-04T03:00:00Z]": "between: the second time must be after the first",
    "cooldown_s: -1": "cooldown_s: .*greater than or equal to 0",
}


@pytest.mark.parametrize(("keys", "message"), FAULTS.items())
def test_faults_of_zones(tmp_path: Path, keys: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, f"cameras: [{{id: a, uri: 'demo:scene', {keys}}}]"))


@pytest.mark.parametrize(("keys", "message"), RULE_FAULTS.items())
def test_faults_of_rules(tmp_path: Path, keys: str, message: str) -> None:
    path = write(tmp_path, f"{CAMERAS}rules: [{{name: r, {keys}}}]")
    if not message:
        assert load(path).rules
        return
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert f"{path}:" in str(caught.value)


def test_rules_have_different_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rules\[1\].name: 'r' is also the name of rules\[0\]; must be unique"):
        load(write(tmp_path, f"{CAMERAS}rules: [{{name: r}}, {{name: r}}]"))


def test_zones_that_reach_beyond_the_frame(tmp_path: Path) -> None:
    camera = load(write(tmp_path, CAMERAS)).cameras[0]
    assert camera.zones_beyond((640, 512)) == [] and camera.zones_beyond((639, 512)) == ["fence"]
    assert camera.zones_beyond((80, 80)) == ["gate", "fence"]
