"""Benchmark of frame transport from the capture worker to the segmentation worker, without inference.

    python3 scripts/bench_transport.py --json transport.json

Three methods in turn, at a camera's steady rate: ours (the real channel, ledger and segmentation worker with a null
segmenter), PUB/SUB with pickled frames, and a multiprocessing queue.  Timed from the decoder's output until the other
process has the frame.  The last line is one JSON object; exit code 1 where a limit is missed.
"""

import argparse
import json
import multiprocessing
import os
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from model.allocator import keep_memory
from pipeline.config.models import Config
from pipeline.store.ledger import Ledger
from pipeline.telemetry.metrics import CaptureMetrics, SegmentationMetrics
from pipeline.transport.channel import Channel
from pipeline.transport.credit import MAX_IN_FLIGHT
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.link import Uplink
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.wire import Result, Stamps, decode
from pipeline.types import Band, Detections, Frame, FrameRef

SIZES = {"640x512": (512, 640, 3), "1920x1080": (1080, 1920, 3)}
BARS_MS = {"640x512": 2.0, "1920x1080": 8.0}  # limits of our p99
CAMERA = "bench"
WARM_UP_FRAMES = 10  # not timed: connections, first access of memory
LAST = -1.0
START_S, ROUND_S = 60.0, 120.0

Pixels = NDArray[np.uint8]
Latencies = list[float]  # ms
Spawn = multiprocessing.get_context("spawn")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=250, help="of each method, size and round")
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from pipeline.bench.results import machine  # imports torch, which the receiving processes need not

    about = machine()
    ways = {"credit flow": credit_flow, "PUB/SUB, pickled": publish_pickled, "multiprocessing queue": queue}
    latencies: dict[tuple[str, str], Latencies] = {(size, way): [] for size in SIZES for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for _ in range(options.rounds):
            for size, shape in SIZES.items():
                images = [np.random.default_rng(n).integers(0, 256, shape, np.uint8) for n in range(4)]
                for way, carry in ways.items():
                    latencies[size, way] += carry(images, options.frames, options.fps)[WARM_UP_FRAMES:]
        os.chdir("/")
    result = {
        "machine": about,
        "fps": options.fps,
        "rounds": options.rounds,
        "sizes": {size: {way: figures(latencies[size, way]) for way in ways} for size in SIZES},
        "bars_p99_ms": BARS_MS,
    }
    print(table(result["sizes"]))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["sizes"]))
    met = all(figures(latencies[size, "credit flow"])["p99_ms"] <= bar for size, bar in BARS_MS.items())
    return 0 if met else 1


def figures(latencies: Latencies) -> dict[str, float]:
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99))
    named = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": max(latencies), "frames": len(latencies)}
    return {name: round(float(value), 3) for name, value in named.items()}


