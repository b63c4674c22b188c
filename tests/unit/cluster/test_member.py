"""Hosts that share cameras over a real NATS server: cut off, misconfigured, unanswered; no event lost or doubled."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import yaml
from structlog.testing import capture_logs
from support.cluster_host import Host
from support.cluster_log import Log, check_one_owner
from support.events import event, until
from support.nats_server import LOGIN, NatsServer, needs_nats
from support.program import free_port

from pipeline.cluster import jetstream, member
from pipeline.cluster.leases import LEASE_S
from pipeline.cluster.owners import Owners
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.diagnostics.nats_check import check_nats
from pipeline.errors import ClusterError
from pipeline.sinks.event_log import EventLogSink, raised_by
from pipeline.types import EventKind

pytestmark = needs_nats
CAMERAS = [f"camera{number}" for number in range(6)]
TAKE_OVER_S = 5.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as started:
        yield started


def site(folder: Path, *urls: str) -> Config:
    path = folder / f"site{urls[0].rpartition(':')[2]}.yaml"
    hosts = {name: {"address": "127.0.0.1"} for name in ("alpha", "beta", "gamma")}
    cameras = [{"id": name, "uri": "demo:scene"} for name in CAMERAS]
    path.write_text(yaml.safe_dump({"cameras": cameras, "hosts": hosts, "nats": {"servers": list(urls)}}))
    return load(path)


@contextmanager
def hosts(config: Config, *names: str) -> Iterator[list[Host]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Host(config, name).start())) for name in names]


def owns(host: Host, cameras: set[str]) -> bool:
    return set(host.tokens) == cameras


def shared_by(some: Sequence[Host]) -> bool:
    """Whether every camera has one owner, and every host some camera."""
    owned = [camera for host in some for camera in list(host.tokens)]
    return sorted(owned) == CAMERAS and all(host.tokens for host in some)


def test_cameras_are_shared_and_handed_over_with_their_tracks_and_no_event_is_lost(server: NatsServer, tmp_path: Path):
    config = site(tmp_path, server.url)
    with hosts(config, "alpha") as (alpha,):
        until(lambda: owns(alpha, set(CAMERAS)), 30)
        with hosts(config, "beta") as (beta,):
            until(lambda: shared_by([alpha, beta]), 30)
            for camera in beta.tokens:
                assert beta.left[camera].startswith(b"alpha"), "its last tracks"
            assert sorted(alpha.handed_over) == sorted(beta.tokens)
            until(lambda: beta.sample("dasnet_camera_owner", camera=next(iter(beta.tokens)), host="beta") == 1, 10)
            moved = set(beta.tokens)
        started_s = time.monotonic()
        until(lambda: owns(alpha, set(CAMERAS)), 30)
        assert time.monotonic() - started_s < LEASE_S, "who leaves frees its cameras"
        until(lambda: {item.id for item in alpha.stored} == {item.id for item in beta.raised}, 30)
        assert alpha.sample("dasnet_camera_acquired_total", camera=next(iter(moved)), cause="free") == 2
    check_one_owner(Log.read(config), {item.id for host in (alpha, beta) for item in host.raised})


def test_a_host_that_is_cut_off_loses_its_cameras_in_time_and_cannot_write_any_more(server: NatsServer, tmp_path: Path):
    config = site(tmp_path, server.url)
    with Relay(server.port) as relay, hosts(config, "beta") as (beta,):
        apart = site(tmp_path, f"nats://{LOGIN}@127.0.0.1:{relay.port}")
        with hosts(apart, "alpha") as (alpha,):
            until(lambda: shared_by([alpha, beta]), 30)
            lost, raised = dict(alpha.tokens), len(alpha.raised)
            until(lambda: len(alpha.raised) > raised + 100, 20)  # its tracks are saved
            relay.cut()
            started_s = time.monotonic()
            until(lambda: owns(beta, set(CAMERAS)), 20)
            assert time.monotonic() - started_s < TAKE_OVER_S
            assert alpha.tokens == lost, "it goes on by itself"
            assert all(beta.tokens[camera] > token for camera, token in lost.items())
            assert beta.left[next(iter(lost))].startswith(b"alpha")
            relay.mend()
            until(lambda: shared_by([alpha, beta]), 30)
            until(lambda: not alpha.unshared, 20)
            fenced = sum(alpha.sample("dasnet_events_fenced_total", camera=camera) for camera in lost)
            assert fenced > 0
            others = {item.id for item in beta.raised}
            until(lambda: {item.id for item in alpha.stored} >= others, 20)
    log = Log.read(config)
    check_one_owner(log, {item.id for item in beta.raised})
    written = {identity for message in log.messages for identity in message.events}
    assert 0 < len({item.id for item in alpha.raised} - written) <= fenced, "some were written, unanswered"


def test_while_the_server_is_away_owners_go_on_and_share_later(server: NatsServer, tmp_path: Path):
    config = site(tmp_path, server.url)
    with hosts(config, "alpha", "beta") as (alpha, beta):
        until(lambda: shared_by([alpha, beta]), 30)
        before = alpha.tokens | beta.tokens
        server.kill()
        until(lambda: alpha.sample("dasnet_nats_connected") == beta.sample("dasnet_nats_connected") == 0, 20)
        waited = len(alpha.raised)
        time.sleep(LEASE_S + 0.5)  # its lease runs out
        assert len(alpha.raised) > waited and alpha.unshared
        assert not alpha.member._leases.is_valid(time.monotonic())
        server.start()
        until(lambda: not alpha.unshared and not beta.unshared, 30)
        assert alpha.tokens | beta.tokens == before, "the same owners with the same tokens"
    check_one_owner(Log.read(config), {item.id for host in (alpha, beta) for item in host.raised})


def test_answers_that_are_lost_double_no_event(server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, write = site(tmp_path, server.url), jetstream.JetStream.write_events
    calls = 0

    async def unanswered(self: jetstream.JetStream, *arguments: object) -> int | None:
        nonlocal calls
        calls += 1
        sequence = await write(self, *arguments)  # type: ignore[arg-type]
        if calls % 3 == 0:
            raise ClusterError("no answer")
        return sequence

    monkeypatch.setattr(jetstream.JetStream, "write_events", unanswered)
    with hosts(config, "alpha") as (alpha,):
        until(lambda: owns(alpha, set(CAMERAS)) and len(alpha.raised) > 200, 40)
    monkeypatch.undo()
    log = Log.read(config)
    check_one_owner(log, {item.id for item in alpha.raised if item not in alpha.unshared})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"login": "dasnet:wrong"}, r"nats://127.0.0.1:\d+: user or password rejected"),
        ({"port": 1}, r"nats://127.0.0.1:1: cannot connect"),
    ],
)
def test_what_is_wrong_with_the_servers_is_told_once_and_without_the_password(
    server: NatsServer, tmp_path: Path, change: dict, told: str
):
    url = f"nats://{change.get('login', LOGIN)}@127.0.0.1:{change.get('port', server.port)}"
    with pytest.raises(ClusterError, match=told) as fault:
        asyncio.run(jetstream.JetStream.connect(site(tmp_path, url).nats, "test", 1))  # type: ignore[arg-type]
    assert "wrong" not in str(fault.value) and "word" not in str(fault.value).replace("password", "")


def test_a_host_of_another_version_is_refused_by_name_and_the_others_go_on(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = site(tmp_path, server.url)
    with hosts(config, "alpha") as (alpha,), capture_logs() as logs:
        until(lambda: owns(alpha, set(CAMERAS)), 30)
        monkeypatch.setattr(member, "__version__", "0.0.1")
        other = Host(config, "beta")
        with closing(other.start()):
            until(lambda: any("not joining" in str(entry["event"]) for entry in logs), 20)
            reason = next(entry["reason"] for entry in logs if "not joining" in str(entry["event"]))
            assert reason.startswith("host 'beta' runs dasnet 0.0.1: must be ") and "as host 'alpha' runs" in reason
            assert owns(alpha, set(CAMERAS)) and not other.tokens


class Relay:
    """A connection to the server that can be cut as a cable is: nothing passes, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._passes = threading.Event()
        self._passes.set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._passes.clear()

    def mend(self) -> None:
        self._passes.set()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._passes.wait()
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._listener.close()
        self.mend()


