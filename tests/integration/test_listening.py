"""An address that is taken, or not there yet, ends nothing: it is tried again, said once, and served when free."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from queue import Queue

import pytest
import yaml
import zmq
from prometheus_client import CollectorRegistry, Counter, Gauge
from structlog.testing import capture_logs
from support.console_site import until
from support.program import Running, free_port

from pipeline.config.console import Address
from pipeline.config.models import Config
from pipeline.telemetry.health import serve
from pipeline.telemetry.host import HostMetricsCollector
from pipeline.telemetry.metrics import WorkerMetrics, families
from pipeline.transport import bind_retry
from pipeline.transport import listener as listening
from pipeline.transport.bind_retry import listen_when_free
from pipeline.transport.link import HostAuthenticator
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import connected
from pipeline.transport.wire import Heartbeat

REFUSED = "cannot listen, trying again until it works"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bind_retry, "PAUSES_S", (0.02, 0.05))


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@contextmanager
def served(address: Address, registry: CollectorRegistry, faults: list[str]) -> Iterator["Queue[str]"]:
    urls: Queue[str] = Queue()
    stop = threading.Event()
    serve(address, registry, lambda: faults, stop, urls.put)
    yield urls
    stop.set()


def refusals(logs: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(e["log_level"], e["service"], e["reason"]) for e in logs if e["event"] == REFUSED]


def test_the_metrics_are_served_as_soon_as_their_port_is_free(taken: socket.socket):
    address = Address(port=taken.getsockname()[1])
    with capture_logs() as logs, served(address, CollectorRegistry(), []) as urls:
        until(lambda: len(refusals(logs)) > 3)
        assert urls.empty()
        taken.close()
        url = urls.get(timeout=5)
        assert url == f"http://127.0.0.1:{address.port}/metrics"
        assert urllib.request.urlopen(url, timeout=5).status == 200
    assert refusals(logs)[0] == ("warning", "metrics", "Address already in use")
    assert {level for level, _, _ in refusals(logs)[1:]} == {"debug"}
    assert [entry["event"] for entry in logs][-1] == "listening now"


def test_the_metrics_answer_whatever_silent_connections_there_are(monkeypatch: pytest.MonkeyPatch):
    faults: list[str] = []
    with served(Address(), CollectorRegistry(), faults) as urls, ExitStack() as held:
        url = urls.get(timeout=5)
        port = int(url.split(":")[2].partition("/")[0])
        before = threading.active_count()
        silent = [held.enter_context(socket.create_connection(("127.0.0.1", port), 5)) for _ in range(300)]
        assert urllib.request.urlopen(url, timeout=5).status == 200
        until(lambda: threading.active_count() <= before + listening.MAX_IDLE)
        assert [silent[0].recv(1), silent[100].recv(1)] == [b"", b""], "the oldest were closed"
        faults.append("console: cannot listen at its address")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url.replace("metrics", "readyz"), timeout=5)
        assert json.load(refused.value) == {"ready": False, "not_ready": faults}


def test_a_console_whose_address_is_not_there_is_not_ready_until_it_is(taken: socket.socket):
    metrics = WorkerMetrics("console")
    listening_now = metrics.listening.labels("console")
    port = taken.getsockname()[1]
    camera = {"id": "north", "uri": "demo:scene"}
    collector = HostMetricsCollector(Config.model_validate({"cameras": [camera]}), ["console"])
    found: list[listening.Listener | None] = []

    def wait() -> None:
        found.append(listen_when_free("console", "127.0.0.1", port, threading.Event(), listening_now))

    waiting = threading.Thread(target=wait)

    def not_ready() -> list[str]:
        collector.receive(Heartbeat("console", 1, 1, families(metrics.registry)))
        return [fault for fault in collector.not_ready() if "console" in fault]

    with capture_logs() as logs:
        waiting.start()
        until(lambda: len(refusals(logs)) > 2)
        assert not_ready() == metrics.not_ready() == ["console: cannot listen at its address"]
        taken.close()
        waiting.join(5)
    assert not_ready() == metrics.not_ready() == []
    assert found[0] is not None
    found[0].close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_who_waits_for_an_address_ends_when_told_to(host: str):
    stop = threading.Event()
    listening_now = WorkerMetrics("console").listening.labels("console")
    with capture_logs() as logs:
        waiting = threading.Thread(target=listen_when_free, args=("console", host, 8080, stop, listening_now))
        waiting.start()
        until(lambda: refusals(logs))
        stop.set()
        waiting.join(10)
        assert not waiting.is_alive()


def test_the_link_is_listened_at_when_its_port_is_free(taken: socket.socket):
    port = taken.getsockname()[1]
    link = {"host": "127.0.0.1", "port": port, "encrypted": False}
    config = Config.model_validate({"cameras": [{"id": "far", "uri": "demo:scene", "host": "edge"}], "link": link})
    assert config.link is not None
    gauge = Gauge("listening", "Text.", ["service"], registry=None)
    gate = HostAuthenticator(config, config.link, RejectLog("link", Counter("refused", "Text.", registry=None)))
    with capture_logs() as logs, closing(gate):
        listener = gate.listener(zmq.PULL, port, 8, gauge)
        until(lambda: listener.bind() or len(refusals(logs)) > 2)
        assert [sample.value for sample in gauge.collect()[0].samples] == [0]
        taken.close()
        until(lambda: listener.bind() or [sample.value for sample in gauge.collect()[0].samples] == [1])
        with closing(connected(zmq.PUSH, f"tcp://127.0.0.1:{port}", high_water=4, linger_ms=500, patient=True)) as peer:
            peer.send(b"frame")
            assert listener.socket.poll(5000) and listener.socket.recv() == b"frame"
        listener.socket.close()
    assert refusals(logs)[0] == ("warning", "link", "Address already in use")


@pytest.mark.live
def test_the_program_segments_with_the_ports_of_console_and_metrics_taken_and_serves_them_when_free(tmp_path: Path):
    held = {name: socket.create_server(("127.0.0.1", free_port())) for name in ("metrics", "console")}
    ports = {name: {"port": listener.getsockname()[1]} for name, listener in held.items()}
    site = {"cameras": [{"id": "north", "uri": "demo:scene?fps=4"}], "run_dir": str(tmp_path / "run"), **ports}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    with Running("run", tmp_path / "site.yaml") as program:
        program.wait_for_line("cannot listen.*service=console")
        program.wait_for_line("cannot listen.*service=metrics")
        held["metrics"].close()
        program.wait_for_metric('dasnet_frames_segmented_total{camera="north"}', 3, timeout_s=120)
        url = program.wait_for_line("metrics: (http.*)/metrics$")[1]
        assert program.metrics()['dasnet_listening{service="console"}'] == 0
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/readyz", timeout=5)
        assert "console: cannot listen at its address" in json.load(refused.value)["not_ready"]
        held["console"].close()
        console = program.wait_for_line(r"^console: (http://127.0.0.1:\d+/)$", timeout_s=30)[1]
        assert urllib.request.urlopen(console, timeout=5).status == 200
        program.wait_for_metric('dasnet_listening{service="console"}', 1)
        deadline_s = time.monotonic() + 15  # the console finds the metrics, which came late
        while b'"build":{"' not in urllib.request.urlopen(f"{console}api/v1/status", timeout=5).read():
            assert time.monotonic() < deadline_s
            time.sleep(0.5)
        assert sum("cannot listen" in line for line in program.lines) == 2
        assert program.stop() == 0
