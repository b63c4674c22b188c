"""The segmentation worker with real sockets and channels; only the network is a stand-in that takes a set time."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zmq

from model.errors import EngineLost
from model.metadata import Metadata
from pipeline.config.models import Config
from pipeline.segmentation import in_flight
from pipeline.segmentation import worker as segmentation
from pipeline.segmentation.segmenter import Segmenter
from pipeline.store.ledger import Ledger, read
from pipeline.telemetry.metrics import CaptureMetrics, SegmentationMetrics
from pipeline.transport.channel import Channel
from pipeline.transport.credit import MAX_IN_FLIGHT
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.frame_queue import MAX_FRAMES
from pipeline.transport.link import Uplink
from pipeline.transport.payloads import frame_message
from pipeline.transport.sockets import bound, connected
from pipeline.transport.wire import Credit, CreditRequest, Result, Stamps, decode, encode
from pipeline.types import Band, Cause, Frame, FrameRef

PIXELS = np.zeros((64, 64, 3), np.uint8)


class TimedEngine:
    """Takes a set time for each batch, `max_in_flight` at a time; finds nothing."""

    metadata, judge = Metadata(), None
    device = SimpleNamespace(type="cpu")

    def __init__(self, time_s: float = 0.0, max_in_flight: int = 1) -> None:
        self.time_s = time_s
        self.max_in_flight = max_in_flight
        self.batches: list[int] = []  # frames in each
        self.free = threading.Event()  # while it is not set, batches hang
        self.free.set()
        self._threads = ThreadPoolExecutor(max_in_flight)

    def submit(self, images: np.ndarray) -> "Future[Any]":
        self.batches.append(len(images))
        return self._threads.submit(self._work, len(images))

    def _work(self, count: int) -> np.ndarray:
        time.sleep(self.time_s)
        self.free.wait()
        return np.zeros((count, 1, 64, 64), np.float32)


@contextmanager
def running(
    engine: TimedEngine, cameras: list[str], deadline_s: float = 5.0, objective_s: float = 0.5
) -> Iterator["Future[None]"]:
    stop = threading.Event()
    routers = [bound(zmq.ROUTER, Endpoints.segmentation, high_water=64)]
    worker = segmentation.SegmentationWorker(
        Segmenter(engine),
        Config.model_validate(
            {
                "cameras": [{"id": name, "uri": "demo:"} for name in cameras],
                "objective": {"capture_to_track_ms": 1e3 * objective_s},
            }
        ),
        routers,
        SegmentationMetrics("m", "e", "v"),
        stop,
        deadline_s,
    )
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(worker.run)
        try:
            yield ended
        finally:
            stop.set()
            engine.free.set()


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["zmq.Socket[bytes]"]:
    """The track worker's end, in whose folder all sockets are."""
    monkeypatch.chdir(tmp_path)
    socket = bound(zmq.PULL, Endpoints().results, high_water=1000)
    yield socket
    socket.close()


class FakeCamera:
    """A camera's real channel and ledger."""

    def __init__(self, name: str) -> None:
        self.name, self.path, self.count = name, Path(f"{name}.ledger"), 0
        self.ledger = Ledger(self.path, MAX_IN_FLIGHT)
        rejected = CaptureMetrics(name).refused
        self.channel = Channel(Uplink(), name, "s1", live=True, max_age_s=0.25, ledger=self.ledger, rejected=rejected)

    def offer(self) -> None:
        ref = FrameRef(self.name, "s1", self.count, self.count / 10, time.monotonic_ns(), time.time_ns())
        self.channel.offer(Frame(ref, Band.VISIBLE, PIXELS), Stamps())
        self.count += 1

    def close(self) -> None:
        self.channel.close()
        self.ledger.close()


def received(results: "zmq.Socket[bytes]") -> list[FrameRef]:
    refs = []
    while results.poll(200):
        message, _ = decode(results.recv_multipart())
        assert isinstance(message, Result)
        refs.append(message.ref)
    return refs


def test_a_batch_that_overruns_its_deadline_has_failed_and_is_never_a_result(results: "zmq.Socket[bytes]"):
    engine = TimedEngine()
    engine.free.clear()
    with running(engine, ["north", "south"], deadline_s=0.3):
        cameras = [FakeCamera("north"), FakeCamera("south")]
        for camera in cameras:  # one hangs in the device, the other waits for it
            camera.offer()
        assert all(camera.channel.drain(10) for camera in cameras)
        for camera in cameras:
            account = read(camera.path)
            assert account.failed[Cause.FAILED] == 1 and account.segmented == 0 and account.balanced
        assert received(results) == []
        engine.free.set()
        for camera in cameras:
            camera.offer()
        assert all(camera.channel.drain(10) for camera in cameras)
        assert all(read(camera.path).segmented == 1 for camera in cameras)
        assert sorted((ref.camera, ref.seq) for ref in received(results)) == [("north", 1), ("south", 1)]
        for camera in cameras:
            camera.close()


