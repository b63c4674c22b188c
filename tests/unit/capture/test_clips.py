"""Clips: what sources' packets become on the disk, and what happens where the disk, the codec or the time is short."""

import threading
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import zmq
from prometheus_client import CollectorRegistry, Counter
from support.clips import (
    FPS,
    MJPEG,
    SIZE_PX,
    clip_packets,
    decoded,
    images,
    jpegs,
    nal_units,
    packet,
    until_clip,
    video,
)
from support.disks import fill, needs_mount, remount, small_disk
from support.events import until

from pipeline.capture.clip_recorder import MAX_CLIPS, ClipRecorder
from pipeline.capture.clip_recovery import complete_bytes, recover
from pipeline.capture.open import open_recording
from pipeline.capture.packet_ring import PacketRing
from pipeline.capture.source import CodedPacket, CodedStream
from pipeline.config.models import RecordingConfig
from pipeline.store.clips import partial, record_path, video_path
from pipeline.store.metrics import ClipMetrics
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import connected
from pipeline.transport.wire import ClipRequest, encode

SESSION = "s1"
JPEGS = jpegs(200)


class Site:
    """A recorder with a ring that the test fills."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.folder = folder
        self.ring = PacketRing(60, 10**7)
        self.registry = CollectorRegistry()
        self.metrics = ClipMetrics("cam", self.registry)
        self.rejected = Counter("rejected", "", registry=self.registry)
        self.settings = RecordingConfig.model_validate({"pre_s": 1, "post_s": 0.2} | settings)
        self._number = 0
        self._thread: ClipRecorder | None = None

    def start(self) -> None:
        self._socket = connected(zmq.PUSH, "ipc://clips-cam.sock", 64, patient=True)
        rejects = RejectLog("clips", self.rejected)
        self._thread = ClipRecorder("cam", SESSION, self.settings, self.folder, self.ring, self.metrics, rejects)
        self._thread.__enter__()

    def stop(self) -> None:
        if self._thread is not None:
            self._thread.__exit__()
            self._thread = None
            self._socket.close()

    def feed(self, frames: int, stream: CodedStream = MJPEG) -> None:
        for _ in range(frames):
            self.ring.append(packet(self._number, JPEGS[self._number % len(JPEGS)], stream=stream))
            self.ring.locate(self._number / FPS, self._number / FPS)
            self._number += 1

    def request(self, alert: str, first: int, end: int | None = None, session: str = SESSION) -> None:
        end_pts_s = None if end is None else end / FPS
        self._socket.send_multipart(encode(ClipRequest("cam", session, alert, first / FPS, end_pts_s)))

    def value(self, name: str, cause: str | None = None) -> int:
        labels = {"camera": "cam"} | ({"cause": cause} if cause else {})
        return int(self.registry.get_sample_value(f"dasnet_clips_{name}_total", labels) or 0)

    def wait_for_loss(self, cause: str, count: int = 1) -> None:
        until(lambda: self.value("lost", cause) == count)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path / "clips")
    site.start()
    yield site
    site.stop()


def test_from_before_the_first_detection_to_after_the_end(site: Site) -> None:
    site.feed(60)
    site.request("A", 50)
    site.request("A", 50, 70)
    site.feed(40)
    record = until_clip(site.folder, "A")
    assert (record.first_pts_s, record.last_pts_s, record.packets) == (1.0, 75 / FPS, 51)
    assert record.is_complete and record.covers_first_detection and record.ended == "post_s"
    assert [bytes(each) for each in clip_packets(site.folder, "A")] == JPEGS[25:76]
    assert (site.value("written"), site.value("incomplete")) == (1, 0)
    assert {path.name for path in site.folder.iterdir()} == {"A.mp4", "A.json"}


def test_an_alert_that_goes_on_is_cut_at_the_longest_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path / "clips", pre_s=0.4, max_s=1)
    site.start()
    site.feed(100)
    site.request("A", 50)
    record = until_clip(site.folder, "A")
    site.stop()
    assert record.ended == "max_s" and record.packets == FPS + 1 and record.covers_first_detection


def test_the_longest_clip_reaches_the_first_detection() -> None:
    with pytest.raises(ValueError, match=r"must be greater than recording.pre_s \(30\)"):
        RecordingConfig(pre_s=30, max_s=30)


def test_a_first_detection_that_is_too_old_is_told(site: Site) -> None:
    site.ring = PacketRing(1, 10**7)
    site.stop()
    site.start()
    site.feed(100)
    site.request("A", 10)
    site.request("A", 10, 80)
    record = until_clip(site.folder, "A")
    assert not record.covers_first_detection and not record.is_complete
    assert record.reason == "the first detection is older than the packets in memory"
    assert site.value("incomplete") == 1


def test_what_cannot_be_recorded_is_counted_by_cause(site: Site) -> None:
    site.request("A", 50)
    site.wait_for_loss("empty")
    site.feed(60)
    site.request("B", 50, session="earlier")
    site.wait_for_loss("session")
    for number in range(MAX_CLIPS + 2):
        site.request(f"C{number}", 50)
    site.wait_for_loss("overload", 2)
    site.request("../../etc", 50)
    until(lambda: site.rejected._value.get() == 1)
    assert site.value("written") == 0


def test_a_codec_that_the_container_cannot_hold(site: Site) -> None:
    site.feed(60, CodedStream("vp8", SIZE_PX))
    site.request("A", 50)
    site.wait_for_loss("codec")
    assert list(site.folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_the_clip_alone(site: Site) -> None:
    site.folder.write_text("a file")
    site.feed(60)
    site.request("A", 50)
    site.wait_for_loss("disk")
    site.folder.unlink()
    site.request("B", 50)
    site.request("B", 50, 55)
    site.feed(10)
    assert until_clip(site.folder, "B").is_complete


@needs_mount
def test_a_full_and_a_read_only_disk_cost_the_clip_alone(site: Site) -> None:
    with small_disk(site.folder, 1):
        filler = fill(site.folder)
        site.feed(60)
        site.request("A", 50)
        site.wait_for_loss("disk")
        filler.unlink()
        site.request("B", 50)
        until(lambda: partial(video_path(site.folder, "B")).exists())
        fill(site.folder)
        site.feed(100)
        site.wait_for_loss("disk", 2)
        assert [path.name for path in site.folder.iterdir()] == ["filler"]
        (site.folder / "filler").unlink()
        remount(site.folder, "ro")
        site.request("C", 50)
        site.wait_for_loss("disk", 3)
        remount(site.folder, "rw")
        site.request("D", 150)
        site.request("D", 150, 152)
        site.feed(20)
        assert until_clip(site.folder, "D").is_complete


def test_a_slow_disk_misses_packets_and_says_so(site: Site) -> None:
    site.stop()
    site.ring = PacketRing(2, 10**7)
    site.feed(60)
    site.start()
    site.request("A", 50)
    until(lambda: partial(video_path(site.folder, "A")).exists())
    site.feed(200)  # faster than it is written
    site.request("A", 50, 255)
    site.feed(10)
    record = until_clip(site.folder, "A")
    assert record.missed_packets > 0 and "disk was too slow" in record.reason and record.covers_first_detection
    assert site.value("incomplete") == 1


# Formats


def recorded(site: Site, path: Path, fps: float | None = None) -> list[CodedPacket]:
    """A recording's packets, in the ring with the times of its frames."""
    packets: list[CodedPacket] = []
    source = open_recording(path, fps)

    def take(coded: CodedPacket) -> None:
        packets.append(coded)
        site.ring.append(coded)

    source.on_packet = take
    for frame in source.frames():
        site.ring.locate(frame.stamp_s, frame.pts_s)
    source.close()
    return packets


