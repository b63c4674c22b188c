"""Sources against real files and a real RTSP server: every frame of a recording, and every way to lose a camera."""

import gzip
import json
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray
from support.rtsp import RtspCameras

from pipeline.capture.decoding import pixels
from pipeline.capture.open import DecodedFrame, Source, find_recordings, frame_count, open_recording, open_source
from pipeline.capture.source import Receipt
from pipeline.capture.video_file import VideoFile
from pipeline.config.camera import Camera
from pipeline.errors import CredentialsError, SourceError

CLIPS = Path(__file__).parents[2] / "data" / "clips"
CLIP = CLIPS / "IR_BIRD_003.mp4"
CLIP_FRAMES = 300
FPS = 30
SECRET = "s3cret/pass word"


def gradient(index: int, size_px: tuple[int, int] = (160, 128)) -> NDArray[np.uint8]:
    """RGB: red falls off to the right, and green is the frame's number."""
    width, height = size_px
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(255, 0, width, dtype=np.uint8)
    image[..., 1] = 2 * index % 256
    return image


def encode(
    path: Path,
    count: int,
    size_px: tuple[int, int] = (160, 128),
    codec: str = "libx264",
    layout: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """`count` frames at 30 a second, a keyframe every half second, no B-frames."""
    with av.open(str(path), "w", options=options or {}) as out:
        stream = out.add_stream(codec, rate=FPS, options={"g": "15", "bf": "0", "sc_threshold": "0"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size_px
        stream.pix_fmt = layout
        for index in range(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(gradient(index, size_px), "rgb24")))
        out.mux(stream.encode(None))
    return path


def camera(uri: str, transport: str = "tcp", band: str = "infrared") -> Camera:
    return Camera.model_validate({"id": "north", "uri": uri, "transport": transport, "band": band})


def read(source: Source) -> tuple[list[DecodedFrame], str]:
    """All frames, and the message of the error that ended them."""
    frames: list[DecodedFrame] = []
    try:
        for frame in source.frames():
            frames.append(frame)
    except SourceError as error:
        return frames, str(error)
    finally:
        source.close()
    return frames, ""


def rises(times: Sequence[float]) -> bool:
    return all(earlier < later for earlier, later in pairwise(times))


def test_a_camera_costs_neither_torch_nor_zmq() -> None:
    code = "import sys, pipeline.capture.open; assert not {'torch', 'zmq', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
    code = "import sys, pipeline.capture.worker; assert not {'torch', 'cv2', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


# Recordings.


def test_every_frame_of_a_clip_with_its_exact_time() -> None:
    source = open_recording(CLIP)
    frames, fault = read(source)
    assert not fault
    assert (source.live, source.fps) == (False, 30.0)
    assert [frame.pts_s for frame in frames] == [float(Fraction(index, 30)) for index in range(CLIP_FRAMES)]
    assert {frame.pixels.shape for frame in frames} == {(256, 320)}
    assert all(frame.decode_ns > 0 and frame.ntp_ns is None for frame in frames)
    assert frame_count(CLIP) == CLIP_FRAMES


def test_the_shipped_clips_are_the_labelled_ones() -> None:
    labels = json.loads(gzip.decompress((CLIPS.parent / "labels.json.gz").read_bytes()))
    assert sorted(labels) == [path.stem for path in find_recordings(CLIPS)]
    assert len(labels[CLIP.stem]["frames"]) == CLIP_FRAMES


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv", "video.avi", "video.ts", "video.h264"])
def test_containers_with_and_without_times(tmp_path: Path, name: str) -> None:
    source = open_recording(encode(tmp_path / name, 20))
    frames, fault = read(source)
    assert not fault
    assert source.fps == FPS
    assert [frame.pts_s for frame in frames] == pytest.approx([index / FPS for index in range(20)], abs=0.001)


def test_colours_are_rgb_and_grey_stays_grey(tmp_path: Path) -> None:
    colour, _ = read(open_recording(encode(tmp_path / "colour.mp4", 3)))
    red, green, blue = colour[2].pixels[64, 8].astype(int)
    assert red > 200 and green < 60 and blue < 60
    assert colour[2].pixels.flags.c_contiguous
    grey, _ = read(open_recording(encode(tmp_path / "grey.mkv", 3, (150, 128), codec="ffv1", layout="gray")))
    assert grey[0].pixels.shape == (128, 150)
    assert grey[0].pixels.flags.c_contiguous


def test_a_rate_that_is_given_replaces_the_times(tmp_path: Path) -> None:
    source = open_recording(encode(tmp_path / "video.mp4", 5), fps=10)
    frames, _ = read(source)
    assert source.fps == 10
    assert [frame.pts_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_the_frame_may_change_its_size(tmp_path: Path) -> None:
    small, large = encode(tmp_path / "1.h264", 5), encode(tmp_path / "2.h264", 5, (320, 256))
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames, fault = read(open_recording(both))
    assert not fault
    assert [frame.pixels.shape[1] for frame in frames] == [160] * 5 + [320] * 5


def test_a_truncated_file_gives_what_it_has(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", 60, options={"movflags": "faststart"}).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 8 // 10])
    frames, fault = read(open_recording(cut))
    assert 5 < len(frames) < 60
    assert fault == f"{cut}: is cut off; {len(frames)} of 60 frames were read"
    cut.write_bytes(CLIP.read_bytes()[:15_000])  # this one's index is at its end
    with pytest.raises(SourceError, match=r"cut\.mp4: cannot be read as a video .*expected one of \.mp4"):
        open_recording(cut)


def test_a_recording_that_stops_before_its_stated_end(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", 120).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) // 2])
    frames, fault = read(open_recording(cut))
    assert frames
    assert f"{cut}: ends at " in fault and f"s of 4.0 s; {len(frames)} frames were read" in fault


def test_a_damaged_file_is_read_to_its_end(tmp_path: Path) -> None:
    damaged = bytearray(encode(tmp_path / "whole.mp4", 60).read_bytes())
    damaged[2500:2600] = bytes(range(100))
    path = tmp_path / "damaged.mp4"
    path.write_bytes(damaged)
    frames, fault = read(open_recording(path))
    assert frames[-1].pts_s == pytest.approx(59 / FPS)
    assert str(path) in fault and "frames were read" in fault


@pytest.mark.parametrize("name", ["text.mp4", "text.txt"])
def test_text_is_no_video(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("a drone\n" * 500)
    with pytest.raises(SourceError, match=f"{name}: .*expected "):
        open_recording(path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for place in (tmp_path / "none.mp4", tmp_path / "none", tmp_path / "none_%05d.png", tmp_path):
        with pytest.raises(SourceError) as caught:
            find_recordings(place)
        assert str(place) in str(caught.value) and "expected a video (.mp4" in str(caught.value)
        with pytest.raises(SourceError, match="expected "):
            open_recording(place)


def test_recordings_are_found(tmp_path: Path) -> None:
    assert find_recordings(CLIP) == [CLIP]
    for name in ("b/clip10.mp4", "b/clip9.MKV", "a/clip.avi", "b/notes.txt", "b/.hidden.mp4", "b/thumbnail.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_recordings(tmp_path) == [tmp_path / name for name in ("a/clip.avi", "b/clip9.MKV", "b/clip10.mp4")]


def test_images_are_one_recording(tmp_path: Path) -> None:
    for index in (9, 10, 11):
        cv2.imwrite(str(tmp_path / f"frame_{index}.png"), cv2.cvtColor(gradient(index), cv2.COLOR_RGB2BGR))
    assert find_recordings(tmp_path) == [tmp_path]
    assert find_recordings(tmp_path / "frame_%d.png") == [tmp_path / "frame_%d.png"]
    for place in (tmp_path, tmp_path / "frame_%d.png"):
        frames, fault = read(open_recording(place, fps=10))
        assert not fault
        assert [frame.pts_s for frame in frames] == [0, 0.1, 0.2]
        assert [int(frame.pixels[0, 0, 1]) for frame in frames] == [18, 20, 22]
        assert frames[0].pixels[0, 0, 0] == 255
        assert frame_count(place) == 3


@pytest.mark.parametrize("suffix", [".avi", ".mjpeg"])
def test_a_recording_that_declares_huge_frames_is_refused_for_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"huge{suffix}"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p"
        for number in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(gradient(number, (160, 120)), "rgb24")))
        out.mux(stream.encode(None))
    content = path.read_bytes().replace(struct.pack(">HH", 120, 160), struct.pack(">HH", 12_000, 16_000))
    path.write_bytes(content.replace(struct.pack("<II", 160, 120), struct.pack("<II", 16_000, 12_000)))
    with pytest.raises(SourceError, match=rf"huge{suffix}: .*declares 16000x12000 px; must be at most 67,108,864 px"):
        list(open_recording(path).frames())


def test_images_grey_and_broken(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), gradient(1)[..., 0])
    (tmp_path / "2.png").write_text("not an image")
    (tmp_path / "3.png").touch()
    cv2.imwrite(str(tmp_path / "4.png"), gradient(1))
    frames, fault = read(open_recording(tmp_path))
    assert [frame.pixels.ndim for frame in frames] == [2, 3]
    assert [frame.pts_s for frame in frames] == [0, 3 / 25]
    assert fault is not None
    assert fault.startswith(f"{tmp_path}: not images: 2.png, 3.png; 2 frames were read (2.png is broken or no image; ")


def test_the_pages_of_a_tiff_are_frames(tmp_path: Path) -> None:
    """Thermal counts of 14 bits, as recorders write them; the page before a cut is kept."""
    pages = [np.full((64, 80), 8000, np.uint16) + 100 * n for n in range(5)]
    for number, page in enumerate(pages):
        page[10 * number : 10 * number + 5] += 2000  # a hot bar that moves down
    assert cv2.imwritemulti(str(tmp_path / "thermal.tiff"), pages)
    assert frame_count(tmp_path / "thermal.tiff") == 5
    read = list(open_recording(tmp_path / "thermal.tiff").frames())
    assert [frame.pts_s for frame in read] == pytest.approx([n / 25 for n in range(5)])
    for number, frame in enumerate(read):
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels[10 * number : 10 * number + 5].min() > frame.pixels[55:].max()
    whole = (tmp_path / "thermal.tiff").read_bytes()
    (tmp_path / "cut.tiff").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cut.tiff: not images: cut.tiff page \d; [1-4] frames were read"):
        list(open_recording(tmp_path / "cut.tiff").frames())


def test_a_folder_as_a_camera_is_read_clip_after_clip(tmp_path: Path) -> None:
    for name in ("1.mp4", "2.mp4"):
        encode(tmp_path / name, 10)
    source = open_source(camera(f"file:{tmp_path}"))
    frames, fault = read(source)
    assert not source.live and not fault
    assert [frame.pts_s for frame in frames] == pytest.approx([index / FPS for index in range(20)])
    (tmp_path / "1.mp4").write_text("broken")
    with pytest.raises(SourceError, match=r"1\.mp4"):
        open_source(camera(f"file:{tmp_path}"))


def test_a_broken_clip_in_a_folder_does_not_hide_the_next(tmp_path: Path) -> None:
    encode(tmp_path / "1.mp4", 10)
    (tmp_path / "2.mp4").write_text("broken")
    encode(tmp_path / "3.mp4", 10)
    frames, fault = read(open_source(camera(f"file:{tmp_path}")))
    assert len(frames) == 20 and rises([frame.pts_s for frame in frames])
    assert "2.mp4" in fault


# Pretended cameras.


def take(source: Source, count: int) -> tuple[list[DecodedFrame], float]:
    """The first frames, and the seconds from the first to the last."""
    frames: list[DecodedFrame] = []
    started_s = 0.0
    for frame in source.frames():
        started_s = started_s or time.monotonic()
        frames.append(frame)
        if len(frames) == count:
            break
    return frames, time.monotonic() - started_s


def test_clips_are_paced_and_looped(tmp_path: Path) -> None:
    for name in ("1.mp4", "2.mp4"):
        encode(tmp_path / name, 10)
    source = open_source(camera(f"demo:clips/{tmp_path}"))
    started_ns = time.monotonic_ns()
    frames, elapsed_s = take(source, 46)  # more than two rounds
    source.close()
    assert source.live and source.fps == FPS
    assert elapsed_s == pytest.approx(45 / FPS, rel=0.1)
    times = [frame.pts_s for frame in frames]
    assert rises(times)
    assert times[0] == 0 and times[-1] >= 45 / FPS - 1e-6
    assert all(abs(pts_s * FPS - round(pts_s * FPS)) < 1e-6 for pts_s in times)  # no gap at a seam
    for frame in frames:  # received when due
        assert frame.received_mono_ns - started_ns == pytest.approx(frame.pts_s * 1e9, abs=0.1e9)
        assert abs(frame.received_utc_ns - time.time_ns()) < 60e9


def test_clips_skip_forward_when_the_reader_is_late(tmp_path: Path) -> None:
    source = open_source(camera(f"demo:clips/{encode(tmp_path / '1.mp4', 30)}"))
    frames = source.frames()
    next(frames)
    threading.Event().wait(0.5)  # this reader is busy
    late = next(frames)
    assert late.pts_s > 0.4
    assert time.monotonic_ns() - late.received_mono_ns < 0.2e9
    source.close()
    assert next(frames, None) is None


def test_a_reader_that_cannot_even_decode_in_time_goes_on_at_a_keyframe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.capture.video_file.CATCH_UP_S", 0.0)
    video = VideoFile(encode(tmp_path / "1.mp4", 45), low_delay=True)
    frames = list(video.paced(lambda pts_s: Receipt.now() if pts_s > 20 / FPS else None))
    video.close()
    assert [round(frame.pts_s * FPS) for frame in frames] == list(range(30, 45))


def test_a_scene_is_paced() -> None:
    source = open_source(camera("demo:scene?seed=3&fps=10", band="visible"))
    frames, elapsed_s = take(source, 6)
    source.close()
    assert source.live and source.fps == 10
    assert elapsed_s == pytest.approx(frames[-1].pts_s, abs=0.1)
    assert {frame.pixels.shape for frame in frames} == {(512, 640, 3)}
    assert rises([frame.pts_s for frame in frames])


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("demo:scene?first=x", "unknown parameter 'first'; must be one of seed, fps, look"),
        ("demo:scene?fps=0", "must be seed >= 0, 0 < fps"),
        ("demo:scene?look=red", "infrared_white_hot"),
        ("demo:film", "unknown demo 'film'; must be one of demo:scene"),
        ("demo:clips/nowhere", "nowhere: does not exist"),
        ("file:nowhere", "nowhere: does not exist"),
        ("v4l2:/dev/video_none", "there is no device /dev/video_none; devices found: "),
    ],
)
def test_a_wrong_address_says_what_is_allowed(uri: str, text: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(camera(uri))
    assert text in str(caught.value)


# Cameras.


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtspCameras]:
    clip = encode(tmp_path_factory.mktemp("rtsp") / "clip.mp4", 60)
    settings: dict[str, str | int] = {"file": str(clip), "fps": FPS, "user": "viewer", "password": SECRET}
    names = {"tcp": "tcp", "udp": "udp", "lost_tcp": "tcp", "lost_udp": "udp", "frozen": "any"}
    with RtspCameras({name: settings | {"transport": transport} for name, transport in names.items()}) as served:
        yield served


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera(cameras: RtspCameras, transport: str) -> None:
    started_s = time.monotonic()
    source = open_source(camera(cameras.uri(transport), transport))
    frames: list[DecodedFrame] = []
    first_after_s = 0.0
    for frame in source.frames():
        first_after_s = first_after_s or time.monotonic() - started_s
        frames.append(frame)
        if len(frames) >= 20 and (frame.ntp_ns or frame.pts_s > 10):  # its first report comes after 1 to 5 s
            break
    source.close()
    assert first_after_s < 1.5  # a keyframe comes every half second
    assert source.live and source.fps == FPS
    assert frames[0].pts_s == 0
    assert np.diff([frame.pts_s for frame in frames]) == pytest.approx(1 / FPS, abs=0.002)
    assert rises([frame.received_mono_ns for frame in frames])
    camera_utc_ns = frames[-1].ntp_ns
    assert camera_utc_ns is not None and abs(camera_utc_ns - frames[-1].received_utc_ns) < 1e9
    assert frames[0].pixels.shape == (128, 160, 3)
    assert np.median([frame.decode_ns for frame in frames]) < 20e6


def test_a_wrong_password_is_refused_and_never_shown(cameras: RtspCameras, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CredentialsError) as caught:
        open_source(camera(cameras.uri("tcp", password="wr0ng")))
    assert str(caught.value) == (
        f"camera north at 127.0.0.1:{cameras.ports['tcp']}: the camera refuses the user or the password"
    )
    assert caught.value.__cause__ is None and caught.value.__context__ is None  # FFmpeg's own holds the address
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("uri", "transport", "text"),
    [
        ("rtsp://viewer:wr0ng@127.0.0.1:1/stream", "tcp", "camera north at 127.0.0.1:1: cannot be opened (Connection"),
        ("rtsp://viewer:wr%2F0ng@127.0.0.1:1/stream", "tcp", "camera north at 127.0.0.1:1: cannot be opened"),
        ("{tcp}?token=wr0ng", "udp", "does not offer transport 'udp'; must be 'tcp'"),
        ("{tcp}/wr0ng", "tcp", "cannot be opened (Server returned 404 Not Found)"),
    ],
)
def test_a_camera_that_cannot_be_opened(cameras: RtspCameras, uri: str, transport: str, text: str) -> None:
    started_s = time.monotonic()
    with pytest.raises(SourceError) as caught:
        open_source(camera(uri.format(tcp=cameras.uri("tcp")), transport))
    assert time.monotonic() - started_s < 2
    assert text in str(caught.value)
    for secret in ("wr0ng", "0ng", SECRET, "viewer"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_that_goes_down_and_comes_back(cameras: RtspCameras, transport: str) -> None:
    name = f"lost_{transport}"
    source = open_source(camera(cameras.uri(name), transport))
    frames = source.frames()
    next(frames)
    cameras.command(f"down {name}")
    started_s = time.monotonic()
    with pytest.raises(SourceError, match=r"the camera closed the stream|no data"):
        for _ in frames:
            pass
    assert time.monotonic() - started_s < 5
    source.close()
    with pytest.raises(SourceError, match="cannot be opened"):
        open_source(camera(cameras.uri(name), transport))
    cameras.command(f"up {name}")
    again = open_source(camera(cameras.uri(name), transport))
    assert next(again.frames()).pts_s == 0
    again.close()


def test_a_camera_that_freezes(cameras: RtspCameras) -> None:
    """It is noticed; and another thread may close a source that waits for data."""
    waiting, closed = (open_source(camera(cameras.uri("frozen"))) for _ in range(2))
    ended: list[str] = []
    seen = threading.Event()

    def read_until_closed() -> None:
        for _ in closed.frames():
            seen.set()
        ended.append("quietly")

    reader = threading.Thread(target=read_until_closed)
    reader.start()
    frames = waiting.frames()
    next(frames)
    assert seen.wait(5)
    cameras.command("freeze frozen")
    started_s = time.monotonic()
    closer = threading.Thread(target=closed.close)
    closer.start()
    with pytest.raises(SourceError, match="no data for 4 s"):
        for _ in frames:
            pass
    assert time.monotonic() - started_s < 6
    waiting.close()
    reader.join(6)
    closer.join(6)
    assert ended == ["quietly"] and not closer.is_alive()


@pytest.mark.parametrize("layout", ["yuv420p", "yuvj422p", "yuv444p"])
def test_frames_without_colours_are_grey_as_their_colours_would_be(layout: str):
    grey = np.tile(np.arange(16, 236, dtype=np.uint8), (64, 1))
    made = av.VideoFrame.from_ndarray(np.dstack([grey] * 3), "rgb24").reformat(format=layout)
    as_rgb = made.reformat(format="rgb24").to_ndarray().astype(int)
    shown = pixels(made)
    assert shown.shape == grey.shape and np.abs(shown[..., None] - as_rgb).max() <= 3, "rounded to other sides"
    chroma = bytearray(memoryview(made.planes[1]))
    chroma[0] = 120  # one pixel of colour
    made.planes[1].update(bytes(chroma))
    assert pixels(made).shape == (*grey.shape, 3)
