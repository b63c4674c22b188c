"""Sidecars and packages: they hold what an authority needs, prove themselves, and show every change."""

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.events import START_NS, event, ref, track, until
from support.evidence import CHECKPOINT, Run, alert, lines, site

from pipeline.errors import DasnetError
from pipeline.evidence.log import EvidenceError
from pipeline.evidence.package import export
from pipeline.evidence.sidecars import read_sidecar
from pipeline.evidence.verify_package import verify_package
from pipeline.geodesy import destination
from pipeline.store import reviews
from pipeline.types import Bearing, EventKind, Track, TrackState, Verdict

POSE = {"lat": 52.5, "lon": 13.4, "height_m": 40, "azimuth_deg": 90, "hfov_deg": 40}
SECRET = "rtsp://user:hunter2hunter2@192.0.2.10/stream"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    cameras = [{"id": "north", "uri": SECRET, "pose": POSE}]
    run = Run(tmp_path / "run", cameras=cameras)
    yield run
    run.outbox.stop(0.1)
    run.store.close()


def seen(number: int, seq: int) -> Track:
    return track(number, seq, bearing=Bearing(90.0 + seq / 10, 3.0, 1.0, 1.0))


def add_alert(run: Run, number: int = 1, is_tracked: bool = True) -> str:
    """An alert of which everything is complete but its sidecar."""
    events = alert(number)
    for seq in range(105):
        current = [event for event in events if event.track and event.track.last_seen.seq == seq]
        if is_tracked:
            run.sink.track(ref(seq), [seen(number, seq)], current)
    if is_tracked:
        run.sink.track(ref(105), [track(number, 105, state=TrackState.LOST)], events[2:])
    name = run.add(events)
    run.add_clip(name)
    return name


@pytest.fixture
def exported(run: Run, tmp_path: Path) -> Path:
    """The folder of an alert's package."""
    run.add([event(EventKind.CAMERA_DOWN, time_utc_ns=START_NS - 10**9), event(EventKind.CAMERA_UP)])
    other, name = add_alert(run, 2), add_alert(run)
    until(lambda: (run.config.evidence_path / f"{name}.json").exists(), 20)
    reviews.review(run.config.store_path, name, Verdict.BIRD, "a gull, low", START_NS + 10**12)
    run.stop()
    assert not run.verify().findings and other
    out = tmp_path / "package"
    assert export(run.config.run_dir, run.config.store_path, name, out) == []
    return out


def test_a_sidecar_says_what_was_seen_by_what_and_where_it_lies(exported: Path, run: Run) -> None:
    (file,) = (exported / "evidence").glob("*.json")
    sidecar = read_sidecar(file.read_bytes(), "")
    assert sidecar.alert == file.stem and sidecar.camera == "north" and sidecar.program.checkpoint_sha256 == CHECKPOINT
    assert [json.loads(each)["kind"] for each in map(bytes, sidecar.events)][-1] == "alert.ended"
    assert sidecar.pose is not None and sidecar.pose["lat"] == 52.5 and not sidecar.tracks_incomplete
    ((first, *rest),) = (path.boxes for path in sidecar.tracks)
    assert (first.frame, first.azimuth_deg, rest[-1].frame) == (0, 90.0, 102)
    assert {name.partition("/")[0] for name in sidecar.files} == {"snapshots", "clips"} and len(sidecar.files) == 4
    configuration = (exported / sidecar.configuration).read_text()
    assert "192.0.2.10" in configuration and "hunter2" not in configuration
    for path in run.config.evidence_path.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes()


