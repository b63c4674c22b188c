"""Videos as phones, drones, recorders and cutting programs write them: they are read as players show them."""

import os
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray
from structlog.testing import capture_logs
from support import data_sets

from pipeline.capture.decoding import VideoPacket
from pipeline.capture.images import ImageSequence, frame_numbers
from pipeline.capture.open import DecodedFrame, open_source
from pipeline.capture.recordings import frame_count, open_recording, source_names
from pipeline.capture.video_file import VideoFile
from pipeline.config.camera import Camera
from pipeline.errors import SourceError
from training.datasets import Clip, open_dataset

FPS = 30
FRAMES = 30
GOP = 10


def pattern(number: int, size_px: tuple[int, int] = (160, 128)) -> NDArray[np.uint8]:
    """Red at the top left, blue at the top right; green at the bottom, more in each frame."""
    width, height = size_px
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2, 0] = image[: height // 2, width // 2 :, 2] = 250
    image[height // 2 :, :, 1] = 4 * number
    return image


def film(
    out: av.container.OutputContainer, codec: str, size_px: tuple[int, int] = (160, 128), **options: str
) -> VideoStream:
    stream = out.add_stream(codec, rate=FPS, options={"g": str(GOP), "sc_threshold": "0", **options})
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = size_px
    stream.pix_fmt = "yuvj444p" if codec == "mjpeg" else "yuv420p"
    return stream


def encode(path: Path, codec: str = "libx264", turned: tuple[int, bool, bool] | None = None, **options: str) -> Path:
    """`turned`: by so many degrees counter-clockwise, then mirrored from left to right, from top to bottom."""
    with av.open(str(path), "w") as out:
        stream = film(out, codec, (160, 128), **options)
        if turned:
            stream.set_display_rotation(turned[0], hflip=turned[1], vflip=turned[2])
        for number in range(FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(number), "rgb24")))
        out.mux(stream.encode(None))
    return path


def remux(source: Path, path: Path, change: Callable[[int, VideoPacket], VideoPacket | None], **options: str) -> Path:
    """The packets as they are changed, by their number in decoding order; None: left out."""
    with av.open(str(source)) as whole, av.open(str(path), "w", options=options) as out:
        stream = out.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(whole.demux(video=0)):
            if packet.size and (changed := change(number, packet)):
                changed.stream = stream
                out.mux(changed)
    return path


def read(recording: VideoFile | ImageSequence) -> tuple[list[DecodedFrame], str]:
    """All frames, and the message of the error that ended them."""
    frames: list[DecodedFrame] = []
    try:
        frames += recording.frames()
    except SourceError as error:
        return frames, str(error)
    finally:
        recording.close()
    return frames, ""


def camera(uri: str) -> Camera:
    return Camera.model_validate({"id": "north", "uri": uri, "band": "infrared"})


# Rotation


ORIENTATIONS = [(degrees, hflip, False) for degrees in (0, 90, 180, -90) for hflip in (False, True)] + [
    (0, False, True)
]


