"""Requests for clips: an alert's opening and its end, to the capture worker of its camera alone."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from support.events import LABELLED, LOST, event, gone, raised, track

from pipeline.config.models import Config
from pipeline.store.metrics import UNREQUESTED
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.tracking.clip_requests import MAX_QUEUED, ClipRequests, clip_request
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.wire import ClipRequest, decode
from pipeline.types import EventKind, TrackState

CONFIRMED, OPENED = raised(track(7))
ALERT = str(OPENED.alert)
ENDED = gone(track(7), ALERT)[1]


def config(*cameras: dict[str, str], enabled: bool = True) -> Config:
    link = {"host": "127.0.0.1", "encrypted": False}
    return Config.model_validate({"cameras": list(cameras), "link": link, "recording": {"enabled": enabled}})


def camera(name: str, **changes: str) -> dict[str, str]:
    return {"id": name, "uri": "demo:scene"} | changes


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Socket]:
    """The capture worker's end."""
    monkeypatch.chdir(tmp_path)
    with bound(zmq.PULL, f"ipc://clips-{OPENED.camera}.sock", 64) as socket:
        yield socket


def received(socket: Socket, count: int) -> list[ClipRequest]:
    requests = []
    for _ in range(count):
        assert socket.poll(5000)
        message, _ = decode(socket.recv_multipart())
        assert isinstance(message, ClipRequest)
        requests.append(message)
    return requests


def test_an_alert_s_opening_and_its_end(worker: Socket) -> None:
    requests = ClipRequests(config(camera(OPENED.camera)), TrackingMetrics([OPENED.camera], 0.5), None)
    requests.send([CONFIRMED, OPENED, event(LABELLED, track(8)), event(LOST, track(9, state=TrackState.LOST)), ENDED])
    assert OPENED.track is not None
    first = ClipRequest(OPENED.camera, OPENED.session, ALERT, OPENED.track.first_seen.pts_s)
    assert received(worker, 2) == [first, msgspec.structs.replace(first, end_pts_s=ENDED.pts_s)]
    assert not worker.poll(100)
    requests.close()


@pytest.mark.parametrize(
    "site",
    [
        config(camera("other")),
        config(camera(OPENED.camera), enabled=False),
    ],
)
def test_no_request_for_a_camera_that_is_not_recorded(site: Config, worker: Socket) -> None:
    requests = ClipRequests(site, TrackingMetrics([OPENED.camera], 0.5), None)
    requests.send([OPENED])
    assert not worker.poll(200)
    requests.close()


def test_requests_wait_for_a_worker_that_is_replaced_and_are_then_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = TrackingMetrics([OPENED.camera], 0.5)
    requests = ClipRequests(config(camera(OPENED.camera)), metrics, None)
    requests.send([OPENED] * (MAX_QUEUED + 3))
    assert metrics.clips_lost.labels(OPENED.camera, UNREQUESTED)._value.get() == 3
    with bound(zmq.PULL, f"ipc://clips-{OPENED.camera}.sock", 64) as socket:
        assert len(received(socket, MAX_QUEUED)) == MAX_QUEUED
    requests.watch(config(camera("other")))
    requests.close()


def test_an_alert_that_is_taken_back_ends_its_clip_and_one_that_is_lowered_does_not() -> None:
    lowered = event(EventKind.ALERT_LOWERED, track(7, label="unknown"), alert=ALERT)
    assert clip_request(lowered) is None
    taken_back = event(EventKind.ALERT_LOWERED, track(7, label="bird"), alert=ALERT)
    ended = clip_request(taken_back)
    assert ended is not None and ended.end_pts_s == taken_back.pts_s


def test_an_event_without_a_track_makes_no_request() -> None:
    assert clip_request(msgspec.structs.replace(OPENED, track=None)) is None
