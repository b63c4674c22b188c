"""A recorder of clips with a ring that the test fills."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from prometheus_client import CollectorRegistry, Counter

from pipeline.capture.clip_recorder import ClipRecorder
from pipeline.capture.packet_ring import PacketRing
from pipeline.capture.source import CodedStream
from pipeline.config.storage import RecordingConfig
from pipeline.store.metrics import ClipMetrics
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import connected
from pipeline.transport.wire import ClipRequest, encode
from support.clips import FPS, MJPEG, jpegs, packet
from support.events import until

SESSION = "s1"
JPEGS = jpegs(200)


def wait(condition: Callable[[], bool]) -> None:
    until(condition, 20)


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
        wait(lambda: self.value("lost", cause) == count)


@pytest.fixture(name="site")
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path / "clips")
    site.start()
    yield site
    site.stop()
