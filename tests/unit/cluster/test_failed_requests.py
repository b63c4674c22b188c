"""One host whose requests fail at the worst moments: no camera without an owner, no event lost or doubled."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry
from support.cluster_memory import MemoryStream
from support.events import event, until

pytest.importorskip("nats")

from pipeline.cluster import connection, jetstream, servers
from pipeline.cluster.connection import Connection
from pipeline.cluster.jetstream import JetStream
from pipeline.cluster.member import Granted, Member, Withdrawn
from pipeline.cluster.metrics import ClusterMetrics
from pipeline.cluster.publishing import Claim, Publisher, claim
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.diagnostics.nats_check import check_nats
from pipeline.errors import ClusterError
from pipeline.types import Event, EventKind

CAMERAS = [f"camera{number}" for number in range(6)]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "site.yaml"
    hosts = {name: {"address": "127.0.0.1"} for name in ("alpha", "beta")}
    cameras = [{"id": name, "uri": "demo:scene"} for name in CAMERAS]
    path.write_text(yaml.safe_dump({"cameras": cameras, "hosts": hosts, "nats": {"servers": ["nats://127.0.0.1:1"]}}))
    return load(path).for_host("alpha")


@pytest.fixture
def member(config: Config) -> Member:
    return Member(config, ClusterMetrics("alpha", CollectorRegistry()))


@pytest.fixture
def stream() -> MemoryStream:
    return MemoryStream()


def raised(camera: str, token: int | None = 1) -> Event:
    return event(EventKind.CAMERA_UP, camera=camera, host="alpha", token=token)


async def work(member: Member, stream: MemoryStream, rounds: int = 3) -> None:
    for _ in range(rounds):
        await member._work(stream)  # type: ignore[arg-type]
        await member._renew(stream)  # type: ignore[arg-type]


async def ended(member: Member) -> None:
    while member._tasks:
        await asyncio.sleep(0)


def names(changes: Sequence[object], kind: type) -> list[str]:
    return sorted(change.camera for change in changes if isinstance(change, kind))  # type: ignore[attr-defined]


async def joined_by_beta(member: Member, stream: MemoryStream) -> list[str]:
    """Return the cameras that are withdrawn from alpha, which owned all, since beta is there."""
    await work(member, stream)
    assert names(member.changes(), Granted) == CAMERAS
    await stream.write_host("beta", "b", member._version, 0)
    await work(member, stream, rounds=1)
    await asyncio.sleep(0)
    withdrawn = names(member.changes(), Withdrawn)
    assert 0 < len(withdrawn) < len(CAMERAS)
    return withdrawn


def test_a_camera_whose_hand_over_failed_is_granted_again(member: Member, stream: MemoryStream):
    async def run() -> None:
        withdrawn = await joined_by_beta(member, stream)
        stream.failing = {"write_tracks", "write_camera"}  # the connection is lost
        for camera in withdrawn:
            member.save(camera, b"last")
            member._let_go(camera)
        await ended(member)
        stream.failing = set()
        await stream.write_host("beta", "", member._version, (await stream.view()).hosts["beta"].revision)
        await work(member, stream)
        await ended(member)
        await work(member, stream)
        assert names(member.changes(), Granted) == withdrawn, "else nobody processes them"

    asyncio.run(run())


def test_a_camera_is_granted_once_where_the_grant_of_another_failed(member: Member, stream: MemoryStream):
    async def run() -> None:
        stream.held["tracks camera1"] = asyncio.Event()
        stream.failing = {"tracks camera0"}
        failing = asyncio.ensure_future(member._work(stream))  # type: ignore[arg-type]
        while not stream.asked["tracks camera1"] or not stream.asked["tracks camera0"]:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        stream.failing = set()
        again = work(member, stream) if failing.done() else asyncio.sleep(0)
        await asyncio.gather(again, released(stream, "tracks camera1"))
        with pytest.raises(ClusterError):
            await failing
        await work(member, stream)
        assert names(member.changes(), Granted) == CAMERAS

    asyncio.run(run())


async def released(stream: MemoryStream, name: str) -> None:
    for _ in range(50):
        await asyncio.sleep(0)
    stream.held[name].set()


def test_the_last_tracks_are_saved_though_others_are_being_written(member: Member, stream: MemoryStream):
    async def run() -> None:
        withdrawn = await joined_by_beta(member, stream)
        camera = withdrawn[0]
        stream.held["write_tracks"] = asyncio.Event()
        member.save(camera, b"before")
        saving = asyncio.ensure_future(member._save(stream))  # type: ignore[arg-type]
        while not stream.asked["write_tracks"]:
            await asyncio.sleep(0)
        member.save(camera, b"last")
        for name in withdrawn:
            member._let_go(name)
        await asyncio.gather(saving, released(stream, "write_tracks"))
        await ended(member)
        assert stream.saved[camera][0] == b"last"

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["failing", "unanswered"])
def test_tracks_that_were_not_written_are_written_again(member: Member, stream: MemoryStream, fault: str):
    async def run() -> None:
        await work(member, stream)
        setattr(stream, fault, {"write_tracks"})
        for tracks in (b"some", b""):  # empty: the session has ended
            member.save("camera0", tracks)
            with pytest.raises(ClusterError):
                await member._save(stream)  # type: ignore[arg-type]
            await asyncio.sleep(0)
            setattr(stream, fault, set())
            for _ in range(3):
                await member._save(stream)  # type: ignore[arg-type]
            assert stream.saved["camera0"][0] == tracks
            setattr(stream, fault, {"write_tracks"})

    asyncio.run(run())


def test_events_of_a_camera_of_this_host_only_wait_until_it_is_claimed(config: Config, stream: MemoryStream):
    config.pins["camera0"] = "alpha"
    registry = CollectorRegistry()
    member = Member(config, ClusterMetrics("alpha", registry))
    made = raised("camera0", token=None)

    async def run() -> None:
        stream.held["write_camera"] = asyncio.Event()
        member._connection.stream = stream  # type: ignore[assignment]
        joining = asyncio.ensure_future(member._work(stream))  # type: ignore[arg-type]
        while not stream.asked["write_camera"]:
            await asyncio.sleep(0)
        with pytest.raises(ClusterError, match="not claimed yet"):
            await member._share([made])
        stream.held["write_camera"].set()
        await joining
        await member._share([made])

    asyncio.run(run())
    assert stream.ids("camera0") == [made.id]
    assert not registry.get_sample_value("dasnet_events_fenced_total", {"camera": "camera0"})


@pytest.fixture
def claims() -> dict[str, Claim]:
    return {}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def publisher(claims: dict[str, Claim], registry: CollectorRegistry) -> Publisher:
    return Publisher("alpha", claims, ClusterMetrics("alpha", registry))


async def claimed(stream: MemoryStream, camera: str, token: int) -> Claim:
    sequence = await claim(stream, camera, "alpha", token)  # type: ignore[arg-type]
    assert sequence is not None
    return Claim(token, sequence, 0)


def test_events_are_shared_after_all_of_the_log_was_too_old(
    publisher: Publisher, claims: dict[str, Claim], registry: CollectorRegistry, stream: MemoryStream
):
    async def run() -> None:
        claims["north"] = await claimed(stream, "north", 7)
        stream.log.clear()  # the claim is older than what is kept
        made = raised("north", 7)
        claims["north"].unshared = 1
        await publisher.share(stream, [made], {"north": 7})  # type: ignore[arg-type]
        assert [(written.token, len(written.events)) for written in stream.log["north"]] == [(7, 0), (7, 1)]
        assert stream.ids("north") == [made.id] and not claims["north"].unshared
        assert not registry.get_sample_value("dasnet_events_fenced_total", {"camera": "north"})

    asyncio.run(run())


def test_an_owner_before_is_still_refused(
    publisher: Publisher, claims: dict[str, Claim], registry: CollectorRegistry, stream: MemoryStream
):
    async def run() -> None:
        claims["north"] = await claimed(stream, "north", 7)
        await claimed(stream, "north", 8)
        await publisher.share(stream, [raised("north", 7)], {"north": 7})  # type: ignore[arg-type]
        assert not stream.ids("north")
        assert registry.get_sample_value("dasnet_events_fenced_total", {"camera": "north"}) == 1

    asyncio.run(run())


def test_a_share_that_failed_for_one_camera_doubles_nothing_of_another(
    publisher: Publisher, claims: dict[str, Claim], registry: CollectorRegistry, stream: MemoryStream
):
    async def run() -> None:
        for camera in ("north", "hill"):
            claims[camera] = await claimed(stream, camera, 1)
        claims["north"].unshared = 2
        review = event(EventKind.ALERT_REVIEWED, camera="north")
        first = [raised("north"), raised("hill"), raised("hill", token=0), review]
        stream.failing = {"write_events hill"}
        with pytest.raises(ClusterError):
            await publisher.share(stream, first, {"north": 1, "hill": 1})  # type: ignore[arg-type]
        for _ in range(9):
            await asyncio.sleep(0)
        assert claims["north"].unshared == 1
        stream.failing = set()
        further = raised("north")
        await publisher.share(stream, [*first, further], {"north": 1, "hill": 1})  # type: ignore[arg-type]
        assert stream.ids("north") == [first[0].id, further.id]
        assert stream.ids("hill") == [first[1].id]
        assert stream.reviews == [review.id]
        assert registry.get_sample_value("dasnet_events_fenced_total", {"camera": "hill"}) == 1
        assert not claims["north"].unshared

    asyncio.run(run())


def test_the_thread_of_the_connection_outlives_what_nobody_expected(
    config: Config, stream: MemoryStream, monkeypatch: pytest.MonkeyPatch
):
    async def connect(*_: object) -> MemoryStream:
        return stream

    async def close() -> None:
        return

    calls = 0

    async def step(_: object) -> float:
        nonlocal calls
        calls += 1
        raise AttributeError("a fault of the library")

    monkeypatch.setattr(JetStream, "connect", connect)
    monkeypatch.setattr(stream, "close", close, raising=False)
    monkeypatch.setattr(connection, "RECONNECT_S", 0.01)
    assert config.nats is not None
    connected = Connection(config.nats, "alpha", 1)
    connected.start([step])
    try:
        until(lambda: calls > 2, 10)
    finally:
        connected.close(5)


def test_connections_to_a_server_that_says_nothing_are_closed(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(servers, "CONNECT_TIMEOUT_S", 0.05)
    assert config.nats is not None
    nats = config.nats

    async def attempts(silent: socket.socket) -> None:
        for _ in range(3):
            with pytest.raises(ClusterError, match="no answer"):
                await servers.connected(f"nats://127.0.0.1:{silent.getsockname()[1]}", nats, "test")
        silent.settimeout(5)
        for _ in range(3):
            accepted, _ = silent.accept()
            with accepted:
                accepted.settimeout(5)
                assert accepted.recv(1) == b"", "else descriptors run out"

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(attempts(silent))


def test_a_check_of_each_server_creates_streams_for_all_of_them(config: Config, monkeypatch: pytest.MonkeyPatch):
    places = [f"nats://127.0.0.1:{port}" for port in (1, 2, 3)]
    assert config.nats is not None
    nats = config.nats.model_copy(update={"servers": places})
    asked: list[str] = []
    created: list[int] = []

    async def connected(server: str, *_: object) -> None:
        asked.append(server)

    async def create_streams(_: object, name: str, keep_days: float, replicas: int) -> None:
        created.append(replicas)
        raise ClusterError("enough")

    monkeypatch.setattr(jetstream, "connected", connected)
    monkeypatch.setattr(jetstream, "create_streams", create_streams)
    lines, healthy = check_nats(config.model_copy(update={"nats": nats}))
    assert not healthy and len(lines) == 3
    assert asked == places and created == [3, 3, 3], "the loss of a server would be the loss of all"
