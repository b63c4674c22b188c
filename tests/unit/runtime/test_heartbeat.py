"""A worker whose own loop hangs sends no more heartbeats, so that the supervisor restarts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from pipeline.runtime.heartbeat import HeartbeatSender
from pipeline.telemetry.metrics import CaptureMetrics
from pipeline.timeouts import HEARTBEAT_PERIOD_S as PERIOD_S
from pipeline.transport.sockets import bound
from pipeline.transport.wire import Heartbeat, decode


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[tuple[str, "zmq.Socket[bytes]"]]:
    address = f"ipc://{tmp_path}/heartbeat"
    socket = bound(zmq.PULL, address, high_water=64)
    yield address, socket
    socket.close()


def receives(socket: "zmq.Socket[bytes]", within_s: float) -> bool:
    if not socket.poll(round(within_s * 1000)):
        return False
    message, _ = decode([frame.buffer for frame in socket.recv_multipart(copy=False)])
    assert isinstance(message, Heartbeat) and message.worker == "capture-north"
    return True


def test_heartbeats_stop_when_the_loop_hangs_and_resume_with_it(supervisor: tuple[str, "zmq.Socket[bytes]"]) -> None:
    address, socket = supervisor
    with HeartbeatSender(address, CaptureMetrics("north"), watchdog_timeout_s=1.5 * PERIOD_S) as sender:
        assert receives(socket, 5 * PERIOD_S)
        while receives(socket, 3 * PERIOD_S):
            pass  # those under way; the loop makes no progress
        sender.progress()
        assert receives(socket, 3 * PERIOD_S)
    assert receives(socket, 3 * PERIOD_S), "the last one, so that no count is lost"


def test_without_a_watchdog_timeout_heartbeats_continue(supervisor: tuple[str, "zmq.Socket[bytes]"]) -> None:
    address, socket = supervisor
    with HeartbeatSender(address, CaptureMetrics("north")):
        assert all(receives(socket, 5 * PERIOD_S) for _ in range(4))
