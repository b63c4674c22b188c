"""A camera that sends H.264 in real time: its capture worker's video feed, and the track worker's live messages."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import zmq

from pipeline.capture.packet_ring import PacketRing
from pipeline.capture.packet_tap import PacketTap
from pipeline.capture.source import CodedPacket
from pipeline.capture.video_feed import VideoFeed
from pipeline.transport.live import LiveFrame, encode
from support.clips import FPS, SIZE_PX, video
from support.console_site import live_message, until
from support.events import track

CAMERA = "north"
FRAMES = 46  # before the target of the clip jumps back
SESSION = "s1"


class CodedCamera(threading.Thread):
    """A clip over and over, in real time.

    Args:
        ring: of its capture worker.
        endpoint: of the live messages.
        packets: the clip's.
        others: cameras beside it, with images five times a second.
        track_frames: after how many frames its target is another track.
    """

    def __init__(
        self, ring: PacketRing, endpoint: str, packets: list[CodedPacket], others: Sequence[str], track_frames: int
    ) -> None:
        super().__init__()
        self._ring, self.endpoint, self._packets = ring, endpoint, packets
        self._others, self._track_frames = others, track_frames
        self.number = 0  # of the newest frame
        self.stop = threading.Event()

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
            publisher.linger = 0
            publisher.bind(self.endpoint)
            started_s = time.monotonic()
            while not self.stop.wait(max(0.0, started_s + (self.number + 1) / FPS - time.monotonic())):
                pts_s = self.number / FPS
                packet = self._packets[self.number % len(self._packets)]
                self._ring.append(packet._replace(stamp_s=pts_s, decode_stamp_s=pts_s))
                self._ring.locate(pts_s, pts_s)
                frame = self.number % len(self._packets)
                box = (frame * 3.0, 10.0 + frame, frame * 3.0 + 16, 22.0 + frame)
                seen = [track(self.number // self._track_frames, self.number, xyxy=box)]
                live = LiveFrame(CAMERA, SESSION, self.number, pts_s, time.time_ns(), *SIZE_PX, seen)
                publisher.send_multipart(encode(live))
                for name in self._others if self.number % (FPS // 5) == 0 else ():
                    publisher.send_multipart(live_message(name, self.number))
                self.number += 1


def packets(folder: Path) -> list[CodedPacket]:
    with av.open(str(video(folder / "in.mp4", frames=FRAMES, group=FRAMES // 2))) as container:
        source: Any = container.streams.video[0]
        tap = PacketTap(source)
        return [coded for packet in container.demux(source) if packet.size and (coded := tap.coded(packet))]


@contextmanager
def watched_camera(run_dir: Path, others: Sequence[str] = (), track_frames: int = 1 << 40) -> Iterator[CodedCamera]:
    """The camera, in a site's run folder."""
    ring, before = PacketRing(20, 10_000_000), Path.cwd()
    os.chdir(run_dir)
    with tempfile.TemporaryDirectory() as folder, VideoFeed(CAMERA, SESSION, ring, lambda cause: None):
        until((run_dir / f"video-{CAMERA}.sock").exists)
        os.chdir(before)
        camera = CodedCamera(ring, f"ipc://{run_dir}/live.sock", packets(Path(folder)), others, track_frames)
        camera.start()
        yield camera
        camera.stop.set()
        camera.join()
