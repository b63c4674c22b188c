"""The files of a replay: what is written is read back, by this program and by others."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.metadata import Metadata
from pipeline.errors import DasnetError, SourceError
from pipeline.replay.outputs import (
    DetectionsWriter,
    EventsWriter,
    Header,
    TracksWriter,
    _shortest,
    folder_names,
    read_detections,
    write_summary,
)
from pipeline.replay.summary import ModelSummary, Percentiles, Summary, TrackSummary
from pipeline.replay.track_table import TrackTableWriter
from pipeline.replay.video import VideoWriter
from pipeline.types import Band, Detections, Event, EventKind, FrameRef, Mask, Severity, Track, TrackState

CLASSES = ("uav", "bird", "airplane", "helicopter")
ARRAYS = ("xyxy", "score", "mask_score", "motion_score", "novelty", "class_scores", "area_px", "centroid")


def ref(seq: int) -> FrameRef:
    return FrameRef("north", "0123abcd", seq, seq / 29.97, 10**15 + seq, 1_700_000_000_123_456_789 + seq, None)


def header(**changes: Any) -> Header:
    told: dict[str, Any] = {
        "source": "north.mp4", "camera": "north", "session": "0123abcd", "band": "visible",
        "width": 640, "height": 512, "fps": 29.97,
        "frames": None, "classes": CLASSES, "checkpoint": "ab" * 32, "engine": "torch-cpu", "threshold": 0.35,
    }  # fmt: skip
    return Header(**(told | changes))


def found(seq: int, count: int, rng: np.random.Generator) -> Detections:
    corner = rng.uniform(0, 500, (count, 2)).astype(np.float32)
    return Detections(
        ref(seq),
        Band.VISIBLE,
        (640, 512),
        CLASSES,
        np.hstack([corner, corner + rng.uniform(1, 40, (count, 2)).astype(np.float32)]),
        rng.uniform(0, 1, count).astype(np.float32),
        rng.uniform(0, 1, count).astype(np.float32),
        rng.uniform(0, 9, count).astype(np.float32),
        rng.uniform(0, 2, count).astype(np.float32),
        rng.uniform(0, 1, (count, len(CLASSES))).astype(np.float32) ** 20,  # tiny ones too
        rng.uniform(1, 1e5, count).astype(np.float32),
        corner + np.float32(1 / 3),
        [Mask.pack(i, 2 * i, rng.random((i + 3, 2 * i + 1)) < 0.5) for i in range(count)],
        (640 / 512, 1.1),
        None if seq % 2 else (0.1 + seq, -1 / 3),
    )


def track(number: int, label: str = "uav", state: TrackState = TrackState.CONFIRMED, **changes: Any) -> Track:
    told: dict[str, Any] = {
        "id": number, "ulid": "01HZ", "camera": "north", "session": "0123abcd", "state": state, "label": label,
        "evidence": {label: 1.0}, "xyxy": (10.004, 20.0, 30.5, 44.126), "velocity_px_s": (3.0, 4.0), "score": 0.93456,
        "hits": 9, "first_seen": ref(0), "last_seen": ref(5),
    }  # fmt: skip
    return Track(**(told | changes))


def assert_same(ours: Detections, theirs: Detections) -> None:
    for name in ARRAYS:
        one, other = getattr(ours, name), getattr(theirs, name)
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes(), name
    for name in ("ref", "size_px", "classes", "masks", "mask_scale", "camera_shift_px"):
        assert getattr(ours, name) == getattr(theirs, name), name


# tracks.txt


def test_tracks_are_motchallenge_with_the_sources_frame_numbers(tmp_path: Path) -> None:
    with TracksWriter(tmp_path / "new" / "tracks.txt") as writer:
        states = [state for state in TrackState if state is not TrackState.CONFIRMED]
        silent = [track(9, state=state) for state in states] + [track(8, label="bird")]
        writer.write(ref(41), [track(7, "unknown", xyxy=(-0.001, 0.0, 2.0, 3.0)), track(3), *silent])
        writer.write(ref(44), [])
    text = (tmp_path / "new" / "tracks.txt").read_text()
    assert text == "42,3,10.00,20.00,20.50,24.13,0.9346,-1,-1,-1\n42,7,0.00,0.00,2.00,3.00,0.9346,-1,-1,-1\n"
    rows = np.loadtxt(tmp_path / "new" / "tracks.txt", delimiter=",")
    assert rows.shape == (2, 10)
    assert not list(tmp_path.rglob("*.partial"))


def test_the_table_has_tentative_rows_of_tracks_that_are_confirmed_only(tmp_path: Path) -> None:
    with TrackTableWriter(tmp_path / "tracks.csv") as writer:
        both = [track(2, state=TrackState.TENTATIVE), track(1, state=TrackState.TENTATIVE)]
        writer.write(ref(0), None, both)
        writer.write(ref(1), "2026-05-04T03:02:01.000Z", both)
        writer.write(ref(2), None, [track(2, "bird"), track(1, state=TrackState.LOST)])
        writer.write(ref(3), None, [track(2, "bird", state=TrackState.COASTING)])
        writer.write(ref(4), None, [track(2, state=TrackState.LOST)])
    header, *rows = [line.split(",") for line in (tmp_path / "tracks.csv").read_text().splitlines()]
    assert header == ["frame", "time_s", "time_utc", "id", "label", "x", "y", "w", "h", "score", "state"]
    columns = [[row[0], row[2], row[3], row[4], row[10]] for row in rows]
    assert columns == [
        ["1", "", "2", "uav", "tentative"],
        ["2", "2026-05-04T03:02:01.000Z", "2", "uav", "tentative"],
        ["3", "", "2", "bird", "confirmed"],
        ["4", "", "2", "bird", "coasting"],
    ]


def test_what_was_written_before_an_error_is_kept(tmp_path: Path) -> None:
    lines, detections = tmp_path / "tracks.txt", tmp_path / "detections.jsonl"
    with pytest.raises(SourceError), TracksWriter(lines) as tracks, DetectionsWriter(detections, header()) as writer:
        tracks.write(ref(0), [track(1)])
        writer.write(found(0, 2, np.random.default_rng(0)))
        assert not lines.exists() and (tmp_path / "tracks.txt.partial").exists()
        raise SourceError("the file breaks off here")
    assert lines.read_text().count("\n") == 1
    assert len(list(read_detections(detections)[1])) == 1
    assert not list(tmp_path.glob("*.partial"))


# detections.jsonl


def test_detections_come_back_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    written = [found(seq, count, rng) for seq, count in enumerate((2, 0, 1, 5, 0, 12))]
    told = header(start=30, end=900, stride=2)
    with DetectionsWriter(tmp_path / "detections.jsonl", told) as writer:
        for one in written:
            writer.write(one)
    again, frames = read_detections(tmp_path / "detections.jsonl")
    read = list(frames)
    assert again == told
    assert len(read) == len(written)
    for ours, theirs in zip(written, read, strict=True):
        assert_same(ours, theirs)
        for before, after in zip(ours.masks, theirs.masks, strict=True):
            assert np.array_equal(before.unpack(), after.unpack())


def test_reading_and_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    with DetectionsWriter(first, header()) as writer:
        for seq in range(5):
            writer.write(found(seq, seq, np.random.default_rng(seq)))
    told, frames = read_detections(first)
    with DetectionsWriter(second, told) as writer:
        for one in frames:
            writer.write(one)
    assert first.read_bytes() == second.read_bytes()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_any_float32_survives(bits: list[int]) -> None:
    values = np.frombuffer(struct.pack(f"<{len(bits)}I", *bits), "<f4").astype(np.float32)
    values = values[np.isfinite(values)]
    text = msgspec.json.encode(_shortest(values))
    assert np.array(msgspec.json.decode(text, type=list[float]), np.float32).tobytes() == values.tobytes()


def test_numbers_are_stored_short_and_only_if_finite() -> None:
    assert msgspec.json.encode(_shortest(np.array([0.93, 1e-7], np.float32))) == b"[0.93,1e-7]"
    with pytest.raises(ValueError, match="nan"):
        _shortest(np.array([np.nan], np.float32))


def test_tracking_again_gives_the_same_bytes(tmp_path: Path) -> None:
    stage = pytest.importorskip("pipeline.tracking.stage")

    def follow(frames: Iterator[Detections], folder: Path) -> tuple[bytes, bytes]:
        tracker = stage.TrackStage(Metadata().thresholds)
        with TracksWriter(folder / "tracks.txt") as tracks, EventsWriter(folder / "events.jsonl") as events:
            for detections in frames:
                outcome = tracker.update(detections)
                tracks.write(detections.ref, outcome.tracks)
                for event in outcome.events:
                    events.write(event)
        return (folder / "tracks.txt").read_bytes(), (folder / "events.jsonl").read_bytes()

    rng = np.random.default_rng(3)
    path = tmp_path / "detections.jsonl"

    def flying() -> Iterator[Detections]:
        for seq in range(60):
            at = np.array([[50 + 1.7 * seq, 80 + 0.9 * seq], [500 - 2.3 * seq, 300]]) + rng.normal(0, 0.4, (2, 2))
            box = np.hstack([at - 5, at + 5]).astype(np.float32)
            one = rng.uniform(0.7, 0.95, 2).astype(np.float32)
            scores = np.stack([one, one / 9, one / 11, one / 13], axis=1).astype(np.float32)
            yield Detections(
                ref(seq), Band.VISIBLE, (640, 512), CLASSES, box, one, one, 0 * one, one, scores,
                np.full(2, 80, np.float32), at.astype(np.float32),
                [Mask.pack(int(x), int(y), np.ones((9, 9), bool)) for x, y in at - 4], (1.0, 1.0), (0.0, 0.0),
            )  # fmt: skip

    def recorded() -> Iterator[Detections]:
        with DetectionsWriter(path, header()) as writer:
            for detections in flying():
                writer.write(detections)
                yield detections

    once = follow(recorded(), tmp_path / "live")
    assert once[0].count(b"\n") > 60  # both targets are followed
    assert follow(read_detections(path)[1], tmp_path / "again") == once


def spoilt(path: Path, number: int, change: dict[str, Any]) -> None:
    """Change keys of a line."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = msgspec.json.encode(msgspec.json.decode(lines[number - 1]) | change) + b"\n"
    path.write_bytes(b"".join(lines))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "detections.jsonl"
    with DetectionsWriter(path, header()) as writer:
        for seq in range(4):
            writer.write(found(seq, 2, np.random.default_rng(seq)))
    return path