@pytest.mark.parametrize("turned", ORIENTATIONS)
def test_a_video_is_turned_as_its_display_matrix_says(tmp_path: Path, turned: tuple[int, bool, bool]) -> None:
    path = encode(tmp_path / "phone.mp4", turned=turned)
    stored = read(open_recording(encode(tmp_path / "stored.mp4")))[0][9].pixels
    degrees, hflip, vflip = turned
    shown = np.rot90(stored, degrees // 90)
    shown = shown[:: -1 if vflip else 1, :: -1 if hflip else 1]
    assert np.array_equal(read(open_recording(path))[0][9].pixels, shown)


def test_cameras_that_play_it_and_training_turn_it_too(tmp_path: Path) -> None:
    data_sets.anti_uav(tmp_path / "data")
    (video,) = (tmp_path / "data").rglob("infrared.mp4")
    turned = encode(video, turned=(-90, False, False))
    (clip,) = [clip for clip in open_dataset(tmp_path / "data") if isinstance(clip, Clip) and clip.path == turned]
    assert (clip.width_px, clip.height_px) == (128, 160)
    learned = next(clip.read([0])).image
    played = next(open_source(camera(f"demo:clips/{turned}")).frames()).pixels
    replayed = next(open_source(camera(f"file:{turned}")).frames()).pixels
    assert learned.shape == (160, 128, 3)
    assert np.array_equal(learned, replayed) and np.array_equal(learned, played)


# Streams


def with_cover(path: Path, *, is_marked: bool = False) -> Path:
    """A cover, larger than the film and before it."""
    with av.open(str(path), "w") as out:
        cover, main = film(out, "mjpeg", (640, 480)), film(out, "libx264")
        if is_marked:
            cover.disposition = Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(pattern(63, (640, 480)), "rgb24")
        out.mux(cover.encode(frame) + cover.encode(None))
        for number in range(FRAMES):
            out.mux(main.encode(av.VideoFrame.from_ndarray(pattern(number), "rgb24")))
        out.mux(main.encode(None))
    return path


@pytest.mark.parametrize("name", ["film.mp4", "film.mov", "film.mkv", "film.avi", "marked.mkv"])
def test_a_cover_is_not_the_film(tmp_path: Path, name: str) -> None:
    recording = open_recording(with_cover(tmp_path / name, is_marked=name.startswith("marked")))
    assert isinstance(recording, VideoFile)
    assert recording.stream == "1 (h264, 160x128)" and recording.other_streams == ["0 (mjpeg, 640x480)"]
    frames, fault = read(recording)
    assert len(frames) == FRAMES and not fault


def two_cameras(path: Path, default: int | None) -> Path:
    with av.open(str(path), "w") as out:
        streams = [film(out, "libx264", size_px) for size_px in ((160, 128), (320, 256), (64, 48))]
        for index, stream in enumerate(streams):
            stream.disposition = Disposition.default if index == default else Disposition(0)
        for number in range(FRAMES):
            for stream in streams:
                image = pattern(number, (stream.width, stream.height))
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


def test_of_several_streams_the_default_one_is_read_then_the_largest_or_the_one_asked_for(tmp_path: Path) -> None:
    largest, default = (two_cameras(tmp_path / f"{name}.mkv", name) for name in (None, 0))
    for path, stream, width_px in ((largest, None, 320), (default, None, 160), (largest, 2, 64), (default, 1, 320)):
        recording = open_recording(path, stream=stream)
        assert next(iter(recording.frames())).pixels.shape[1] == width_px
        recording.close()
    with pytest.raises(SourceError) as caught:
        open_recording(largest, stream=3)
    assert str(caught.value) == (
        f"{largest}: stream 3: must be one of 0 (h264, 160x128), 1 (h264, 320x256), 2 (h264, 64x48)"
    )


def test_an_address_says_which_stream_and_the_log_names_the_others(tmp_path: Path) -> None:
    path = two_cameras(tmp_path / "drone.mkv", None)
    for uri in (f"file:{path}", f"demo:clips/{path}", f"demo:clips/{tmp_path}?first=drone", f"file:{tmp_path}"):
        for query, width_px in (("", 320), ("&stream=2" if "?" in uri else "?stream=2", 64)):
            source = open_source(camera(uri + query))
            assert next(iter(source.frames())).pixels.shape[1] == width_px, uri + query
            source.close()
    with capture_logs() as logs:
        open_source(camera(f"file:{path}?stream=2")).close()
    assert [(line["stream"], line["others"]) for line in logs] == [
        ("2 (h264, 64x48)", "0 (h264, 160x128), 1 (h264, 320x256)")
    ]
    asked = tmp_path / "what?stream=2"
    asked.write_bytes(path.read_bytes())
    assert next(open_source(camera(f"file:{asked}")).frames()).pixels.shape[1] == 320


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the folder over HTTP."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_live_camera_is_read_in_the_same_way(tmp_path: Path, served: str) -> None:
    two_cameras(tmp_path / "two.mkv", None)
    remux(encode(tmp_path / "stored.mp4", turned=(90, False, True)), tmp_path / "turned.mp4", lambda _, packet: packet,
          movflags="faststart")  # fmt: skip
    for path, size_px in (
        ("turned.mp4", (160, 128)),
        ("two.mkv", (256, 320)),
        ("two.mkv?stream=2", (48, 64)),
        ("two.mkv?stream=7", (256, 320)),  # means something to the camera alone
    ):
        source = open_source(camera(f"{served}/{path}"))
        assert source.live and next(iter(source.frames())).pixels.shape[:2] == size_px, path
        source.close()


# Times


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])
def test_null_frames_of_avi_take_their_time(tmp_path: Path, codec: str) -> None:
    """The writer puts one wherever a time stamp is missing."""
    kept = [0, 1, 2, 7, 8, 20, 29]
    whole = encode(tmp_path / "whole.mkv", codec, g="1", bf="0")
    path = remux(whole, tmp_path / "drops.avi", lambda number, packet: packet if number in kept else None)
    frames, fault = read(open_recording(path))
    assert not fault and frame_count(path) == len(kept)
    assert [frame.pts_s for frame in frames] == pytest.approx([number / FPS for number in kept], abs=0.001)
    assert [frame.number for frame in frames] == list(range(len(kept)))


