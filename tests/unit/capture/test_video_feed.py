"""The camera's own video for the console: from the newest keyframe on, as it is asked for, never encoded again."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import zmq
from support.clips import FPS, SIZE_PX, video

from pipeline.capture.packet_ring import PacketRing
from pipeline.capture.packet_tap import PacketTap
from pipeline.capture.source import CodedPacket, CodedStream
from pipeline.capture.video_feed import VideoFeed
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.video import NEXT, VideoPart, decode_part

ENDED: list[str] = []  # causes
ZERO_S = 50.0  # of the recording, in the session


class Viewer:
    """The console's part."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(Endpoints.video("north"))

    def ask(self, timeout_ms: int = 5000) -> tuple[VideoPart, bytes]:
        self._socket.send(NEXT)
        assert self._socket.poll(timeout_ms), "no answer"
        return decode_part(self._socket.recv_multipart())

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PacketRing]:
    monkeypatch.chdir(tmp_path)  # the run folder
    ring = PacketRing(1.5, 10_000_000)
    with VideoFeed("north", "s1", ring, ENDED.append):
        yield ring


@pytest.fixture
def viewer(ring: PacketRing) -> Iterator[Viewer]:
    viewer = Viewer()
    yield viewer
    viewer.close()


def packets(folder: Path) -> list[CodedPacket]:
    with av.open(str(video(folder / "in.mp4", frames=35, group=10))) as container:
        source: Any = container.streams.video[0]
        tap = PacketTap(source)
        return [coded for packet in container.demux(source) if packet.size and (coded := tap.coded(packet))]


def fill(ring: PacketRing, some: list[CodedPacket]) -> None:
    for packet in some:
        ring.append(packet)
        ring.locate(packet.stamp_s, ZERO_S + packet.stamp_s)


def test_a_viewer_sees_every_frame_from_the_newest_keyframe_on(
    ring: PacketRing, viewer: Viewer, tmp_path: Path
) -> None:
    all_packets = packets(tmp_path)
    fill(ring, all_packets[:25])  # keyframes: 0, 10, 20
    part, content = viewer.ask()
    assert part.session == "s1" and part.mime.startswith('video/mp4; codecs="avc1.')
    assert part.zero_pts_s == pytest.approx(ZERO_S + 20 / FPS, abs=0.05)
    fill(ring, all_packets[25:])
    part, more = viewer.ask()
    assert part == VideoPart() and more
    with av.open(
        io.BytesIO(content + more)
    ) as container:  # the last frame comes with the next: its duration is unknown
        frames = list(container.decode(video=0))
    assert len(frames) == 14 and (frames[0].width, frames[0].height) == SIZE_PX
    assert [float(frame.time or 0) for frame in frames] == pytest.approx(
        [number / FPS for number in range(14)], abs=1e-3
    )


def test_nothing_is_sent_that_was_not_asked_for(ring: PacketRing, viewer: Viewer, tmp_path: Path) -> None:
    all_packets = packets(tmp_path)
    fill(ring, all_packets[:11])
    viewer.ask()
    asking = threading.Thread(target=lambda: (time.sleep(0.1), fill(ring, all_packets[11:12])))
    asking.start()
    part, fragment = viewer.ask()  # waits until there is a packet
    asking.join()
    assert part == VideoPart() and fragment.count(b"moof") == 1
    fill(ring, all_packets[12:])
    assert viewer.ask()[1].count(b"moof") == len(all_packets) - 12, "all in one part"


def test_why_there_is_no_video_is_told(ring: PacketRing, viewer: Viewer, tmp_path: Path) -> None:
    other = CodedStream("mjpeg", SIZE_PX)
    ring.append(CodedPacket(other, b"x" * 100, 0.0, 0.0, True))
    ring.locate(0.0, ZERO_S)
    part, _ = viewer.ask()
    assert part.ended == "codec mjpeg, must be h264"
    fill(ring, packets(tmp_path))
    assert viewer.ask()[0].session == "s1"
    ring.append(CodedPacket(other, b"x" * 100, 9.0, 9.0, True))
    ring.locate(9.0, ZERO_S + 9)
    assert viewer.ask()[0].ended == "the camera's stream began anew"
    assert ENDED == ["codec", "changed"]


def test_a_viewer_who_is_too_slow_is_told_so_and_may_begin_anew(
    ring: PacketRing, viewer: Viewer, tmp_path: Path
) -> None:
    all_packets = packets(tmp_path)
    fill(ring, all_packets[:11])
    assert viewer.ask()[0].session == "s1"
    ENDED.clear()
    for turn in range(3):  # more than the ring holds
        shift_s = 1.4 * turn
        fill(ring, [each._replace(stamp_s=each.stamp_s + shift_s, decode_stamp_s=None) for each in all_packets])
    assert viewer.ask()[0].ended == "too slow: packets were overwritten" and ENDED == ["slow"]
    assert viewer.ask()[0].session == "s1"


def test_the_feed_leaves_no_descriptor_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with VideoFeed("north", "s1", PacketRing(1, 1000), ENDED.append):
        pass
    growth = []
    for _ in range(3):  # what other threads open meanwhile is not opened each time
        before = len(list(Path("/proc/self/fd").iterdir()))
        with VideoFeed("north", "s1", PacketRing(1, 1000), ENDED.append):
            pass
        growth.append(len(list(Path("/proc/self/fd").iterdir())) - before)
    assert min(growth) <= 0