def clip_of(site: Site, alert: str, first_pts_s: float) -> None:
    site.request(alert, round(first_pts_s * FPS))
    site.request(alert, round(first_pts_s * FPS), round(first_pts_s * FPS) + 2)
    until_clip(site.folder, alert)


@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.mp4"), ("libx264", "a.mkv"), ("libx265", "a.mp4")])
def test_reordered_frames_keep_their_times_and_bytes(codec: str, name: str, site: Site, tmp_path: Path) -> None:
    packets = recorded(site, video(tmp_path / name, codec, 60, 20, b_frames=2))
    clip_of(site, "A", 1.8)
    record, clip = until_clip(site.folder, "A"), clip_packets(site.folder, "A")
    assert record.covers_first_detection and record.first_pts_s == pytest.approx(0.8, abs=1e-6)
    start = next(place for place in range(len(packets)) if packets[place].data == bytes(clip[0]))
    shown = [each.data for each in packets[start:] if (each.stamp_s or 0) >= (packets[start].stamp_s or 0)]
    assert [bytes(each) for each in clip] == shown[: len(clip)], "but what a keyframe's followers show before it"
    times_s = sorted(record.zero_pts_s + float(each.pts * each.time_base) for each in clip)
    assert times_s == pytest.approx([0.8 + number / FPS for number in range(len(clip))], abs=1e-4)
    assert len(decoded(site.folder, "A")) == len(clip)