def test_a_file_that_is_cut_off_names_the_line(stored: Path) -> None:
    stored.write_bytes(stored.read_bytes()[:-9])
    _, frames = read_detections(stored)
    assert [next(frames).ref.seq for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DasnetError, match=r"detections\.jsonl, line 5: .*cut off"):
        next(frames)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "line 1: .*empty"),
        (b"1,1,10,10,5,5,0.9,-1,-1,-1\n", "line 1: "),
        (b'{"a": 1}\n', "line 1: .*version"),
        (b"\x00\x00\x00\x18ftypisom\xff\xfe\n", "line 1: "),
        (b'{"version": 2, "old": []}\n', "line 1: version 2; .* version 3"),
        (b'{"version": 3}\n', "line 1: "),
    ],
)
def test_a_foreign_file_is_refused_at_once(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "detections.jsonl"
    path.write_bytes(content)
    with pytest.raises(DasnetError, match=r"detections\.jsonl, " + text):
        read_detections(path)


def test_a_missing_file_is_an_error_of_its_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read_detections(tmp_path / "detections.jsonl")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"score": [0.5]}, "masks for 1"),
        ({"masks": [], "score": [0.5]}, "xyxy is of shape"),
        ({"xyxy": [[1, 2, 3, 4], [1, 2, 3]]}, "inhomogeneous"),
        ({"class_scores": [[0.5], [0.5]]}, "class_scores is of shape"),
        ({"novelty": [0.5]}, "novelty is of shape"),
        ({"masks": [[0, 0, 9, 9, "AA=="], [0, 0, 2, 2, "AA=="]]}, "bits of a mask"),
        ({"ref": {"seq": 0, "pts_s": 0, "received_mono_ns": 0, "received_utc_ns": 0, "ntp_ns": None}}, "after frame 1"),
        ({"area": "large"}, "area"),
    ],
)
def test_a_line_that_does_not_fit_is_named(stored: Path, change: dict[str, Any], text: str) -> None:
    spoilt(stored, 4, change)
    with pytest.raises(DasnetError, match=f"line 4: .*{text}"):
        list(read_detections(stored)[1])


