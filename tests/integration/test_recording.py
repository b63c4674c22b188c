"""A real camera, a real capture worker: clips of alerts hold its own packets, and start before the first detection."""

import hashlib
import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest
import yaml
import zmq
from support.clips import FPS, clip_packets, decoded, holds, nal_units, until_clip, video
from support.events import until
from support.program import CLIPS, Running
from support.rtsp import RtspCameras

from pipeline.capture.live import LOW_LATENCY
from pipeline.store.clips import ClipRecord, partial, read_record, video_path
from pipeline.store.reader import StoreReader
from pipeline.transport.sockets import bound, connected
from pipeline.transport.video import NEXT, decode_part
from pipeline.transport.wire import ClipRequest, Credit, CreditRequest, FrameHeader, decode, encode
from pipeline.types import EventKind, FrameRef

PRE_S, POST_S = 1.0, 0.4
WAIT_S = 20.0
GROUP_S = 10 / FPS


class Site:
    """A capture worker's surroundings: takes every frame, and requests clips."""

    def __init__(self, folder: Path, uri: str, **recording: float) -> None:
        self.run_dir = folder / "run"
        self.clips = self.run_dir / "clips"
        self.run_dir.mkdir(exist_ok=True)
        self.config = folder / "site.yaml"
        settings = {"pre_s": PRE_S, "post_s": POST_S} | recording
        camera = {"id": "cam", "uri": uri}
        self.config.write_text(
            yaml.safe_dump({"cameras": [camera], "run_dir": str(self.run_dir), "recording": settings})
        )
        self.refs: list[FrameRef] = []
        self._stop = threading.Event()

    def worker(self) -> Running:
        return Running("worker", "capture", self.config, "--camera", "cam")

    @contextmanager
    def segmentation(self) -> Iterator[None]:
        thread = threading.Thread(target=self._take)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _take(self) -> None:
        with bound(zmq.ROUTER, f"ipc://{self.run_dir}/segmentation.sock", high_water=16) as socket:
            while not self._stop.is_set():
                if not socket.poll(100):
                    continue
                sender, *parts = socket.recv_multipart()
                message, _ = decode(parts)
                assert isinstance(message, CreditRequest | FrameHeader)
                is_frame = isinstance(message, FrameHeader)
                if is_frame:
                    self.refs.append(message.ref)
                session = message.ref.session if is_frame else message.session
                done = [message.ref.seq] if is_frame else []
                socket.send_multipart([sender, *encode(Credit("here", session, segmented=done, granted=True))])

    def wait_for_frames(self, length_s: float) -> FrameRef:
        """The newest frame, of a session that has so many seconds of them."""

        def long_enough() -> bool:
            refs = [ref for ref in self.refs if ref.session == self.refs[-1].session]
            return bool(refs) and refs[-1].pts_s - refs[0].pts_s > length_s

        until(long_enough, 40)
        return self.refs[-1]

    def request(self, alert: str, first: FrameRef, end_pts_s: float | None = None) -> None:
        with connected(zmq.PUSH, f"ipc://{self.run_dir}/clips-cam.sock", 4, linger_ms=2000, patient=True) as socket:
            socket.send_multipart(encode(ClipRequest("cam", first.session, alert, first.pts_s, end_pts_s)))

    def record(self, alert: str) -> ClipRecord:
        """A clip of an alert that opens now, whose first detection was a moment ago, and that ends soon."""
        self.wait_for_frames(2.0)
        first = self.refs[-8]
        self.request(alert, first)
        until(lambda: self.refs[-1].pts_s > first.pts_s + 1.0, WAIT_S)
        self.request(alert, first, self.refs[-1].pts_s)
        return until_clip(self.clips, alert)


