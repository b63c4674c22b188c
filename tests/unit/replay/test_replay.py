"""`dasnet replay`: every frame, the truth, the same bytes every time; broken inputs are reported, the rest is kept."""

import csv
import json
import shutil
from pathlib import Path

import av
import cv2
import pytest
from support.program import CLIPS, dasnet, dasnet_in_process

from pipeline.imaging.synthetic_scene import Look, Scene, Truth
from training.datasets import Clip, open_dataset
from training.evaluation.clip_metrics import TrackRow, evaluate_clip, read_track_rows

DRONE = CLIPS / "IR_DRONE_015.mp4"
FRAMES = 60
SCENE_SEED = 4


def replay(*arguments: str | Path) -> None:
    result = dasnet_in_process("replay", *arguments)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a process of its own."""
    folder = tmp_path_factory.mktemp("replay")
    result = dasnet("replay", DRONE, "--out", folder, "--end", str(FRAMES))
    assert result.returncode == 0, result.stderr
    return folder / DRONE.stem


def test_the_drone_of_a_real_clip_is_tracked(out: Path):
    (clip,) = open_dataset(CLIPS.parent, names=[DRONE.stem])
    assert isinstance(clip, Clip)
    figures = evaluate_clip(clip, read_track_rows((out / "tracks.txt").read_text().splitlines()), FRAMES)
    assert figures.found == 1
    assert figures.ratio("precision") > 0.95 and figures.ratio("recall") > 0.6


def test_outputs_agree_with_each_other(out: Path):
    summary = json.loads((out / "summary.json").read_text())
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    detections = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    rows = read_track_rows((out / "tracks.txt").read_text().splitlines())
    assert summary["frames"] == FRAMES and summary["complete"] and len(detections) == FRAMES + 1
    assert [line["ref"]["seq"] for line in detections[1:]] == list(range(FRAMES))
    confirmed = [event for event in events if event["kind"] == "track.confirmed"]
    assert summary["tracks"] == len(confirmed) == len({row.track for row in rows})
    opened = [event["alert"] for event in events if event["kind"] == "alert.opened"]
    assert summary["alerts"] == len(opened) and set(opened) == {event["alert"] for event in confirmed}
    for event in confirmed:
        assert min(row.frame for row in rows if row.track == event["track"]["id"]) == event["frame"]
    with av.open(str(out / "annotated.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == FRAMES
    assert (out / "still.jpg").is_file()
    assert {file.stem for file in (out / "alerts").iterdir()} == set(opened), "each alert has its picture"
    assert (out.parent / "report.html").read_text().count(DRONE.stem)


def test_the_table_has_each_confirmed_track_from_its_first_sighting(out: Path):
    table = list(csv.DictReader((out / "tracks.csv").read_text().splitlines()))
    online = {(row.frame + 1, row.track) for row in read_track_rows((out / "tracks.txt").read_text().splitlines())}
    confirmed = [row for row in table if row["state"] == "confirmed" and row["label"] in ("uav", "unknown")]
    assert {(int(row["frame"]), int(row["id"])) for row in confirmed} == online
    tracks = {track["id"]: track for track in json.loads((out / "summary.json").read_text())["per_track"]}
    assert {int(row["id"]) for row in table} == set(tracks)
    for identity, track in tracks.items():
        frames = [int(row["frame"]) for row in table if int(row["id"]) == identity]
        assert frames == sorted(frames)
        assert frames[0] <= track["first_frame"] <= track["last_frame"] <= frames[-1]
        if track["label"] in ("uav", "unknown"):
            assert frames[0] < min(frame for frame, one in online if one == identity), "seen before it was confirmed"


def test_a_second_replay_gives_the_same_bytes_and_stored_detections_give_the_same_tracks(out: Path, tmp_path: Path):
    replay(DRONE, "--out", tmp_path, "--end", str(FRAMES))
    names = ("tracks.txt", "tracks.csv", "events.jsonl", "detections.jsonl", "annotated.mp4")
    for name in names:
        assert (tmp_path / DRONE.stem / name).read_bytes() == (out / name).read_bytes(), name
    (tmp_path / DRONE.stem / "tracks.txt").unlink()
    (tmp_path / DRONE.stem / "events.jsonl").unlink()
    replay(DRONE, "--out", tmp_path, "--from-detections")
    for name in ("tracks.txt", "tracks.csv", "events.jsonl"):
        assert (tmp_path / DRONE.stem / name).read_bytes() == (out / name).read_bytes(), name


def test_a_calibrations_limit_decides_what_is_alerted(out: Path, tmp_path: Path):
    shutil.copytree(out, tmp_path / DRONE.stem)
    header = json.loads((out / "detections.jsonl").read_text().splitlines()[0])
    alerted = json.loads((out / "summary.json").read_text())["alerts"]
    calibration = {
        "version": 1, "camera": "north", "band": "infrared", "frame_size_px": [320, 256], "role": "alert", "hours": 15,
        "checkpoint": header["checkpoint"], "created_utc_ns": 0, "noise_map": [[1.0]],
    }  # fmt: skip
    for limit, alerts in ((-3.0, alerted), (19.0, 0)):
        limits = {"alert_log_odds": limit, "alarms_per_hour": 0.2}
        (tmp_path / "north.json").write_text(json.dumps(calibration | {"limits": limits}))
        calibrated = ("--calibration", tmp_path / "north.json", "--pose", "52,13,40,90,0,60")
        replay(DRONE, "--out", tmp_path, "--from-detections", *calibrated)
        assert json.loads((tmp_path / DRONE.stem / "summary.json").read_text())["alerts"] == alerts


def test_start_end_and_stride_keep_the_sources_frame_numbers(tmp_path: Path):
    replay(DRONE, "--out", tmp_path, "--start", "20", "--end", "60", "--stride", "4", "--no-video")
    lines = (tmp_path / DRONE.stem / "detections.jsonl").read_text().splitlines()[1:]
    assert [json.loads(line)["ref"]["seq"] for line in lines] == list(range(20, 60, 4))
    assert not (tmp_path / DRONE.stem / "annotated.mp4").exists()


@pytest.mark.slow
def test_generated_targets_are_tracked_where_they_are(tmp_path: Path):
    """The procedural scene, encoded as a camera would, against its exact truth."""
    scene, fps, frames = Scene(SCENE_SEED, look=Look.DAY), 10, 50
    truths = []
    with av.open(str(tmp_path / "scene.mp4"), "w") as video:
        stream = video.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = 640, 512, "yuv420p"
        for number in range(frames):
            pixels, truth = scene.render(number / fps)
            truths.append(truth)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode(None))
    replay(tmp_path / "scene.mp4", "--out", tmp_path / "out", "--no-video")
    rows = read_track_rows((tmp_path / "out" / "scene" / "tracks.txt").read_text().splitlines())
    hits = [_object_at(row, truths[row.frame]) for row in rows]
    assert hits.count("uav") >= 30
    assert hits.count(None) < 0.2 * len(hits)


def _object_at(row: TrackRow, truth: list[Truth]) -> str | None:
    """What the generator drew where the track is, within the object's box grown by half."""
    x, y = (row.xyxy[0] + row.xyxy[2]) / 2, (row.xyxy[1] + row.xyxy[3]) / 2
    for item in truth:
        left, top, right, bottom = item.xyxy
        if (
            abs(x - (left + right) / 2) <= (right - left) * 0.75
            and abs(y - (top + bottom) / 2) <= (bottom - top) * 0.75
        ):
            return item.kind
    return None