def test_frames_of_another_session_are_no_part_of_the_file(tmp_path: Path) -> None:
    with DetectionsWriter(tmp_path / "detections.jsonl", header(session="other")) as writer, pytest.raises(ValueError):
        writer.write(found(0, 0, np.random.default_rng(0)))


# events.jsonl, summary.json


def test_events_are_one_a_line(tmp_path: Path) -> None:
    event = Event("01HY", EventKind.TRACK_CONFIRMED, Severity.ALARM, "north", 17, 0.5, 15, "0123abcd", track(1))
    with EventsWriter(tmp_path / "events.jsonl") as writer:
        writer.write(event)
        writer.write(event)
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Event) for line in lines] == [event, event]


def test_the_summary_has_the_keys_that_others_rely_on(tmp_path: Path) -> None:
    summary = Summary(
        source="caf\udce9.mp4", frames=305, tracks=1, alerts=1, first_detection_s=None, complete=False,
        latency_ms={"inference": Percentiles.of([1.0, 2.0, 3.0])}, engine="torch-cpu", error="caf\udce9.mp4: cut off",
        model=ModelSummary("das_net", "ab" * 32, CLASSES),
        per_track=(TrackSummary(3, "uav", 4, 99, 0.1, 3.3, 90, 0.9),),
    )  # fmt: skip
    write_summary(tmp_path / "summary.json", summary)
    read = msgspec.json.decode((tmp_path / "summary.json").read_bytes())
    assert read["frames"] == 305 and read["tracks"] == 1 and read["alerts"] == 1
    assert read["first_detection_s"] is None and read["complete"] is False
    assert read["latency_ms"] == {"inference": {"p50": 2.0, "p95": 2.9, "p99": 2.98}}
    assert read["model"]["classes"] == list(CLASSES) and read["error"].endswith("cut off")
    assert read["per_track"][0]["last_frame"] == 99


