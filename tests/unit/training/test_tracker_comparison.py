"""Trackers on the same detections: what is compared, by which figures, and the verdict.

What runs the other trackers or TrackEval is slow: it installs them, from a package index, into an environment of
their own.
"""

import gzip
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.scenes import CLASSES, SURE_UAV, Target, frame

from pipeline.replay.outputs import DetectionsWriter, Header
from training.datasets import DataError, LabelledObject
from training.evaluation import tracker_environment
from training.evaluation.clip_metrics import TrackRow
from training.evaluation.tracker_comparison import OURS, RateResult, every_nth, shortfalls, stored_clips, table
from training.evaluation.tracking_metrics import TrackedClip, TrackingMetrics, false_tracks, similarity

ROOT = Path(__file__).parents[3]
FPS = 30


def box(x: float, y: float, side: float = 10.0) -> tuple[float, float, float, float]:
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def test_similarity_is_of_centres_in_sizes_of_the_label():
    labels = np.array([box(50, 50, 4), box(90, 50, 20)])
    boxes = np.array([box(50, 50, 9), box(51, 51, 4), box(90, 70, 4)])
    expected = [[1, math.exp(-math.sqrt(2) / 4)], [math.exp(-2), math.exp(-math.hypot(39, 1) / 20)]]
    assert similarity(labels, boxes)[:, :2] == pytest.approx(np.array(expected))
    assert similarity(labels, boxes)[1, 2] == pytest.approx(math.exp(-1))
    assert similarity(labels[:0], boxes).shape == (0, 3)


def tracked(rows: Sequence[TrackRow], frames: int = 10) -> TrackedClip:
    labels = {at: [LabelledObject(7, "drone", box(20 + at, 30))] for at in range(frames)}
    return TrackedClip(labels, rows, frames / FPS)


def row(at: int, track: int, dx: float = 0.0) -> TrackRow:
    return TrackRow(at, track, box(20 + at + dx, 30))


def test_a_track_is_false_when_most_of_its_rows_are_on_no_target():
    half = [row(at, 1, dx=0 if at < 5 else 40) for at in range(10)]
    less = [row(at, 2, dx=0 if at < 4 else 40) for at in range(10)]
    edge = [row(at, 3, dx=6.9) for at in range(10)]  # ln 2 of the size is 6.93
    beyond = [row(at, 4, dx=7.0) for at in range(10)]
    assert false_tracks(tracked([*half, *less, *edge, *beyond])) == {2, 4}
    assert false_tracks(TrackedClip({0: []}, [row(0, 5)], 1.0)) == {5}


def test_a_lower_rate_leaves_out_frames_and_keeps_times_and_camera_motion():
    frames = [frame(seq, [], shift=(1.0, -0.5)) for seq in range(7)]
    kept = list(every_nth(frames, 3))
    assert [found.ref.seq for found in kept] == [0, 3, 6]
    assert [found.ref.pts_s for found in kept] == [0, 3 / FPS, 6 / FPS]
    assert [found.camera_shift_px for found in kept][1:] == [(3.0, -1.5), (3.0, -1.5)]
    frames[4] = replace(frames[4], camera_shift_px=None)
    assert [found.camera_shift_px for found in every_nth(frames, 3)] == [(1.0, -0.5), (3.0, -1.5), None]


def result(**metrics: tuple[float, float, float]) -> RateResult:
    made = {
        name: TrackingMetrics(hota, hota, hota, idf1, 3, 1, false, {"a": hota})
        for name, (hota, idf1, false) in metrics.items()
    }
    return RateResult(12.5, ("a",), 1.0, made)


def test_ours_is_behind_in_hota_in_idf1_or_in_false_tracks_of_the_best():
    assert shortfalls(result(**{OURS: (0.8, 0.9, 1.0)}, good=(0.8, 0.9, 1.0), poor=(0.1, 0.1, 0.0))) == []
    assert shortfalls(result(**{OURS: (0.8, 0.9, 1.0)}, equal=(0.804, 0.904, 1.0))) == []
    assert shortfalls(result(**{OURS: (0.8, 0.9, 1.0)}, other=(0.82, 0.8, 2.0))) == [
        "behind at 12.5 frames/s: HOTA 0.800, other 0.820"
    ]
    assert shortfalls(result(**{OURS: (0.8, 0.9, 1.0)}, other=(0.7, 0.95, 0.5))) == [
        "behind at 12.5 frames/s: IDF1 0.900, other 0.950",
        "behind at 12.5 frames/s: 1.0 false tracks/min, other 0.5",
    ]


def test_the_table_has_a_line_for_each_rate_and_tracker():
    lines = table([result(**{OURS: (0.8, 0.9, 1.0)}, other=(0.7, 0.95, 0.5))]).splitlines()
    assert len(lines) == 4
    assert lines[3] == "| 12.5 | other | 0.700 | 0.700 | 0.700 | 0.950 | 3 | 0.5 |"


def written(folder: Path, name: str, scenes: Sequence[Sequence[Target]]) -> Path:
    """Write a data set of one clip, and detections of it that are perfect; return the folder of the detections."""
    labels = [
        [{"id": at, "class": "drone", "box": [x - s / 2, y - s / 2, s, s]} for at, (x, y, s, _) in enumerate(targets)]
        for targets in scenes
    ]
    clip = {
        "sensor": "visible", "clip_class": "drone", "split": "hard",
        "fps": FPS, "width": 640, "height": 512, "frames": labels,
    }  # fmt: skip
    folder.mkdir()
    (folder / "labels.json.gz").write_bytes(gzip.compress(json.dumps({name: clip}).encode()))
    out = folder / "replays" / name
    out.mkdir(parents=True)
    header = Header(
        source=f"{name}.mp4", camera="north", session="s1", band="visible", width=640, height=512, fps=FPS,
        frames=len(scenes), classes=CLASSES, checkpoint="ab" * 32, engine="torch-cpu", threshold=0.3,
    )  # fmt: skip
    with DetectionsWriter(out / "detections.jsonl", header) as writer:
        for seq, targets in enumerate(scenes):
            writer.write(frame(seq, targets))
    return folder / "replays"


