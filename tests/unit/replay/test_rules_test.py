"""`dasnet rules test`: which alerts the rules of a site would change, of recorded tracks."""

import json
from pathlib import Path

import msgspec
import pytest
from support.program import CLIPS, dasnet_in_process
from support.scenes import CLASSES, SURE_BIRD, SURE_UAV, UNSURE, frame

from model.description import read_thresholds
from pipeline.checkpoints import SHIPPED, checkpoint_sha256
from pipeline.replay.outputs import DetectionsWriter, EventsWriter, Header
from pipeline.replay.rule_comparison import Comparison
from pipeline.store.store import Store
from pipeline.tracking.stage import TrackStage
from pipeline.types import Band, Detections, Event, Severity

RIGHT_HALF = "zones: {right: [[320, 0], [640, 0], [640, 512], [320, 512]], middle: [[320, 512], [320, 0]]}"
START_NS = 1_777_863_600_000_000_000  # 2026-05-04T03:00:00Z


def flight(seq: int, camera: str) -> Detections:
    """A drone that crosses the image's middle after 2 s, an unknown target left of it, and a bird: suppressed."""
    targets = [(200 + 2 * seq, 100, 10, SURE_UAV), (50 + seq / 2, 300, 10, UNSURE)]
    return frame(seq, [*targets, (600 - 2 * seq, 450, 10, SURE_BIRD)], camera=camera)


def recording(folder: Path, name: str = "clip", start_utc_ns: int | None = START_NS, checkpoint: str = "") -> Path:
    """What `dasnet replay` writes of a flight."""
    header = Header(
        source="flight.mp4", camera=name, session="s1", band=Band.VISIBLE, width=640, height=512, fps=30.0, frames=150,
        classes=CLASSES, checkpoint=checkpoint or checkpoint_sha256(SHIPPED), engine="none", threshold=0.5,
        start_utc_ns=start_utc_ns,
    )  # fmt: skip
    stage, events = TrackStage(read_thresholds(SHIPPED)), list[Event]()
    with DetectionsWriter(folder / name / "detections.jsonl", header) as writer:
        for seq in range(150):
            detections = flight(seq, name)
            writer.write(detections)
            events += stage.update(detections).events
    closing = stage.close(name)
    with EventsWriter(folder / name / "events.jsonl") as lines:
        for event in [*events, *(closing.events if closing else [])]:
            lines.write(event)
    return folder / name


def site(folder: Path, rules: str, keys: str = RIGHT_HALF, more: str = "") -> Path:
    path = folder / "site.yaml"
    path.write_text(f"cameras:\n  - {{id: north, uri: 'demo:scene', {keys}}}\n{more}rules:\n{rules}")
    return path


def outcome(*arguments: str | Path, json: Path) -> tuple[list[Comparison], str]:
    result = dasnet_in_process("rules", "test", *arguments, "--json", json)
    assert result.returncode == 0, result.stderr
    return msgspec.json.decode(json.read_bytes(), type=list[Comparison]), result.stdout


CROSSED = """
  - {name: crossed, zones: [middle], when: cross}
  - {name: left, labels: [uav], action: record}
  - {name: unknown, severity: alarm}
"""


def test_alerts_that_disappear_open_later_or_change_severity(tmp_path: Path) -> None:
    path = recording(tmp_path / "out")
    (comparison,), text = outcome(site(tmp_path, CROSSED), tmp_path / "out", json=tmp_path / "a.json")
    assert comparison.exact and comparison.source == str(path)
    assert [(each.kind, each.label, each.tracks) for each in comparison.differences] == [
        ("time", "uav", [1]), ("severity", "unknown", [2]),
    ]  # fmt: skip
    drone, unknown = comparison.differences
    assert drone.before and drone.after and unknown.before and unknown.after
    assert (drone.before.rule, drone.after.rule, round(drone.after.opened_s, 1)) == (None, "crossed", 2.0)
    assert (unknown.before.severity, unknown.after.severity) == (Severity.WARNING, Severity.ALARM)
    assert "time       uav #1: alarm at 0.1 s -> alarm at 2.0 s (crossed)" in text
    assert "2 before, 2 with these rules; 0 appear, 0 disappear, 1 change severity, 1 open at another time" in text
    rule = "  - {name: quiet, labels: [unknown], action: record}"
    (comparison,), text = outcome(site(tmp_path, rule), path, json=tmp_path / "a.json")
    assert [each.kind for each in comparison.differences] == ["same", "disappears"]
    assert comparison.differences[1].recorded_by == "quiet"
    assert "disappears unknown #2: warning at 1.5 s -> recorded (quiet)" in text
    assert "  no rule: 1 alerted, 0 not\n  quiet: 0 alerted, 1 not" in text