# annotated.mp4


def picture(width: int, height: int, shade: int) -> NDArray[np.uint8]:
    image = np.full((height, width, 3), (200, 40, 40), np.uint8)
    image[:, : width // 2] = shade
    return image


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("size", [(64, 48), (65, 47), (321, 255)])
def test_the_video_shows_each_picture_at_its_time(tmp_path: Path, size: tuple[int, int]) -> None:
    times_s = [7.0, 7.04, 7.08, 7.5, 7.54]  # one gap: frames were left out
    with VideoWriter(tmp_path / "annotated.mp4", 25) as writer:
        for index, time_s in enumerate(times_s):
            writer.write(picture(*size, 40 * index), time_s)
    frames = decoded(tmp_path / "annotated.mp4")
    assert [frame.time for frame in frames] == pytest.approx([time_s - 7.0 for time_s in times_s], abs=1e-4)
    assert (frames[0].width, frames[0].height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    for index, frame in enumerate(frames):
        pixels = frame.to_ndarray(format="rgb24")
        assert abs(int(pixels[10, 10, 0]) - 40 * index) < 12
        assert np.abs(pixels[-3, -3].astype(int) - (200, 40, 40)).max() < 20
    with av.open(str(tmp_path / "annotated.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.frames == len(times_s)


def test_the_video_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with VideoWriter(tmp_path / f"{name}.mp4", 30) as writer:
            for index in range(20):
                writer.write(picture(64, 48, 5 * index), index / 30)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_video_survives_errors_odd_names_times_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "http:a%03d [x]" / "annotated.mp4"
    with pytest.raises(SourceError), VideoWriter(path, None) as writer:
        writer.write(picture(64, 48, 0), 0.0)
        writer.write(picture(64, 48, 0), 0.0)  # time stands still
        writer.write(picture(128, 96, 0), 0.2)  # the camera changed its mode
        raise SourceError("broken")
    frames = decoded(path)
    assert len(frames) == 3 and frames[2].time == pytest.approx(0.2)
    assert not list(path.parent.glob("*.partial"))


def test_no_picture_makes_no_video_and_removes_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "annotated.mp4").write_bytes(b"of an earlier replay")
    with VideoWriter(tmp_path / "annotated.mp4", 25):
        pass
    assert not list(tmp_path.iterdir())


# names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.mp4", "b/y.mkv"], ["x", "y"]),
        (["a/x.mp4", "b/x.mp4", "c/x.avi"], ["x", "x-2", "x-3"]),
        (["a/x.mp4", "b/x.mp4", "x-2.mp4"], ["x", "x-3", "x-2"]),
        (["x-2.mp4", "x.mp4", "x.mkv", "b/x-2.mp4"], ["x-2", "x", "x-3", "x-2-2"]),
        (["X.mp4", "x.mp4"], ["X", "x-2"]),
        (["report.html.mp4"], ["report.html-2"]),
        (["/", "caf\udce9.mp4"], ["input", "caf\ufffd\ufffd\ufffd"]),
    ],
)
def test_equal_stems_get_numbers(paths: list[str], names: list[str]) -> None:
    assert folder_names(paths) == names
    assert len(set(names)) == len(paths)


def test_a_folder_without_a_name_of_its_own_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frames").mkdir()
    monkeypatch.chdir(tmp_path / "frames")
    assert folder_names([".", ".."]) == ["frames", tmp_path.stem]
