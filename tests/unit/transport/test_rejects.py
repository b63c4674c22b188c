"""Garbage on every socket of every worker: rejected, counted, logged once per source; the worker runs on."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
import zmq
from support.garbage import as_bytes, garbage
from support.program import Running
from support.scenes import SURE_UAV, UNSURE, frame

from model.metadata import Thresholds
from pipeline.errors import WireError
from pipeline.store import ledger
from pipeline.tracking.stage import TrackStage
from pipeline.transport import live
from pipeline.transport.payloads import detections_of, frame_message, frame_of, result_message
from pipeline.transport.wire import (
    Credit,
    CreditRequest,
    EndOfStream,
    Heartbeat,
    LedgerCopy,
    Result,
    Sample,
    Stamps,
    TimeReply,
    TimeRequest,
    decode,
    encode,
)
from pipeline.types import Band, CameraState, Cause, Frame, FrameRef

REF = FrameRef("spare", "s1", 7, 1.5, 123, 456, 789)
PIXELS = np.zeros((64, 64, 3), np.uint8)
FRAMES = [
    as_bytes(encode(CreditRequest("spare", "s1", True))),
    as_bytes(frame_message(Frame(REF, Band.VISIBLE, PIXELS), Stamps(), True)),
    as_bytes(encode(EndOfStream("spare", "s1"))),
    as_bytes(encode(TimeRequest("spare", "s1", 123))),
    as_bytes(frame_message(Frame(REF, Band.VISIBLE, PIXELS), Stamps(), True, jpeg=True)),
]
RESULTS = [
    as_bytes(
        result_message(frame(3, [(50, 60, 8, SURE_UAV), (200, 100, 20, UNSURE)], camera="spare"), Stamps(), b"\xff\xd8")
    ),
    as_bytes(encode(CameraState("spare", "s1", True, Cause.FROZEN, 1, 1.0, 3))),
    as_bytes(encode(EndOfStream("spare", "s1"))),
    as_bytes(encode(LedgerCopy("spare", "s1", bytes(64)))),
]
BEATS = [
    as_bytes(
        encode(
            Heartbeat(
                "capture-spare", 1, 1, {"dasnet_x": ("counter", "Text.", [Sample("dasnet_x_total", {"a": "b"}, 1.0)])}
            )
        )
    )
]
CREDITS = [as_bytes(encode(Credit("w", "s1", [1], [2]))), as_bytes(encode(TimeReply("s1", 1, 2)))]
LIVE = [live.encode(live.LiveFrame("spare", "s1", 3, 0.1, 1, 64, 64, []), b"\xff\xd8jpeg")]
COUNT = 400


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("real", [FRAMES, RESULTS, BEATS, CREDITS], ids=["frames", "results", "beats", "credits"])
def test_what_is_not_rejected_can_be_processed(real: list[list[bytes]], seed: int):
    """The same garbage without sockets, more of it: nothing but a WireError, in decoding and in tracking."""
    stage, refused = TrackStage(dict.fromkeys(Band, Thresholds())), 0
    for message in garbage(seed, real, 3000):
        try:
            decoded, buffers = decode(message)
            if isinstance(decoded, Result):
                detections = detections_of(decoded)
                if len(detections.classes) != 4:
                    continue  # the worker compares them with the session's
                stage.update(detections)
            elif hasattr(decoded, "shape"):
                frame_of(decoded, buffers)
        except WireError:
            refused += 1
    assert refused > 1000


@contextmanager
def sending(kind: int, endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.setsockopt(zmq.LINGER, 5000)
        socket.setsockopt(zmq.SNDTIMEO, 20_000)
        socket.connect(endpoint)
        yield socket


def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    cameras = [
        {"id": "north", "uri": "demo:scene?fps=4", "rate_fps": 2},
        {"id": "spare", "uri": "rtsp://127.0.0.1:9/none"},  # is never up: its name is the garbage's
    ]
    ports = {"metrics": {"port": 0}, "console": {"port": 0}}
    path.write_text(yaml.safe_dump({"cameras": cameras, "run_dir": str(tmp_path / "run"), **ports}))
    return path


def refused(worker: str) -> str:
    return f'dasnet_messages_refused_total{{worker="{worker}"}}'


@pytest.mark.slow
@pytest.mark.live
def test_garbage_on_the_sockets_of_the_running_program_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    segmented = 'dasnet_frames_segmented_total{camera="north"}'
    with Running("run", site(tmp_path)) as program:
        program.wait_for_metric(segmented, 1)
        monkeypatch.chdir(tmp_path / "run")  # paths of sockets must be short
        for seed, (kind, name, real) in enumerate(
            [(zmq.DEALER, "segmentation", FRAMES), (zmq.PUSH, "results", RESULTS), (zmq.PUSH, "heartbeat", BEATS)]
        ):
            with sending(kind, f"ipc://{name}.sock") as socket:
                for message in garbage(seed, real, COUNT):
                    socket.send_multipart(message)
        for worker in ("segmentation", "tracking", "supervisor"):
            program.wait_for_metric(refused(worker), COUNT // 3)
        before = program.metrics()[segmented]
        program.wait_for_metric(segmented, before + 3)
        values = program.metrics()
        assert sum(value for name, value in values.items() if name.startswith("dasnet_worker_restarts_total")) == 0
        assert all(ledger.read(Path("ledgers/north.ledger")).balanced for _ in range(100))
        assert program.stop() == 0
        told = [line for line in program.lines if "message rejected" in line]
        assert len(told) == 3, "\n".join(told)  # one a source
    assert sqlite3.connect("store.sqlite").execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.live
@pytest.mark.parametrize(
    ("worker", "arguments", "kind", "socket_name", "real"),
    [
        ("capture-north", ["capture", "--camera", "north"], zmq.ROUTER, "segmentation", CREDITS),
        ("console", ["console"], zmq.PUB, "live", LIVE),
    ],
)
def test_garbage_from_the_peer_of_a_worker(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    worker: str,
    arguments: list[str],
    kind: int,
    socket_name: str,
    real: list[list[bytes]],
):
    """Where a worker connects, the garbage comes from whom it connects to."""
    config = site(tmp_path)
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(f"ipc://{socket_name}.sock")
        with Running("worker", *arguments, config, "--metrics-port", "0") as program:
            prefix: list[bytes] = []
            if kind == zmq.ROUTER:
                assert socket.poll(60_000)
                prefix = [socket.recv_multipart()[0]]
            else:
                program.wait_for_line("console: http")
            deadline_s, seed = time.monotonic() + 30, 0
            while program.metrics().get(refused(worker), 0) < 100 and time.monotonic() < deadline_s:
                for message in garbage(seed, real, 200):  # again, for a subscriber may have come late
                    socket.send_multipart([*prefix, *message])
                seed += 1
            assert program.metrics()[refused(worker)] >= 100
            assert program.process.poll() is None and program.stop() == 0
    assert len([line for line in program.lines if "message rejected" in line]) == 1, os.linesep.join(program.lines)