def crossing(frames: int = 120) -> list[list[Target]]:
    """Two targets of 8 px that fly 9 px a frame: one never overlaps itself."""
    return [
        [(20 + 5 * seq, 100 + 2 * seq, 8, SURE_UAV), (20 + 5 * seq, 400 - 2 * seq, 8, SURE_UAV)]
        for seq in range(frames)
    ]


def test_detections_are_found_by_the_clips_name_at_any_depth(tmp_path: Path):
    replays = written(tmp_path / "data", "CLIP", crossing(5))
    (stored,) = stored_clips([tmp_path / "data"], replays)
    assert stored.clip.name == "CLIP" and len(stored.frames) == 5
    assert stored.rate == pytest.approx(FPS)


def test_no_detections_and_those_of_two_checkpoints_are_refused(tmp_path: Path):
    replays = written(tmp_path / "data", "CLIP", crossing(5))
    with pytest.raises(DataError, match=r"holds no CLIP/detections\.jsonl of a clip in"):
        stored_clips([ROOT / "tests" / "data"], replays)
    other = replays / "other" / "CLIP"
    other.mkdir(parents=True)
    (other / "detections.jsonl").write_bytes((replays / "CLIP" / "detections.jsonl").read_bytes())
    with pytest.raises(DataError, match="expected detections of one checkpoint"):
        stored_clips([tmp_path / "data"], replays)


def run_inside(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run Python in the environment of the trackers; skip where it cannot be made."""
    made = subprocess.run([sys.executable, ROOT / "scripts" / "compare_trackers.py", "nowhere", "--data", "nowhere"],
        cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
    if "cannot be installed" in made.stderr:
        pytest.skip(f"needs trackers and trackeval from a package index: {made.stderr.strip()}")
    python = ROOT / tracker_environment.ENVIRONMENT / "bin" / "python"
    return subprocess.run([python, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)


HAND_MADE = """
import json, sys
from dataclasses import asdict
from training.datasets import LabelledObject
from training.evaluation.clip_metrics import TrackRow
from training.evaluation.tracking_metrics import TrackedClip, tracking_metrics

def box(x, y=30, side=10): return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
labels = {at: [LabelledObject(7, "drone", box(20 + at))] for at in range(10)}
whole = [TrackRow(at, 1, box(20 + at)) for at in range(10)]
switched = [TrackRow(at, 1 if at < 5 else 2, box(20 + at)) for at in range(10)]
far = [TrackRow(at, 9, box(400)) for at in range(10)]
for rows in (whole, switched, whole + far, []):
    print(json.dumps(asdict(tracking_metrics({"clip": TrackedClip(labels, rows, 30.0)}))))
"""


@pytest.mark.slow
def test_hota_and_idf1_of_tracks_that_are_worked_out_by_hand():
    done = run_inside("-c", HAND_MADE)
    assert done.returncode == 0, done.stderr
    whole, switched, doubled, nothing = map(json.loads, done.stdout.splitlines())
    assert (whole["hota"], whole["idf1"], whole["false_tracks"]) == (pytest.approx(1), 1, 0)
    # Every box is right, and each of two tracks covers half of the target: AssA = 5 / 10; IDTP 5, IDFN 5, IDFP 5.
    assert (switched["detection_accuracy"], switched["association_accuracy"]) == (pytest.approx(1), pytest.approx(0.5))
    assert (switched["hota"], switched["idf1"]) == (pytest.approx(math.sqrt(0.5)), 0.5)
    # Ten false rows halve DetA; IDF1 = 2 * 10 / (2 * 10 + 10).
    assert (doubled["detection_accuracy"], doubled["idf1"]) == (pytest.approx(0.5), pytest.approx(2 / 3))
    assert (doubled["false_tracks"], doubled["false_per_minute"]) == (1, 2.0)
    assert (nothing["hota"], nothing["idf1"]) == (0, 0)


@pytest.mark.slow
def test_check_fails_exactly_where_ours_is_behind(tmp_path: Path):
    ahead = written(tmp_path / "fast", "FAST", crossing())
    report = tmp_path / "fast.json"
    script = ROOT / "scripts" / "compare_trackers.py"
    done = run_inside(script, ahead, "--data", tmp_path / "fast", "--json", report)
    assert done.returncode == 0, done.stderr
    rates = json.loads(report.read_text())["rates"]
    assert [each["rate"] for each in rates] == [25, 12.5, 5]
    assert set(rates[0]["metrics"]) >= {OURS, "ByteTrack", "OC-SORT", "BoT-SORT", "C-BIoU"}
    assert all(each["metrics"][OURS]["tracks"] == 2 for each in rates)
    assert rates[2]["metrics"][OURS]["hota"] > rates[2]["metrics"]["ByteTrack"]["hota"]
    # What stands still before a still background is a lamp to ours, and a target to the others.
    behind = written(tmp_path / "still", "STILL", [[(300, 200, 12, SURE_UAV)]] * 60)
    done = run_inside(script, behind, "--data", tmp_path / "still", "--check")
    assert done.returncode == 1 and "behind at 25 frames/s: HOTA 0.000, ByteTrack" in done.stdout
