"""Clips of edge hosts: a real recorder and uplink, a real inference host, CURVE, and a link that breaks."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import msgspec
import pytest
import zmq
from prometheus_client import Counter
from support.clips import until_clip
from support.events import until
from support.program import free_port
from support.recorder import SESSION, Site

from pipeline.capture import clip_uplink
from pipeline.capture.clip_uplink import ClipUplink
from pipeline.config.models import Config
from pipeline.errors import WireError
from pipeline.store.clips import ClipRecord, partial, read_record, record_path, video_path, write_record
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.timeouts import CAPTURE_SILENCE_TIMEOUT_S
from pipeline.tracking import edge_clips
from pipeline.tracking.edge_clips import EdgeClips
from pipeline.transport.keys import make_keys
from pipeline.transport.link import HostAuthenticator, uplink
from pipeline.transport.rejects import RejectLog
from pipeline.transport.wire import ClipChunk, ClipPoll, ClipRequest, decode, encode

WAIT_S = 30.0


class Link:
    """A TCP relay between two hosts that can be cut, and that can change what passes."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.passed_bytes = 0
        self.limit_bytes: float = float("inf")  # then it is cut
        self._target, self._connections = port, list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.passed_bytes >= self.limit_bytes:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._connections += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self.passed_bytes += len(data)
                if self.passed_bytes >= self.limit_bytes:
                    break
                sink.sendall(data)
        except OSError:
            pass
        self.cut()

    def cut(self) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()


class Hosts:
    """An edge host with one camera, and the inference host."""

    def __init__(self, folder: Path) -> None:
        make_keys(folder / "keys", ["mast", "hill"])
        self.port = free_port() - 2
        self.config = self.site(folder, self.port)
        self.link = Link(self.port + 2)
        self.edge = Site(folder / "edge" / "clips")
        self.clips = self.config.clips_path
        self.metrics = TrackingMetrics(["cam", "other"], 0.5)
        self._folder = folder
        self._uplink: ClipUplink | None = None
        self._here = ExitStack()
        self._here.callback(self.link.close)

    @staticmethod
    def site(folder: Path, port: int, **changes: object) -> Config:
        return Config.model_validate(
            {
                "cameras": [
                    {"id": "cam", "uri": "demo:scene", "host": "mast"},
                    {"id": "other", "uri": "demo:scene", "host": "hill"},
                ],
                "link": {"host": "127.0.0.1", "port": port, "keys": str(folder / "keys")},
                "run_dir": str(folder / "here"),
            }
            | changes
        )

    def start_edge(self, session: str = SESSION) -> None:
        self.edge.start()
        config = self.config.model_copy(
            update={"link": self.config.link and self.config.link.model_copy(update={"port": self.link.port - 2})}
        )
        rejects = RejectLog("clips", self.edge.rejected)
        up = uplink(config, config.camera("cam"))
        self._uplink = ClipUplink("cam", session, up, self.edge.folder, self.edge.metrics, rejects)
        self._uplink.__enter__()

    def stop_edge(self) -> None:
        if self._uplink is not None:
            self._uplink.__exit__()
            self.edge.stop()
        self._uplink = None

    def start_here(self) -> EdgeClips:
        assert self.config.link is not None
        rejects = RejectLog("link", Counter("refused_here", "Text.", registry=None))
        authenticator = HostAuthenticator(self.config, self.config.link, rejects)
        self._here.callback(authenticator.close)
        self.here = EdgeClips(self.config, self.config.link, authenticator, self.metrics)
        self._here.callback(self.here.close)
        return self.here

    def stop_here(self) -> None:
        self._here.close()

    def alert(self, alert: str, first: int = 50, end: int | None = 70, session: str = SESSION) -> None:
        request = ClipRequest("cam", session, alert, first / 25)
        self.here.request(request)
        if end is not None:
            self.here.request(msgspec.structs.replace(request, end_pts_s=end / 25))

    def pending(self, alert: str) -> str:
        try:
            return read_record(partial(record_path(self.clips, alert))).reason
        except FileNotFoundError:
            return ""

    def put(self, alert: str, size_bytes: int) -> ClipRecord:
        """A finished clip on the edge host, of any content."""
        content = hashlib.shake_128(alert.encode()).digest(size_bytes)
        self.edge.folder.mkdir(parents=True, exist_ok=True)
        video_path(self.edge.folder, alert).write_bytes(content)
        record = ClipRecord(alert, "cam", SESSION, 2.0, "h264", (160, 128), 1.0, 1.0, 3.0, 50)
        record.size_bytes, record.sha256, record.ended = size_bytes, hashlib.sha256(content).hexdigest(), "post_s"
        record.covers_first_detection = True
        write_record(record_path(self.edge.folder, alert), record)
        return record


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clip_uplink, "POLL_S", 0.1)
    both = Hosts(tmp_path)
    both.start_here()
    yield both
    both.stop_edge()
    both.stop_here()