def test_events_and_stores_tell_of_the_same_alerts_where_few_places_decide(tmp_path: Path) -> None:
    path = recording(tmp_path / "out")
    events = [msgspec.json.decode(line, type=Event) for line in (path / "events.jsonl").read_bytes().splitlines()]
    (tmp_path / "run").mkdir()
    with Store(tmp_path / "run" / "store.sqlite") as store:
        store.append(events)
    config = site(tmp_path, CROSSED)
    for source in (path / "events.jsonl", tmp_path / "run"):
        (comparison,), text = outcome(config, source, json=tmp_path / "a.json")
        assert not comparison.exact and "approximate: known from events alone" in text
        kinds = [(each.kind, each.label) for each in comparison.differences]
        assert sorted(kinds) == [("severity", "unknown"), ("time", "uav")]
        drone = next(each for each in comparison.differences if each.kind == "time")
        assert drone.after is not None and drone.after.opened_s > 2.0, "when it was lost, behind the line"


def test_without_rules_nothing_changes(tmp_path: Path) -> None:
    path = recording(tmp_path / "out")
    for source in (path, path / "events.jsonl"):
        (comparison,), text = outcome(site(tmp_path, "  []"), source, json=tmp_path / "a.json")
        assert [each.kind for each in comparison.differences] == ["same"] * 2 and "  the same alerts" in text


def test_schedules_and_arming(tmp_path: Path) -> None:
    recording(tmp_path / "out", start_utc_ns=None)
    rules = """
  - {name: night, schedule: {from: 22:00, to: 06:00}, needs_arming: true}
  - {name: day, action: record}
"""
    arguments = site(tmp_path, rules), tmp_path / "out"
    for time, disarmed, kind in (("T03:00:00Z", [], "same"), ("T12:00:00Z", [], "disappears"),
                                 ("T03:00:00Z", ["--disarmed"], "disappears")):  # fmt: skip
        options = ["--start-time", f"2026-05-04{time}", *disarmed]
        (comparison,), _ = outcome(*arguments, *options, json=tmp_path / "a.json")
        assert {each.kind for each in comparison.differences} == {kind}
    result = dasnet_in_process("rules", "test", *arguments)
    assert result.returncode == 2
    assert "time of the recording unknown, and rule 'night' depends on it; expected --start-time" in result.stderr


def test_what_cannot_be_tested_is_named(tmp_path: Path) -> None:
    two = "  - {id: south, uri: 'demo:scene'}\n"
    path = recording(tmp_path / "out")
    config = site(tmp_path, CROSSED, more=two)
    for arguments, code, message in (
        ([path], 2, "of camera 'clip'; expected --camera with one of the site's: north, south"),
        ([path, "--camera", "east"], 2, "no camera 'east'; must be one of north, south"),
        ([tmp_path], 0, ""),
        ([tmp_path / "none"], 2, "none: must be or hold detections.jsonl of `dasnet replay`, store.sqlite or events"),
        ([config, "--camera", "north"], 1, "site.yaml, line 1: not an event of dasnet, or damaged"),
    ):
        camera = ["--camera", "north"] if code == 0 else []
        result = dasnet_in_process("rules", "test", config, *arguments, *camera)
        assert result.returncode == code and message in result.stderr, result.stderr
    other = recording(tmp_path / "more", "other", checkpoint="0123456789abcdef")
    result = dasnet_in_process("rules", "test", config, other, path, "--camera", "north")
    assert result.returncode == 1 and "detections of checkpoint 0123456789ab; expected those of" in result.stderr
    assert "2 before, 2 with these rules" in result.stdout, "the others are tested all the same"


def test_a_real_drone_is_alerted_when_it_leaves_its_pad(tmp_path: Path) -> None:
    replayed = dasnet_in_process(
        "replay", CLIPS / "IR_DRONE_019.mp4", "--out", tmp_path / "out", "--end", "40", "--no-video"
    )
    assert replayed.returncode == 0, replayed.stderr
    rows = [line.split(",") for line in (tmp_path / "out" / "IR_DRONE_019" / "tracks.txt").read_text().splitlines()]
    x = [float(row[2]) + float(row[4]) / 2 for row in rows]
    edge = (min(x) + max(x)) / 2
    begins_left = x[0] < edge
    pad = [[0, 0], [edge, 0], [edge, 256], [0, 256]] if begins_left else [[edge, 0], [320, 0], [320, 256], [edge, 256]]
    rules = "  - {name: pad, zones: [pad], action: record}\n"
    (comparison,), text = outcome(
        site(tmp_path, rules, f"zones: {json.dumps({'pad': pad})}"), tmp_path / "out", json=tmp_path / "a.json"
    )
    (drone,) = comparison.differences
    assert drone.kind == "time" and drone.before and drone.after, text
    left = next(int(row[0]) for row, place in zip(rows, x, strict=True) if (place < edge) is not begins_left)
    assert drone.after.opened_s == pytest.approx((left - 1) / 30, abs=0.05)