def test_a_device_that_stays_busy_ends_the_worker_which_is_then_started_again(
    results: "zmq.Socket[bytes]", monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(in_flight, "DEVICE_HANG_TIMEOUT_S", 0.5)
    engine = TimedEngine()
    engine.free.clear()
    with running(engine, ["north"], deadline_s=0.2) as ended:
        camera = FakeCamera("north")
        camera.offer()
        with pytest.raises(EngineLost, match="busy with one batch"):
            ended.result(20)
        camera.close()
        assert read(camera.path).failed[Cause.FAILED] == 1
        engine.free.set()


def test_a_network_that_fails_costs_the_frame_and_not_the_worker(results: "zmq.Socket[bytes]"):
    engine = TimedEngine()
    good = engine.submit
    engine.submit = lambda images: 1 / 0  # type: ignore[assignment,method-assign]
    with running(engine, ["north"]):
        camera = FakeCamera("north")
        camera.offer()
        assert camera.channel.drain(10) and read(camera.path).failed[Cause.FAILED] == 1
        engine.submit = good  # type: ignore[method-assign]
        camera.offer()
        assert camera.channel.drain(10) and read(camera.path).segmented == 1
        camera.close()


def test_a_camera_of_120_frames_a_second_and_a_hung_one_delay_no_other(results: "zmq.Socket[bytes]"):
    """At 20 ms a frame a round of four cameras takes 80 ms: those of 2.5 frames/s lose nothing."""
    seconds, slow_names = 2.0, ["a", "b", "c"]
    with running(TimedEngine(0.02), [*slow_names, "fast", "hung"]):
        hung = connected(zmq.DEALER, Endpoints().segmentation, high_water=4)
        hung.send_multipart(encode(CreditRequest("hung", "s1", True)))  # is given credit, and never sends
        fast, slow = FakeCamera("fast"), [FakeCamera(name) for name in slow_names]
        start_s = time.monotonic()
        for tick in range(round(seconds * 120)):
            time.sleep(max(0.0, start_s + tick / 120 - time.monotonic()))  # cameras keep time by the clock
            fast.offer()
            if tick % 48 == 0:
                for camera in slow:
                    camera.offer()
        assert all(camera.channel.drain(10) for camera in [fast, *slow])
        for camera in slow:
            account = read(camera.path)
            assert account.segmented >= account.captured - 1, account  # at the start one may wait for credit
        fast_account = read(fast.path)
        assert fast_account.dropped[Cause.OVERLOAD] > fast_account.segmented > 10 and fast_account.balanced
        for camera in [fast, *slow]:
            camera.close()
        hung.close()


def test_in_overload_frames_are_young_however_many_cameras_there_are(results: "zmq.Socket[bytes]"):
    """Twenty cameras of 25 frames/s, of which 50 a second can be processed: one round takes 0.4 s."""
    names = [f"cam{number}" for number in range(20)]
    with running(TimedEngine(0.02), names):
        cameras = [FakeCamera(name) for name in names]
        start_s = time.monotonic()
        for tick in range(50):
            time.sleep(max(0.0, start_s + tick / 25 - time.monotonic()))
            for camera in cameras:
                camera.offer()
        assert all(camera.channel.drain(10) for camera in cameras)
        ages_s, counts = [], dict.fromkeys(names, 0)
        while results.poll(200):
            message, _ = decode(results.recv_multipart())
            assert isinstance(message, Result)
            ages_s.append((message.stamps.inferred_ns - message.ref.received_mono_ns) / 1e9)
            counts[message.ref.camera] += 1
        for camera in cameras:
            camera.close()
            assert read(camera.path).balanced and read(camera.path).dropped[Cause.OVERLOAD]
        assert np.percentile(ages_s[20:-20], 90) < 0.2  # 40 ms between frames, and at most two of 20 ms of inference
        assert max(counts.values()) - min(counts.values()) <= 2


def test_a_camera_that_asks_while_its_credit_is_on_the_way_may_ask_again_later(results: "zmq.Socket[bytes]"):
    engine = TimedEngine()
    engine.free.clear()
    with running(engine, ["a", "b", "c"]):
        sockets = {name: connected(zmq.DEALER, Endpoints.segmentation, high_water=4) for name in "abc"}

        def ask(name: str) -> None:
            sockets[name].send_multipart(encode(CreditRequest(name, "s1", True)))

        def answer(name: str) -> Credit:
            assert sockets[name].poll(5000), f"{name} is given no credit"
            message, _ = decode(sockets[name].recv_multipart())
            assert isinstance(message, Credit)
            return message

        ask("a")
        assert answer("a").granted
        ask("a")  # as if the credit had not come yet
        ref = FrameRef("a", "s1", 0, 0.0, time.monotonic_ns(), time.time_ns())
        sockets["a"].send_multipart(frame_message(Frame(ref, Band.VISIBLE, PIXELS), Stamps(), True))
        ask("b")
        assert answer("b").granted  # so the frame of a is with the device
        ask("c")  # has to wait for the place of b, which never sends
        engine.free.set()
        outcome = answer("a")
        assert outcome.segmented == [0]
        if not outcome.granted:
            ask("a")
            assert answer("a").granted
        for socket in sockets.values():
            socket.close(0)


def test_what_a_busy_gpu_cannot_begin_yet_waits_for_the_frames_of_other_cameras(results: "zmq.Socket[bytes]"):
    engine = TimedEngine(0.3)
    engine.device = SimpleNamespace(type="cuda")
    names = ["a", "b", "c"]
    with running(engine, names, objective_s=5.0):
        cameras = {name: FakeCamera(name) for name in names}
        for _ in range(2):  # the first round tells how long a batch takes
            for camera in cameras.values():
                camera.offer()
            assert all(camera.channel.drain(10) for camera in cameras.values())
        engine.batches.clear()
        cameras["a"].offer()
        while not engine.batches:  # the device has begun
            time.sleep(0.005)
        cameras["b"].offer()
        time.sleep(0.05)  # the second camera's frame is there, the third's not yet
        cameras["c"].offer()
        assert all(camera.channel.drain(10) for camera in cameras.values())
        assert engine.batches == [1, 2]
        for camera in cameras.values():
            camera.close()


@pytest.mark.parametrize("max_in_flight", [1, 2])
def test_as_many_frames_of_a_camera_are_under_way_as_the_engine_takes_at_once(
    results: "zmq.Socket[bytes]", max_in_flight: int
):
    engine = TimedEngine(max_in_flight=max_in_flight)
    engine.free.clear()
    with running(engine, ["north"]):
        camera = FakeCamera("north")
        for count in range(1, max_in_flight + 1):
            camera.offer()
            while len(engine.batches) < count:  # no frame but that one is offered before it is with the device
                time.sleep(0.005)
        for _ in range(MAX_FRAMES):
            camera.offer()
        assert read(camera.path).in_flight == max_in_flight and not read(camera.path).dropped[Cause.OVERLOAD]
        camera.offer()  # takes the place of those that wait
        assert read(camera.path).in_flight == max_in_flight and read(camera.path).dropped[Cause.OVERLOAD] == MAX_FRAMES
        engine.free.set()
        assert camera.channel.drain(10)
        assert [ref.seq for ref in received(results)] == [*range(max_in_flight), max_in_flight + MAX_FRAMES]
        camera.close()
        account = read(camera.path)
        assert account.segmented == max_in_flight + 1 and account.balanced


def test_credit_that_a_frame_has_used_up_already_is_not_used_again(results: "zmq.Socket[bytes]"):
    """An outcome that was sent before the last frame arrived still reports the credit which that frame used up."""
    router = bound(zmq.ROUTER, Endpoints.segmentation, high_water=64)

    def message() -> Any:
        assert router.poll(5000)
        identity, *parts = router.recv_multipart()
        return identity, decode(parts)[0]

    def arrival() -> int:
        """The next frame's number; it may ask for credit that is on its way."""
        while isinstance(received := message()[1], CreditRequest):
            pass
        return received.ref.seq

    def report(**outcomes: Any) -> None:
        router.send_multipart([identity, *encode(Credit("w", "s1", **outcomes))])

    camera = FakeCamera("north")
    camera.offer()
    identity, _ = message()
    report(granted=True)
    assert arrival() == 0
    report(granted=True, newest=0)
    camera.offer()
    assert arrival() == 1
    report(segmented=[0], granted=True, newest=0)
    while not read(camera.path).segmented:  # the outcome has arrived
        time.sleep(0.005)
    camera.offer()
    assert isinstance(message()[1], CreditRequest), "it asks"
    report(granted=True, newest=1)
    assert arrival() == 2
    camera.close()
    router.close(0)