def test_parameter_sets_that_are_only_in_the_packets(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "a.h264"
    with av.open(str(video(tmp_path / "a.mp4", frames=60))) as source, av.open(str(path), "w", format="h264") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for each in source.demux(video=0):
            if each.size:
                each.stream = stream
                out.mux_one(each)
    packets = recorded(site, path, FPS)
    bare = CodedStream("h264", SIZE_PX)
    site.ring = PacketRing(60, 10**7)
    site.stop()
    site.start()
    for number, each in enumerate(packets):
        site.ring.append(CodedPacket(bare, each.data, number / FPS, number / FPS, each.is_keyframe))
        site.ring.locate(number / FPS, number / FPS)
    clip_of(site, "A", 2.0)
    clip = clip_packets(site.folder, "A")
    units = [nal_units(bytes(each), True) for each in clip]
    assert units == [nal_units(each.data, False) for each in packets[20 : 20 + len(clip)]]
    assert len(decoded(site.folder, "A")) == len(clip)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_image_files_are_packets_as_they_are(suffix: str, site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(images(60)):
        cv2.imwrite(str(folder / f"{number:03}{suffix}"), image)
    recorded(site, folder)
    clip_of(site, "A", 2.0)
    clip = clip_packets(site.folder, "A")
    assert [bytes(each) for each in clip] == [
        path.read_bytes() for path in sorted(folder.iterdir())[25 : 25 + len(clip)]
    ]
    assert len(decoded(site.folder, "A")) == len(clip)


@pytest.mark.parametrize(("pixel_format", "stored"), [("gray16le", "gray16le"), ("yuyv422", "yuv422p")])
def test_raw_video_is_compressed_without_loss(pixel_format: str, stored: str, site: Site) -> None:
    raw = CodedStream("rawvideo", SIZE_PX, pixel_format)
    frames = np.random.default_rng(0).integers(0, 2**16, (60, SIZE_PX[1], SIZE_PX[0]), np.uint16)
    for number, each in enumerate(frames):
        site.ring.append(CodedPacket(raw, each.tobytes(), number / FPS, number / FPS, True))
        site.ring.locate(number / FPS, number / FPS)
    clip_of(site, "A", 2.0)
    shown = decoded(site.folder, "A")
    assert shown[0].format.name == stored and until_clip(site.folder, "A").covers_first_detection
    for before, after in zip(frames[25:], shown, strict=False):
        got = after.to_ndarray() if stored == "gray16le" else after.reformat(format=pixel_format).to_ndarray()
        assert got.tobytes() == before.tobytes()


def test_raw_video_without_a_lossless_form_is_not_recorded(site: Site) -> None:
    site.feed(60, CodedStream("rawvideo", SIZE_PX, "bayer_rggb8"))
    site.request("A", 50)
    site.wait_for_loss("codec")


# What a killed worker left


def test_every_cut_of_a_clip_leaves_a_whole_one_or_none(site: Site, tmp_path: Path) -> None:
    site.feed(100)
    site.request("A", 50)
    site.request("A", 50, 90)
    record = until_clip(site.folder, "A")
    content = video_path(site.folder, "A").read_bytes()
    record.ended, cuts = "", np.linspace(0, len(content), 25, dtype=int)
    left = []
    for cut in cuts:
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        partial(video_path(folder, "A")).write_bytes(content[:cut])
        partial(record_path(folder, "A")).write_bytes(
            record_path(site.folder, "A").read_bytes().replace(b"post_s", b"")
        )
        recover(folder, "cam", site.metrics)
        assert not list(folder.glob("*partial*"))
        found = until_clip(folder, "A") if record_path(folder, "A").exists() else None
        left.append(found.packets if found else 0)
        assert video_path(folder, "A").exists() is (found is not None)
        if found:
            assert found.reason and len(decoded(folder, "A")) == found.packets
    assert left == sorted(left) and left[0] == 0 and left[-1] == record.packets and len(set(left)) > 3
    assert site.value("lost", "killed") == left.count(0)


def test_leftovers_of_other_cameras_and_broken_records(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    record_path(folder, "A").with_name("A.partial.json").write_text("{")
    partial(video_path(folder, "A")).write_bytes(b"x")
    recover(folder, "cam", site.metrics)
    assert list(folder.iterdir()) == [] and site.value("lost", "killed") == 1
    with (tmp_path / "empty").open("wb+") as file:
        assert complete_bytes(file) == 0


def test_the_thread_ends(site: Site) -> None:
    site.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "clips"]