def wait(condition: Callable[[], object]) -> None:
    until(condition, WAIT_S)


def check(hosts: Hosts, record: ClipRecord) -> None:
    content = video_path(hosts.clips, record.alert).read_bytes()
    assert (record.size_bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    wait(lambda: not list(hosts.edge.folder.glob(f"{record.alert}.*")))
    assert {path.name for path in hosts.clips.glob(f"{record.alert}.*")} == {
        f"{record.alert}.mp4",
        f"{record.alert}.json",
    }


def test_the_edge_host_s_packets_become_the_alert_s_clip(hosts: Hosts) -> None:
    hosts.start_edge()
    hosts.edge.feed(60)
    hosts.alert("A")
    wait(lambda: hosts.pending("A") == "being recorded by edge host 'mast'")
    hosts.edge.feed(40)
    record = until_clip(hosts.clips, "A")
    assert record.is_complete and record.covers_first_detection and (record.session, record.packets) == (SESSION, 51)
    check(hosts, record)
    assert hosts.edge.rejected._value.get() == 0
    wait(lambda: hosts.metrics.clips_pending.labels("cam")._value.get() == 0)


def test_an_edge_host_that_is_away_is_named_and_its_clip_comes_later(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_clips, "CAPTURE_SILENCE_TIMEOUT_S", 0.5)
    hosts.alert("A", end=None)
    wait(lambda: hosts.pending("A") == "edge host 'mast' does not answer")
    assert hosts.metrics.clips_pending.labels("cam")._value.get() == 1
    hosts.stop_here()  # requests outlive the track worker
    hosts.link = Link(hosts.port + 2)
    hosts.start_here()
    hosts.start_edge()
    hosts.edge.feed(60)
    wait(lambda: hosts.pending("A") == "being recorded by edge host 'mast'")
    hosts.alert("A")
    hosts.edge.feed(40)
    record = until_clip(hosts.clips, "A")
    assert record.is_complete
    check(hosts, record)
    hosts.link.close()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_cut_link_resumes_where_it_broke(hosts: Hosts, restarts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_clips, "RETRY_S", 0.5)
    size_bytes = 12 * clip_uplink.CHUNK_BYTES + 17
    hosts.link.limit_bytes = size_bytes // 2
    hosts.put("A", size_bytes)
    hosts.start_edge()
    hosts.alert("A")
    path = partial(video_path(hosts.clips, "A"))
    wait(lambda: hosts.link.passed_bytes >= hosts.link.limit_bytes)
    came_bytes = path.stat().st_size
    assert came_bytes >= 2 * clip_uplink.CHUNK_BYTES
    if restarts:
        hosts.stop_here()
        hosts.link = Link(hosts.port + 2)
        hosts.start_here()
        hosts.stop_edge()
        hosts.start_edge("s2")
    hosts.link.passed_bytes, hosts.link.limit_bytes = 0, float("inf")
    record = until_clip(hosts.clips, "A", WAIT_S)
    check(hosts, record)
    assert hosts.link.passed_bytes < size_bytes - came_bytes + 2 * clip_uplink.CHUNK_BYTES, "the rest alone"
    hosts.link.close()


def test_a_clip_that_is_damaged_is_fetched_again_and_given_up_in_the_end(hosts: Hosts) -> None:
    record = hosts.put("A", 100_000)
    video_path(hosts.edge.folder, "A").write_bytes(b"x" * record.size_bytes)
    hosts.start_edge()
    hosts.alert("A")
    lost = until_clip(hosts.clips, "A", WAIT_S)
    assert lost.is_lost and lost.reason == "it was damaged on its way from the edge host"
    assert hosts.metrics.clips_lost.labels("cam", "checksum")._value.get() == 1
    wait(lambda: not list(hosts.edge.folder.glob("A.*")))
    assert {path.name for path in hosts.clips.iterdir()} == {"A.json"}


def test_what_the_edge_host_lost_is_told_with_its_reason(hosts: Hosts) -> None:
    hosts.start_edge()
    hosts.edge.feed(60)
    hosts.alert("A", session="earlier")
    lost = until_clip(hosts.clips, "A", WAIT_S)
    assert lost.is_lost and lost.reason == "the alert is of an earlier session"
    wait(lambda: not list(hosts.edge.folder.glob("A.*")))
    assert hosts.edge.value("lost", "session") == 1


def test_clips_that_nobody_waits_for_are_deleted_there(hosts: Hosts) -> None:
    hosts.put("A", 1000)
    hosts.put("B", 1000)
    hosts.start_edge()
    wait(lambda: not list(hosts.edge.folder.glob("*")))
    assert not list(hosts.clips.glob("*"))


def test_a_camera_that_leaves_its_edge_host_has_no_more_clips_from_there(hosts: Hosts, tmp_path: Path) -> None:
    hosts.alert("A", end=None)
    wait(lambda: hosts.pending("A"))
    hosts.here.watch(Hosts.site(tmp_path, hosts.port, cameras=[{"id": "cam", "uri": "demo:scene"}]))
    lost = until_clip(hosts.clips, "A", WAIT_S)
    assert lost.is_lost and "left the edge host" in lost.reason
    wait(lambda: not hosts.pending("A"))


def test_a_slow_link_costs_the_oldest_clips(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_uplink, "MAX_WAITING_BYTES", 2500)
    for alert in "ABC":
        hosts.alert(alert)
        hosts.put(alert, 1000)
    hosts.start_edge()
    assert until_clip(hosts.clips, "A").reason == "the link was too slow for all clips of its camera"
    check(hosts, until_clip(hosts.clips, "B"))
    check(hosts, until_clip(hosts.clips, "C"))
    assert hosts.edge.value("lost", "link") == 1


def test_another_host_may_not_send_a_clip_of_this_camera(hosts: Hosts, tmp_path: Path) -> None:
    hosts.alert("A", end=None)
    wait(lambda: hosts.pending("A"))
    record = hosts.put("A", 1000)
    up = uplink(hosts.config, hosts.config.camera("other"))  # with the keys of the host hill
    with closing(up.connected(zmq.DEALER, up.clips, 16, patient=True)) as hill:
        hill.send_multipart(encode(ClipPoll("cam", SESSION, record)))
        hill.send_multipart([*encode(ClipChunk("cam", "A", 0)), b"x" * 1000])
        hill.send_multipart(encode(ClipPoll("other", SESSION)))
        wait(lambda: hosts.metrics.refused._value.get() == 2)
        assert not hill.poll(300), "no request of another's camera"
    assert hosts.pending("A") and not video_path(hosts.clips, "A").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"alert": "../x"},
        {"camera": "other"},
        {"sha256": "", "size_bytes": 10},
        {"sha256": "zz"},
        {"reason": "x" * 301},
        {"size_bytes": -1},
        {"zero_pts_s": float("nan")},
    ],
)
def test_an_offer_that_makes_no_sense_is_rejected(changes: dict[str, object], hosts: Hosts) -> None:
    record = msgspec.structs.replace(hosts.put("A", 1000), **changes)
    with pytest.raises(WireError):
        decode(encode(ClipPoll("cam", SESSION, record)))


def test_the_inference_host_notices_silence_later_than_a_poll() -> None:
    assert clip_uplink.POLL_S * 3 < CAPTURE_SILENCE_TIMEOUT_S < time.monotonic()