def test_sequences_folders_and_equal_names(tmp_path: Path):
    images = tmp_path / "images"
    images.mkdir()
    with av.open(str(DRONE)) as video:
        for number, frame in enumerate(video.decode(video=0)):
            if number == 3:
                break
            cv2.imwrite(str(images / f"f{number}.png"), frame.to_ndarray(format="bgr24"))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        shutil.copy(DRONE, tmp_path / folder / "same.mp4")
    replay(images, tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out", "--end", "3", "--no-video")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["images", "same", "same-2"]
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/summary.json")]
    assert all(summary["frames"] == 3 for summary in summaries)
    assert sorted(summary["source"] for summary in summaries) == ["a/same.mp4", "b/same.mp4", "images"]
    assert "a/same.mp4" in (tmp_path / "out" / "report.html").read_text()


def test_missing_frames_keep_their_numbers_and_wall_clock_times_change_no_id(tmp_path: Path):
    """Images 5 to 13 of a drone's film are missing, the third is broken."""
    images = tmp_path / "images"
    images.mkdir()
    with av.open(str(DRONE)) as video:
        for number, frame in zip(range(1, 26), video.decode(video=0), strict=False):
            if not 5 <= number <= 13:
                cv2.imwrite(str(images / f"f_{number:04}.png"), frame.to_ndarray(format="bgr24"))
    (images / "f_0003.png").write_text("broken")
    command = ("replay", images, "--fps", "30", "--no-video")
    for out, start in (("plain", ()), ("timed", ("--start-time", "2026-05-04T05:02:01.5+02:00"))):
        result = dasnet_in_process(*command, "--out", tmp_path / out, *start)
        assert result.returncode == 1 and "f_0003.png; 15 frames were read" in result.stderr
    plain, timed = tmp_path / "plain" / "images", tmp_path / "timed" / "images"
    lines = (plain / "detections.jsonl").read_text().splitlines()[1:]
    refs = [json.loads(line)["ref"] for line in lines]
    assert [ref["seq"] for ref in refs] == [0, 1, 3, *range(13, 25)]
    assert all(ref["pts_s"] == ref["seq"] / 30 for ref in refs)
    assert (plain / "tracks.txt").read_bytes() == (timed / "tracks.txt").read_bytes()
    bare, dated = (
        [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()] for folder in (plain, timed)
    )
    assert bare and [event["id"] for event in bare] == [event["id"] for event in dated]
    start_ns = 1_777_863_721_500_000_000
    for event, again in zip(bare, dated, strict=True):
        assert "time_utc" not in event
        assert again.pop("time_utc").startswith("2026-05-04T03:02:0")
        assert again["time_utc_ns"] == start_ns + event["time_utc_ns"] == start_ns + round(event["pts_s"] * 1e9)
        assert again | {"time_utc_ns": event["time_utc_ns"]} == event
    summary = json.loads((timed / "summary.json").read_text())
    assert (summary["failed"], summary["start_time_utc"]) == (1, "2026-05-04T03:02:01.500Z")
    assert summary["end_time_utc"] == "2026-05-04T03:02:02.300Z" and summary["per_track"][0]["last_time_utc"]
    assert json.loads((plain / "summary.json").read_text())["start_time_utc"] is None
    before = (timed / "events.jsonl").read_bytes()
    dasnet_in_process(*command, "--out", tmp_path / "timed", "--from-detections")
    assert (timed / "events.jsonl").read_bytes() == before


def test_a_cover_is_not_replayed_and_what_is_not_read_is_said(tmp_path: Path):
    with av.open(str(DRONE)) as source, av.open(str(tmp_path / "film.mp4"), "w") as out:
        cover = out.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "yuvj420p"
        film = out.add_stream_from_template(source.streams.video[0])
        black = av.VideoFrame(640, 480, "yuvj420p")
        out.mux(cover.encode(black) + cover.encode(None))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = film
                out.mux(packet)
    result = dasnet_in_process("replay", tmp_path / "film.mp4", "--out", tmp_path, "--end", "2", "--no-video")
    assert result.returncode == 0 and "video stream 1 (h264, 320x256)" in result.stderr
    summary = json.loads((tmp_path / "film" / "summary.json").read_text())
    assert summary["frames"] == 2 and summary["other_video_streams"] == ["0 (mjpeg, 640x480)"]
    dasnet_in_process("replay", tmp_path / "film.mp4", "--out", tmp_path, "--stream", "0", "--end", "1", "--no-video")
    assert json.loads((tmp_path / "film" / "summary.json").read_text())["size_px"] == [640, 480]


def test_broken_inputs_are_reported_what_could_be_read_is_kept_and_the_others_go_on(tmp_path: Path):
    content = DRONE.read_bytes()
    (tmp_path / "text.mp4").write_text("no video at all")
    (tmp_path / "empty.mp4").touch()
    with av.open(str(DRONE)) as source, av.open(str(tmp_path / "whole.ts"), "w") as remuxed:
        stream = remuxed.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and packet.pts * packet.time_base < 2:
                packet.stream = stream
                remuxed.mux(packet)
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    inputs = [tmp_path / name for name in ("text.mp4", "empty.mp4", "cut.mp4", "whole.ts", "missing.mp4")]
    result = dasnet_in_process("replay", *inputs, "--out", tmp_path / "out", "--end", "30", "--no-video")
    assert result.returncode == 1
    for name in ("text.mp4", "empty.mp4", "cut.mp4", "missing.mp4"):
        assert name in result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads((tmp_path / "out" / "whole" / "summary.json").read_text())["frames"] == 30


def test_wrong_usage_is_explained(tmp_path: Path):
    cases: list[tuple[list[str | Path], int, str]] = [
        (["replay", DRONE, "--out", tmp_path, "--end", "3", "--start", "5"], 2, "--end 3 is not after --start 5"),
        (["replay", DRONE, "--out", tmp_path, "--checkpoint", "none.pth"], 2, "none.pth: no such file"),
        (
            ["replay", DRONE, "--out", tmp_path, "--band", "radar"],
            2,
            "band 'radar': must be one of auto, visible",
        ),
        (["replay", DRONE, "--out", tmp_path, "--engine", "warp"], 2, "engine 'warp'; must be one of auto"),
        (["replay", DRONE, "--out", tmp_path, "--from-detections"], 1, "detections.jsonl"),
        (["replay", DRONE, "--out", tmp_path, "--stream", "4"], 1, "stream 4: must be one of 0 (h264, 320x256)"),
        (["replay", DRONE, "--out", tmp_path, "--start-time", "2026-05-04 05:02"], 2, "must be an ISO 8601 time with"),
        (["replay", "--out", tmp_path], 2, "PATH"),
    ]
    for arguments, code, text in cases:
        result = dasnet_in_process(*arguments)
        assert (result.returncode, text in result.stderr) == (code, True), (arguments, result.stderr)