def test_check_names_the_servers_and_the_hosts_that_run(server: NatsServer, tmp_path: Path):
    config = site(tmp_path, server.url)
    with hosts(config, "alpha") as (alpha,):
        until(lambda: owns(alpha, set(CAMERAS)), 30)
        lines, healthy = check_nats(config)
        assert healthy and f"nats://127.0.0.1:{server.port} is there; hosts: alpha (" in lines[0]
    lines, healthy = check_nats(site(tmp_path, "nats://dasnet:wrong@127.0.0.1:1"))
    assert not healthy and lines == ["  nats FAILED: nats://127.0.0.1:1: cannot connect"]


def test_an_edge_host_follows_the_owners_and_keeps_the_last_known_ones(server: NatsServer, tmp_path: Path):
    config = site(tmp_path, server.url)
    assert config.nats is not None
    with closing(Owners(config.nats, "edge", 1)) as owners:
        with hosts(config, "alpha") as (alpha,):
            until(lambda: {owners.of(camera) for camera in CAMERAS} == {"alpha"}, 30)
            with hosts(config, "beta") as (beta,):
                until(lambda: shared_by([alpha, beta]), 30)
                wanted = dict.fromkeys(alpha.tokens, "alpha") | dict.fromkeys(beta.tokens, "beta")
                until(lambda: {camera: owners.of(camera) for camera in CAMERAS} == wanted, 10)
                server.kill()
            assert {camera: owners.of(camera) for camera in CAMERAS} == wanted
        assert owners.of("unknown") is None