class Watcher:
    """Another client of the camera, which writes down the packets."""

    def __init__(self, uri: str) -> None:
        self.packets: list[bytes] = []
        self._uri = uri
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        until(lambda: len(self.packets) > 2, WAIT_S)
        return self

    def _read(self) -> None:
        with av.open(self._uri, options=LOW_LATENCY | {"rtsp_transport": "tcp"}, timeout=(5, 2)) as container:
            for packet in container.demux(video=0):
                self.packets.append(bytes(packet))
                if self._stop.is_set():
                    return

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def check(site: Site, record: ClipRecord, group_s: float, first_s: float) -> list[Any]:
    """What holds for every clip; its packets."""
    assert record.is_complete and record.covers_first_detection and record.ended == "post_s", record
    assert record.first_pts_s is not None and record.last_pts_s is not None
    assert first_s - PRE_S - group_s - 0.1 < record.first_pts_s <= first_s - PRE_S
    content = video_path(site.clips, record.alert).read_bytes()
    assert (record.size_bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    packets = clip_packets(site.clips, record.alert)
    assert len(packets) == record.packets and packets[0].is_keyframe
    times_s = [record.zero_pts_s + float(each.pts * each.time_base) for each in packets]
    taken_s = [ref.pts_s for ref in site.refs if record.first_pts_s <= ref.pts_s <= record.last_pts_s]
    assert len(taken_s) > len(packets) / 2
    assert all(min(abs(time_s - each) for each in times_s) < 1e-4 for time_s in taken_s), "one clock"
    assert len(decoded(site.clips, record.alert)) == len(packets), "all of it can be decoded"
    assert not list(site.clips.glob(f"{record.alert}.partial*"))
    return packets


@pytest.mark.parametrize(
    ("codec", "name"),
    [("libx264", "a.mp4"), pytest.param("libx265", "a.mp4", marks=pytest.mark.slow), ("mjpeg", "a.mkv")],
)
def test_a_clip_holds_the_camera_s_own_packets(codec: str, name: str, tmp_path: Path) -> None:
    cameras: Mapping[str, Mapping[str, str | int]] = {
        "cam": {"file": str(video(tmp_path / name, codec)), "fps": FPS, "user": "u", "password": "s3cret"}
    }
    with RtspCameras(cameras) as served:
        site = Site(tmp_path, served.uri("cam"))
        with site.segmentation(), Watcher(served.uri("cam")) as watcher, site.worker() as worker:
            record = site.record("A1")
            first_s = record.first_detection_pts_s
        packets = check(site, record, 1 / FPS if codec == "mjpeg" else GROUP_S, first_s)
    coded = codec != "mjpeg"
    clip = [nal_units(bytes(each), True) if coded else [bytes(each)] for each in packets]
    stream = [nal_units(each, False) if coded else [each] for each in watcher.packets]
    start = next(place for place in range(len(stream)) if stream[place] == clip[0])
    while stream[start : start + len(clip)] != clip:  # the camera repeats its video
        start = next(place for place in range(start + 1, len(stream)) if stream[place] == clip[0])
    assert "s3cret" not in "\n".join(worker.lines) + site.clips.joinpath("A1.json").read_text()


@pytest.mark.parametrize(
    "uri", ["demo:scene?seed=3&fps=15", pytest.param(f"demo:clips/{CLIPS}?first=IR_DRONE_015", marks=pytest.mark.slow)]
)
def test_simulated_cameras_are_recorded(uri: str, tmp_path: Path) -> None:
    site = Site(tmp_path, uri)
    with site.segmentation(), site.worker():
        record = site.record("A1")
    assert record.covers_first_detection and record.codec == ("mjpeg" if "scene" in uri else "h264")
    frames = decoded(site.clips, "A1")
    assert len(frames) == record.packets > 10 and (frames[0].width, frames[0].height) == record.size_px


def test_alerts_share_the_memory_and_one_of_an_earlier_session_has_no_clip(tmp_path: Path) -> None:
    with RtspCameras({"cam": {"file": str(video(tmp_path / "a.mp4")), "fps": FPS}}) as served:
        site = Site(tmp_path, served.uri("cam"))
        with site.segmentation(), site.worker() as worker:
            newest = site.wait_for_frames(2.0)
            refs = site.refs[-6:]
            for number, first in enumerate(refs):
                site.request(f"A{number}", first)
            stale = FrameRef("cam", "earlier", 0, newest.pts_s, 0, 0)
            site.request("B", stale)
            until(lambda: site.refs[-1].pts_s > newest.pts_s + 0.5, WAIT_S)
            for number, first in enumerate(refs):
                site.request(f"A{number}", first, site.refs[-1].pts_s)
            for number, first in enumerate(refs):
                check(site, until_clip(site.clips, f"A{number}"), GROUP_S, first.pts_s)
            worker.wait_for_line("clip lost.*session")
            assert until_clip(site.clips, "B").reason == "the alert is of an earlier session"
            assert not video_path(site.clips, "B").exists()


def test_a_killed_worker_s_clip_is_completed_by_the_next(tmp_path: Path) -> None:
    with RtspCameras({"cam": {"file": str(video(tmp_path / "a.mp4")), "fps": FPS}}) as served:
        site = Site(tmp_path, served.uri("cam"))
        with site.segmentation():
            with site.worker() as worker:
                site.wait_for_frames(2.0)
                first = site.refs[-8]
                site.request("A1", first)
                until(lambda: holds(site.clips, "A1", first.pts_s), WAIT_S)
                worker.process.kill()
                worker.process.wait()
            site.refs.clear()
            with site.worker() as worker:
                record = until_clip(site.clips, "A1")
                worker.wait_for_line("clip recovered")
                again = site.record("A2")
    assert record.ended == "killed" and "capture worker ended" in record.reason
    assert record.covers_first_detection and record.session != again.session
    packets = clip_packets(site.clips, "A1")
    assert len(packets) == record.packets == len(decoded(site.clips, "A1")) > 20 and packets[0].is_keyframe
    assert record.sha256 == hashlib.sha256(video_path(site.clips, "A1").read_bytes()).hexdigest()
    check(site, again, GROUP_S, again.first_detection_pts_s)


def test_a_stopped_worker_finishes_its_clip(tmp_path: Path) -> None:
    with RtspCameras({"cam": {"file": str(video(tmp_path / "a.mp4")), "fps": FPS}}) as served:
        site = Site(tmp_path, served.uri("cam"))
        with site.segmentation(), site.worker() as worker:
            site.wait_for_frames(1.5)
            site.request("A1", site.refs[-3])
            until(lambda: partial(video_path(site.clips, "A1")).exists(), WAIT_S)
            worker.stop()
        record = until_clip(site.clips, "A1")
    assert record.ended == "stopped" and record.is_complete and len(decoded(site.clips, "A1")) == record.packets


@pytest.mark.slow
def test_a_clip_ends_with_the_connection_and_none_spans_two(tmp_path: Path) -> None:
    with RtspCameras({"cam": {"file": str(video(tmp_path / "a.mp4")), "fps": FPS}}) as served:
        site = Site(tmp_path, served.uri("cam"), pre_s=5)
        with site.segmentation(), site.worker():
            site.wait_for_frames(1.5)
            site.request("A1", site.refs[-3])
            until(lambda: partial(video_path(site.clips, "A1")).exists(), WAIT_S)
            served.command("down cam")
            served.command("up cam")
            record = until_clip(site.clips, "A1")
            assert record.ended == "stream" and record.covers_first_detection
            assert len(decoded(site.clips, "A1")) == record.packets
            site.refs.clear()
            again = site.record("A2")
    assert again.is_complete and again.covers_first_detection and again.ended == "post_s"
    assert again.first_pts_s is not None and again.first_pts_s > record.first_detection_pts_s


@pytest.mark.live
def test_the_program_writes_a_clip_of_an_alert(tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    fixed = {"run_dir": str(tmp_path / "run"), "metrics": {"port": 0}, "console": {"port": 0}}
    cameras = [{"id": "scene", "uri": "demo:scene?seed=4", "rate_fps": 3}]
    config.write_text(yaml.safe_dump({"cameras": cameras, "recording": {"max_s": 8}, **fixed}))
    with Running("run", config) as program:
        program.wait_for_metric('dasnet_clips_written_total{camera="scene"}', 1, 150)
        assert program.wait_for_metric('dasnet_recording_ring_seconds{camera="scene"}', 0.1) < 20
        program.stop()
    with StoreReader(tmp_path / "run" / "store.sqlite") as reader:
        opened = {
            each.event.id: each.event for each in reader.events(1000) if each.event.kind is EventKind.TRACK_CONFIRMED
        }
    found = [read_record(path) for path in (tmp_path / "run" / "clips").glob("*.json")]
    assert found
    for record in found:
        track = opened[record.alert].track
        assert track is not None and record.first_detection_pts_s == track.first_seen.pts_s
        assert (
            record.covers_first_detection and len(decoded(tmp_path / "run" / "clips", record.alert)) == record.packets
        )


def test_the_console_gets_the_camera_s_own_video_near_its_newest_frame(tmp_path: Path) -> None:
    cameras: Mapping[str, Mapping[str, str | int]] = {"cam": {"file": str(video(tmp_path / "a.mp4")), "fps": FPS}}
    with RtspCameras(cameras) as served:
        site = Site(tmp_path, served.uri("cam"))
        with site.segmentation(), site.worker() as worker:
            site.wait_for_frames(1.0)
            with connected(zmq.DEALER, f"ipc://{site.run_dir}/video-cam.sock", 4) as viewer:
                content, zero_s, behind_s = b"", 0.0, []
                while content.count(b"moof") < 2 * FPS:
                    viewer.send(NEXT)
                    assert viewer.poll(WAIT_S * 1000)
                    part, fragments = decode_part(viewer.recv_multipart())
                    assert not part.ended and (part.mime.startswith("video/mp4; codecs=") or content)
                    content, zero_s = content + fragments, zero_s or part.zero_pts_s
                    newest_s = zero_s + (content.count(b"moof") - 1) / FPS
                    behind_s.append(site.refs[-1].pts_s - newest_s)
            with av.open(io.BytesIO(content)) as container:
                frames = list(container.decode(video=0))
            assert len(frames) == content.count(b"moof"), "all of it can be decoded"
            times_s = [zero_s + float(frame.time or 0) for frame in frames]
            taken_s = [ref.pts_s for ref in site.refs if times_s[0] <= ref.pts_s <= times_s[-1]]
            assert len(taken_s) > len(frames) / 2
            assert all(min(abs(time_s - each) for each in times_s) < 1e-4 for time_s in taken_s), "one clock"
            assert sorted(behind_s)[len(behind_s) // 2] < 0.5
            assert worker.stop() == 0