def test_avi_with_reordered_frames(tmp_path: Path) -> None:
    frames, fault = read(open_recording(encode(tmp_path / "film.avi", bf="2")))
    assert not fault
    assert [frame.pts_s for frame in frames] == pytest.approx([number / FPS for number in range(FRAMES)])
    greens = [int(frame.pixels[100, 80, 1]) for frame in frames]
    assert greens == sorted(greens)


@pytest.mark.parametrize("offset_s", [3, 95_443])
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts", "webm"])
def test_times_that_do_not_begin_at_zero(tmp_path: Path, suffix: str, offset_s: int) -> None:
    def moved(_: int, packet: VideoPacket) -> VideoPacket:
        assert packet.time_base is not None and packet.pts is not None
        offset = round(offset_s / packet.time_base)
        packet.pts, packet.dts = packet.pts + offset, None if packet.dts is None else packet.dts + offset
        return packet

    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    path = remux(encode(tmp_path / f"whole.{suffix}", codec, bf="0"), tmp_path / f"late.{suffix}", moved)
    frames, fault = read(open_recording(path))
    assert not fault and len(frames) == FRAMES
    assert frames[-1].pts_s == pytest.approx((FRAMES - 1) / FPS, abs=0.001) and frames[0].pts_s == 0


def test_a_last_frame_that_stays_for_long_is_no_shortfall(tmp_path: Path) -> None:
    def stays(number: int, packet: VideoPacket) -> VideoPacket:
        assert packet.time_base is not None
        packet.duration = round(5 / packet.time_base) if number == FRAMES - 1 else packet.duration
        return packet

    path = remux(encode(tmp_path / "whole.mp4", bf="0"), tmp_path / "long.mp4", stays)
    frames, fault = read(open_recording(path))
    assert len(frames) == FRAMES and not fault
    with av.open(str(path)) as container:
        assert container.duration is not None and container.duration > 5_000_000


def test_a_transport_stream_whose_clock_wraps_or_is_set_back(tmp_path: Path) -> None:
    def before_wrap(_: int, packet: VideoPacket) -> VideoPacket:
        assert packet.pts is not None and packet.dts is not None
        packet.pts, packet.dts = packet.pts + 2**33 - 45_000, packet.dts + 2**33 - 45_000
        return packet

    whole = encode(tmp_path / "whole.ts", bf="2")
    wrapping = remux(whole, tmp_path / "wrap.ts", before_wrap)
    twice = tmp_path / "twice.ts"
    twice.write_bytes(2 * whole.read_bytes())
    for path, count in ((wrapping, FRAMES), (twice, 2 * FRAMES)):
        frames, fault = read(open_recording(path))
        assert not fault and [frame.number for frame in frames] == list(range(count))
        assert [frame.pts_s for frame in frames] == pytest.approx([n / FPS for n in range(count)], abs=0.001)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "webm"])