def test_what_an_operator_does_is_shared_whoever_owns_the_camera(server: NatsServer, tmp_path: Path):
    config = site(tmp_path, server.url)
    with hosts(config, "alpha", "beta") as (alpha, beta):
        until(lambda: shared_by([alpha, beta]), 30)
        acknowledged = event(EventKind.ALERT_ACKNOWLEDGED, camera=next(iter(alpha.tokens)), alert="1")
        sink = EventLogSink(beta.member)
        assert sink.wants(acknowledged) and raised_by("beta", lambda _: True)(acknowledged)
        for _ in range(2):  # as after an answer that was lost
            sink.send([acknowledged])
        until(lambda: any(item.id == acknowledged.id for item in alpha.stored), 10)
        received = [item for item in alpha.stored if item.id == acknowledged.id]
        assert [item.host for item in received] == ["beta"] and not EventLogSink(alpha.member).wants(received[0])


@pytest.mark.slow
def test_of_three_servers_one_may_die(tmp_path: Path):
    ports = [free_port() for _ in range(3)]
    with ExitStack() as stack:
        servers = [
            NatsServer(tmp_path / f"nats{number}", routes=[ports[number], *ports[:number], *ports[number + 1 :]])
            for number in range(3)
        ]
        for each in servers:
            stack.enter_context(each)
        config = site(tmp_path, *(each.url for each in servers))
        with hosts(config, "alpha", "beta") as (alpha, beta):
            until(lambda: shared_by([alpha, beta]), 60)
            for each in servers:
                each.kill()
                raised = len(alpha.raised)
                until(lambda raised=raised: len(alpha.raised) > raised + 200, 60)
                until(lambda: not alpha.unshared and not beta.unshared, 60)
                until(lambda: shared_by([alpha, beta]), 60)
                each.start()
                until(lambda raised=raised: len(alpha.raised) > raised + 400, 60)
            until(lambda: not alpha.unshared and not beta.unshared, 60)
        log = Log.read(config)
        check_one_owner(log, ())
        written = {identity for message in log.messages for identity in message.events}
        for host in (alpha, beta):  # one that could not renew for long enough lost its cameras
            fenced = sum(host.sample("dasnet_events_fenced_total", camera=camera) for camera in CAMERAS)
            assert len({item.id for item in host.raised} - written) <= fenced