def table(sizes: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = ["| size | method | frames | p50 ms | p95 ms | p99 ms | p99, times ours |", "|" + " --- |" * 7]
    for size, ways in sizes.items():
        ours = ways["credit flow"]["p99_ms"]
        for way, of_way in ways.items():
            values = (of_way["p50_ms"], of_way["p95_ms"], of_way["p99_ms"])
            shown = " | ".join(f"{value:.2f}" for value in values)
            lines.append(f"| {size} | {way} | {of_way['frames']:.0f} | {shown} | {of_way['p99_ms'] / ours:.1f} |")
    return "\n".join(lines)


def paced(images: list[Pixels], frames: int, fps: float) -> Iterator[tuple[int, Pixels]]:
    """Yield copies of images at a camera's steady rate."""
    next_s = time.monotonic()
    for number in range(frames):
        yield number, images[number % len(images)].copy()
        next_s += 1 / fps
        time.sleep(max(0.0, next_s - time.monotonic()))


@contextmanager
def receiving(target: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Run the receiving process; yield its pipe once it is ready."""
    here, there = Spawn.Pipe()
    process = Spawn.Process(target=target, args=(there, *arguments))
    process.start()
    try:
        if not here.poll(START_S):
            raise TimeoutError("the receiving process did not start")
        here.recv()
        yield here
        process.join(ROUND_S)
    finally:
        process.kill()
        process.join()


class NullSegmenter:
    """Null segmenter: takes no time and has no detections."""

    engine = SimpleNamespace(device=SimpleNamespace(type="cpu"), max_in_flight=1)
    share = 1.0

    def submit(self, frames: Sequence[Frame]) -> SimpleNamespace:
        done: Future[None] = Future()
        done.set_result(None)
        now_ns = time.monotonic_ns()
        return SimpleNamespace(frames=frames, done=done, started_ns=now_ns, inferred_ns=now_ns)

    def revisit_s(self, _camera: str) -> float:
        return 0.0

    def finish(self, batch: SimpleNamespace) -> list[Detections]:
        return [empty_detections(frame) for frame in batch.frames]


def empty_detections(frame: Frame) -> Detections:
    none = np.zeros((0, 4), np.float32)
    columns = (none, none[:, 0], none[:, 0], none[:, 0], none[:, 0], none[:, :1], none[:, 0], none[:, :2])
    return Detections(frame.ref, frame.band, frame.size_px, ("uav",), *columns)


def _segmentation(there: Connection) -> None:
    from pipeline.segmentation import preview
    from pipeline.segmentation import worker as segmentation

    preview.jpeg_preview = lambda frame: b""  # noqa: ARG005 - not part of the transport
    keep_memory()  # as a CPU engine does
    stop = threading.Event()
    routers = [bound(zmq.ROUTER, Endpoints.segmentation, high_water=64)]
    metrics = SegmentationMetrics("none", "none", "none")
    segmenter: Any = NullSegmenter()
    config = Config.model_validate({"cameras": [{"id": CAMERA, "uri": "demo:"}]})
    worker = segmentation.SegmentationWorker(segmenter, config, routers, metrics, stop)
    thread = threading.Thread(target=worker.run)
    thread.start()
    there.send("there")
    there.recv()
    stop.set()
    thread.join()


def credit_flow(images: list[Pixels], frames: int, fps: float) -> Latencies:
    results = bound(zmq.PULL, Endpoints.results, high_water=1000)
    latencies: Latencies = []
    with receiving(_segmentation) as receiver, Ledger(Path("bench.ledger"), MAX_IN_FLIGHT) as ledger:
        rejected = CaptureMetrics(CAMERA).refused
        channel = Channel(Uplink(), CAMERA, "s1", live=False, max_age_s=0.25, ledger=ledger, rejected=rejected)
        for number, pixels in paced(images, frames, fps):
            ref = FrameRef(CAMERA, "s1", number, number / fps, time.monotonic_ns(), time.time_ns())
            channel.offer(Frame(ref, Band.VISIBLE, pixels), Stamps())
        if not channel.drain(ROUND_S):
            raise TimeoutError("frames without an outcome")
        channel.close()
        while results.poll(200):
            message, _ = decode(results.recv_multipart())
            if isinstance(message, Result):
                latencies.append((message.stamps.arrived_ns - message.ref.received_mono_ns) / 1e6)
        receiver.send("stop")
    results.close()
    return latencies


def _subscriber(there: Connection) -> None:
    socket: Socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 64)
    socket.connect("ipc://bench.sock")
    socket.subscribe(b"")
    there.send("there")
    _collect(there, lambda: pickle.loads(socket.recv()))
    socket.close()


def publish_pickled(images: list[Pixels], frames: int, fps: float) -> Latencies:
    socket: Socket = zmq.Context.instance().socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 64)
    socket.bind("ipc://bench.sock")
    with receiving(_subscriber) as receiver:
        time.sleep(0.5)  # PUB/SUB does not report subscriptions
        for _, pixels in paced(images, frames, fps):
            socket.send(pickle.dumps((time.monotonic(), pixels)))
        socket.send(pickle.dumps((LAST, None)))
        latencies: Latencies = receiver.recv()
    socket.close()
    return latencies


def _consumer(there: Connection, frames: Any) -> None:
    there.send("there")
    _collect(there, frames.get)


def queue(images: list[Pixels], frames: int, fps: float) -> Latencies:
    waiting = Spawn.Queue(64)
    with receiving(_consumer, waiting) as receiver:
        for _, pixels in paced(images, frames, fps):
            waiting.put((time.monotonic(), pixels))
        waiting.put((LAST, None))
        latencies: Latencies = receiver.recv()
    return latencies


def _collect(there: Connection, take: Callable[[], tuple[float, Any]]) -> None:
    latencies: Latencies = []
    while (sent_s := take()[0]) != LAST:
        latencies.append((time.monotonic() - sent_s) * 1e3)
    there.send(latencies)


if __name__ == "__main__":
    sys.exit(main())