def test_a_variable_frame_rate(tmp_path: Path, suffix: str) -> None:
    times_ms = np.cumsum([0, *np.random.default_rng(1).choice([10, 33, 100, 700], FRAMES - 1)]).tolist()
    with av.open(str(tmp_path / f"film.{suffix}"), "w") as out:
        stream = film(out, "libvpx-vp9" if suffix == "webm" else "libx264")
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(pattern(number), "rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    frames, fault = read(open_recording(tmp_path / f"film.{suffix}"))
    assert not fault
    assert [frame.pts_s for frame in frames] == pytest.approx([ms / 1e3 for ms in times_ms], abs=0.001)


# What cannot be decoded


def broken(source: Path, path: Path, *numbers: int) -> Path:
    """With random bytes in the packets of those numbers."""

    def spoilt(number: int, packet: VideoPacket) -> VideoPacket:
        if number not in numbers:
            return packet
        noise = cast("VideoPacket", av.Packet(np.random.default_rng(number).bytes(packet.size)))
        noise.pts, noise.dts, noise.time_base = packet.pts, packet.dts, packet.time_base
        noise.duration, noise.is_keyframe = packet.duration, packet.is_keyframe
        return noise

    return remux(source, path, spoilt)


@pytest.mark.parametrize(
    ("name", "codec", "packet", "lost"),
    [
        ("film.avi", "mjpeg", 0, [0]),
        ("film.avi", "mjpeg", 13, [13]),
        ("film.mkv", "ffv1", 29, [29]),
        ("film.mp4", "libx264", 13, [12]),  # a B-frame that no other needs
        ("film.mp4", "libx264", 0, list(range(GOP))),  # with all that depend on it
    ],
)
def test_a_packet_that_cannot_be_decoded_keeps_its_number_and_time(
    tmp_path: Path, name: str, codec: str, packet: int, lost: list[int]
) -> None:
    options = {"bf": "2", "x264-params": "b-adapt=0:b-pyramid=0"}
    whole = encode(tmp_path / f"whole{Path(name).suffix}", codec, None, **(options if codec == "libx264" else {}))
    recording = open_recording(broken(whole, tmp_path / name, packet))
    frames, fault = read(recording)
    numbers = [number for number in range(FRAMES) if number not in lost]
    assert [frame.number for frame in frames] == numbers
    assert [frame.pts_s for frame in frames] == pytest.approx([n / FPS for n in numbers], abs=0.001)
    assert recording.lost == len(lost) and recording.count == FRAMES
    assert f"has frames that cannot be decoded ({len(lost)}); {len(numbers)} " in fault


def test_a_recording_that_begins_between_keyframes_is_whole(tmp_path: Path) -> None:
    for suffix in ("mkv", "ts"):
        path = encode(tmp_path / f"whole.{suffix}", bf="0")
        cut = remux(path, tmp_path / f"cut.{suffix}", lambda number, packet: packet if number >= 4 else None)
        frames, fault = read(open_recording(cut))
        assert not fault and frames[0].number == 0 and frames[0].pts_s == 0


# Image sequences


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        ("f_0001 f_0002 f_0003 f_0014 f_0015", [0, 1, 2, 13, 14]),
        ("f_0 f_5 f_10 f_25", [0, 1, 2, 5]),  # every fifth was kept
        ("cam2_0007_v3 cam2_0008_v3 cam2_0011_v3", [0, 1, 4]),
        ("100 101 104", [0, 1, 4]),
        ("t_1700000000033 t_1700000000066 t_1700000000100", [0, 1, 2]),  # time stamps
        ("a_1 b_2 c_9", [0, 1, 2]),
        ("1 01 2", [0, 1, 2]),
        ("day1_007 day2_003", [0, 1]),
        ("photo", [0]),
        ("", []),
    ],
)
def test_image_names_number_the_frames(names: str, numbers: list[int]) -> None:
    assert frame_numbers([Path(f"{name}.jpg") for name in names.split()]) == numbers


def test_a_sequence_keeps_its_gaps_and_the_number_of_a_broken_image(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4, 14, 15, 16):
        cv2.imwrite(str(tmp_path / f"f_{number:04}.png"), pattern(number))
    (tmp_path / "f_0002.png").write_text("broken")
    for place in (tmp_path, tmp_path / "f_%04d.png"):
        recording = open_recording(place, fps=FPS)
        frames, fault = read(recording)
        assert [frame.number for frame in frames] == [0, 2, 3, 13, 14, 15]
        assert [frame.pts_s for frame in frames] == [n / FPS for n in (0, 2, 3, 13, 14, 15)]
        assert "f_0002.png; 6 frames were read" in fault
        assert (recording.lost, recording.count, recording.length_s) == (1, 16, 16 / FPS)


# Names and wall-clock times


def test_equally_named_recordings_are_called_by_their_relative_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1/x.mp4", "b/1/x.mp4", "b/y.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths = sorted(tmp_path.rglob("*.mp4"))
    assert source_names(paths, [tmp_path]) == ["a/1/x.mp4", "b/1/x.mp4", "y.mp4"]
    assert source_names(paths, paths) == ["a/1/x.mp4", "b/1/x.mp4", "y.mp4"]
    monkeypatch.chdir(tmp_path)
    relative = [Path(os.path.relpath(path)) for path in paths]
    assert source_names(relative, [Path("a"), Path("b")]) == ["a/1/x.mp4", "b/1/x.mp4", "y.mp4"]
    assert source_names(relative[:1], [relative[0]]) == ["x.mp4"] and source_names([], []) == []


@pytest.mark.parametrize(
    ("suffix", "created", "expected_ns"),
    [
        ("mp4", "2024-05-06T07:08:09.000000Z", 1_714_979_289_000_000_000),
        ("mkv", "2024-05-06T07:08:09.500000Z", 1_714_979_289_500_000_000),
        ("mp4", "1970-01-01T00:00:00.000000Z", None),  # a clock that was never set
        ("mp4", None, None),
    ],
)
def test_a_file_says_when_it_was_made(
    tmp_path: Path, suffix: str, created: str | None, expected_ns: int | None
) -> None:
    path = tmp_path / f"film.{suffix}"
    with av.open(str(path), "w") as out:
        out.metadata.update({"creation_time": created} if created else {})
        stream = film(out, "libx264")
        out.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(0), "rgb24")) + stream.encode(None))
    assert VideoFile(path).created_utc_ns == expected_ns