def test_a_package_holds_what_people_read(exported: Path) -> None:
    with (exported / "track.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["time_utc"] == "2026-09-21T14:13:20.000Z" and rows[0]["x0"] == "10.0" and rows[0]["label"] == "uav"
    shown = json.loads((exported / "track.geojson").read_text())
    camera, *bearings = shown["features"]
    assert camera["geometry"] == {"type": "Point", "coordinates": [13.4, 52.5, 40.0]}
    assert all(line["geometry"]["coordinates"][0] == [13.4, 52.5] for line in bearings) and len(bearings) == 5
    assert "the range is unknown" in bearings[0]["properties"]["meaning"]
    verdicts = list(csv.DictReader((exported / "verdicts.csv").open()))
    assert [(row["event"], row["verdict"], row["note"]) for row in verdicts] == [
        ("alert.acknowledged", "", ""),
        ("alert.reviewed", "bird", "a gull, low"),
    ]
    kinds = [json.loads(line)["kind"] for line in lines(exported / "events.jsonl")]
    assert kinds == [
        "camera.down",
        "camera.up",
        "alert.opened",
        "alert.ended",
        "alert.acknowledged",
        "alert.reviewed",
    ]
    readme = (exported / "README.txt").read_text()
    assert "from 2026-09-21T14:13:20.200Z" in readme and CHECKPOINT in readme and "{" not in readme


def test_a_package_is_verified_with_and_without_dasnet(exported: Path, run: Run, tmp_path: Path) -> None:
    report = verify_package(exported)
    assert not report.findings and not report.remarks and report.events == 6 and report.files == 6
    zipped = tmp_path / "alert.zip"
    (name,) = (path.stem for path in (exported / "clips").glob("*.mp4"))
    export(run.config.run_dir, run.config.store_path, name, zipped)
    assert verify_package(zipped).lines() == report.lines()
    (key,) = report.keys
    assert not verify_package(zipped, [key]).findings
    assert verify_package(zipped, ["0" * 64]).findings == [f"proof.json: is signed by another key, {key}"]
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(zipped).extractall(unpacked)
    done = own_script(unpacked, key)
    assert (done.returncode, done.stdout) == (0, f"verified: {report.leaves} leaves, signed by {key}\n")
    assert own_script(unpacked, "0" * 64).returncode == 1
    with pytest.raises(DasnetError, match="exists; must be a new folder"):
        export(run.config.run_dir, run.config.store_path, name, zipped)


def own_script(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the script of a package, without dasnet on its path."""
    program = [sys.executable, "-I", str(folder / "verify.py"), *arguments]
    return subprocess.run(program, capture_output=True, text=True, cwd="/")


@pytest.mark.parametrize(
    ("file", "old", "new", "finding"),
    [
        ("track.csv", b"uav", b"bird", "track.csv: was changed or removed"),
        ("verdicts.csv", b"bird", b"uav", "verdicts.csv: was changed or removed"),
        ("README.txt", b"north", b"south", "README.txt: was changed or removed"),
        ("verify.py", b"sys.exit(bool(faults))", b"", "verify.py: was changed or removed"),
        ("events.jsonl", b'"verdict":"bird"', b'"verdict":"uav"', "events.jsonl, line 6: was changed"),
        ("proof.json", b'"tree_size": ', b'"tree_size": 1', "proof.json: the signature of the head does not fit"),
        ("proof.json", b"alert.opened", b"alert.lowered", "(event) is not in the signed log"),
    ],
)
def test_what_was_changed_in_a_package(exported: Path, file: str, old: bytes, new: bytes, finding: str) -> None:
    content = (exported / file).read_bytes()
    assert old in content
    (exported / file).write_bytes(content.replace(old, new, 1))
    assert any(finding in each for each in verify_package(exported).findings)
    if file.endswith(("jsonl", "proof.json")):
        assert own_script(exported).returncode == 1


@pytest.mark.parametrize(("id_", "finding"), [("0" * 26, "no leaf knows of it"), (None, "is there twice")])
def test_an_event_that_was_added_to_a_package(exported: Path, id_: str | None, finding: str) -> None:
    events = exported / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    known = json.loads(lines[0])["id"]
    events.write_bytes(b"".join([*lines, lines[0].replace(known.encode(), (id_ or known).encode())]))
    assert "events.jsonl, line 7: is an event of which no leaf knows" in verify_package(exported).findings
    done = own_script(exported)
    assert done.returncode == 1 and f"event {id_ or known}: {finding}" in done.stdout


def test_what_was_swapped_removed_and_added_in_a_package(exported: Path) -> None:
    (clip,) = (exported / "clips").glob("*.mp4")
    (crop,) = (exported / "snapshots").glob("*.crop.jpg")
    clip.write_bytes(crop.read_bytes())
    crop.unlink()
    (exported / "more.txt").write_text("")
    assert set(verify_package(exported).findings) == {
        f"clips/{clip.name}: was changed",
        f"snapshots/{crop.name}: was removed",
        "more.txt: does not belong to the package",
    }
    assert own_script(exported).stdout.count("was changed or removed") == 2
    (exported / "proof.json").unlink()
    with pytest.raises(EvidenceError, match=r"is no package: it has no proof\.json"):
        verify_package(exported)


def test_what_cannot_be_exported(run: Run, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"log\.jsonl: cannot be read"):
        export(tmp_path, run.config.store_path, "0" * 26, tmp_path / "out")
    name = add_alert(run)
    run.stop()
    with pytest.raises(EvidenceError, match="alert nothing: is not in the evidence log"):
        export(run.config.run_dir, run.config.store_path, "nothing", tmp_path / "out")
    heads = run.config.evidence_path / "heads.jsonl"
    shutil.move(heads, tmp_path)
    heads.write_bytes(b"")
    with pytest.raises(EvidenceError, match="its newest leaves are not signed yet"):
        export(run.config.run_dir, run.config.store_path, name, tmp_path / "out")


def test_the_sidecar_names_the_program_that_opened_the_alert(run: Run) -> None:
    events = alert(1)
    run.add(events[:2])
    run.delivered()
    run.sink.finish(5)  # as after a kill: nothing was said of the alert's end
    turned = {"id": "north", "uri": SECRET, "pose": POSE | {"azimuth_deg": 180}}
    run.sink.watch(site(run.config.run_dir, cameras=[turned]))
    run.add(events[2:])
    run.stop()
    sidecar = read_sidecar((run.config.evidence_path / f"{events[0].id}.json").read_bytes(), "")
    assert sidecar.pose is not None and sidecar.pose["azimuth_deg"] == 90
    programs = [
        json.loads(line) for line in lines(run.config.evidence_path / "log.jsonl") if b'"kind":"program"' in line
    ]
    first, *_, last = (each["program"]["configuration_sha256"] for each in programs)
    assert sidecar.program.configuration_sha256 == first != last


def test_an_alert_whose_tracks_a_kill_lost_has_a_sidecar_that_says_so(run: Run) -> None:
    name = add_alert(run, is_tracked=False)
    run.stop()
    sidecar = read_sidecar((run.config.evidence_path / f"{name}.json").read_bytes(), "")
    assert sidecar.tracks == [] and sidecar.tracks_incomplete == "the track worker ended before the alert did"
    assert not run.verify().findings


def test_a_destination() -> None:
    assert destination(0, 0, 90, 111_195.08) == (0.0, pytest.approx(1.0, abs=1e-6))
    assert destination(52.5, 13.4, 0, 5000) == (pytest.approx(52.5449660, abs=1e-6), 13.4)
    assert destination(0, 179.99, 90, 5000)[1] < -179.9
