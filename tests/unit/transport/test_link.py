"""Cameras on another host: keys, who may send what, other clocks, and the program across two network namespaces."""

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
import zmq
from prometheus_client import Counter, Gauge
from structlog.testing import capture_logs
from support.program import DASNET, Running, dasnet, dasnet_in_process, free_port
from zmq.utils.monitor import recv_monitor_message

from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError, WireError
from pipeline.store.ledger import Ledger, LedgerCopies, read
from pipeline.transport import channel, clock_offset
from pipeline.transport.clock_offset import ClockOffset
from pipeline.transport.jpeg import jpeg_bytes, pixels_of_jpeg
from pipeline.transport.keys import client_keys, make_keys, server_keys
from pipeline.transport.link import ZAP_ADDRESS, HostAuthenticator, Uplink, uplink
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.wire import CreditRequest, TimeReply, TimeRequest, camera_of, decode, encode
from pipeline.types import Cause

Admission = tuple[Config, HostAuthenticator, Socket, Counter]
CAMERAS = [
    {"id": "near", "uri": "demo:scene?seed=1&fps=4"},
    {"id": "far", "uri": "demo:scene?seed=2&fps=4", "host": "edge"},
    {"id": "other", "uri": "demo:scene?seed=3&fps=4", "host": "hill"},
]


def test_keys_are_private_made_once_and_the_command_says_where_they_belong(tmp_path: Path):
    done = dasnet_in_process("keys", tmp_path / "keys", "edge", "hill")
    assert done.returncode == 0 and "edge.key_secret: written" in done.stdout and "server.key" in done.stdout
    for secret in (tmp_path / "keys").rglob("*.key_secret"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    before = server_keys(tmp_path / "keys")
    assert sorted(before.hosts.values()) == ["edge", "hill"]
    assert make_keys(tmp_path / "keys", ["edge", "third"]) == [tmp_path / "keys/hosts/third.key_secret"]
    assert server_keys(tmp_path / "keys").own == before.own
    assert client_keys(tmp_path / "keys", "edge").server == before.own.public
    assert dasnet_in_process("keys", tmp_path / "keys", "../edge").returncode == 2
    with pytest.raises(ConfigError, match=r"link.keys: .*hosts/nowhere.key_secret is missing"):
        client_keys(tmp_path / "keys", "nowhere")


@pytest.mark.parametrize(
    ("link", "told"),
    [
        (None, "link: is required because camera 'far' is on host 'edge'"),
        ({"host": "10.0.0.5"}, r"link.keys: is required; create them with `dasnet keys .* link.encrypted to false"),
        (
            {"host": "10.0.0.5", "encrypted": False, "keys": "keys"},
            "link.keys: must not be set while link.encrypted is false",
        ),
        ({"host": "10.0.0.5", "keys": "keys", "port": 65535}, "link.port: .*65533"),
        ({"host": "10.0.0.5", "keys": "keys", "pixels": "png"}, "link.pixels: .*'raw' or 'jpeg'"),
        ({"host": "10.0.0.5", "keys": "keys", "speed": 1}, "link.speed: unknown key; must be one of host, port"),
    ],
)
def test_a_link_is_never_open_to_all_but_in_words(tmp_path: Path, link: dict | None, told: str):
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump({"cameras": CAMERAS, **({"link": link} if link else {})}))
    with pytest.raises(ConfigError, match=told):
        load(path)


def test_a_host_without_cameras_is_refused(tmp_path: Path):
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site(tmp_path)))
    done = dasnet_in_process("run", tmp_path / "site.yaml", "--host", "nowhere")
    assert done.returncode == 2 and "no camera is on host 'nowhere'; must be one of edge, hill" in done.stderr


def site(tmp_path: Path, host: str = "127.0.0.1", **link: object) -> dict:
    make_keys(tmp_path / "keys", ["edge", "hill"])
    return {
        "cameras": CAMERAS,
        "link": {"host": host, "port": 5570, "keys": "keys", **link},
        "run_dir": str(tmp_path / "run"),
        "metrics": {"port": 0},
        "console": {"port": 0},
    }


def loaded(tmp_path: Path, **link: object) -> Config:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(site(tmp_path, **link)))
    return load(path)


@pytest.fixture
def admission(tmp_path: Path) -> Iterator[Admission]:
    config = loaded(tmp_path, port=free_port())
    assert config.link is not None
    authenticator, counter = authenticator_of(config)
    router = authenticator.listener(
        zmq.ROUTER, config.link.port, 8, Gauge("listening", "Text.", ["x"], registry=None)
    ).socket
    yield config, authenticator, router, counter
    router.close()
    authenticator.close()


def authenticator_of(config: Config) -> tuple[HostAuthenticator, Counter]:
    counter = Counter("refused", "Text.", registry=None)
    assert config.link is not None
    return HostAuthenticator(config, config.link, RejectLog("link", counter)), counter


def test_the_inference_host_may_be_named(tmp_path: Path):
    for host, listens in (("localhost", True), ("name.invalid", False)):
        config = loaded(tmp_path, host=host, port=free_port())
        assert config.link is not None
        authenticator, _ = authenticator_of(config)
        listening = Gauge("listening", "Text.", ["x"], registry=None)
        listener = authenticator.listener(zmq.ROUTER, config.link.port, 8, listening)
        assert listening.labels(f"link tcp://{host}:{config.link.port}")._value.get() == listens
        listener.socket.close()
        authenticator.close()


def test_an_authenticator_that_is_closed_has_freed_its_address(tmp_path: Path):
    context = zmq.Context.instance()
    for _ in range(10):
        others = [context.socket(zmq.ROUTER) for _ in range(300)]
        authenticator, _ = authenticator_of(loaded(tmp_path))
        for other in others:
            other.close()  # which keeps the thread busy that frees addresses of closed sockets
        authenticator.close()
        with context.socket(zmq.REP) as following:
            following.bind(ZAP_ADDRESS)
            following.unbind(ZAP_ADDRESS)


def count(counter: Counter) -> float:
    return counter.collect()[0].samples[0].value


def arrived(authenticator: HostAuthenticator, router: Socket) -> str:
    assert router.poll(5000), "nothing came"
    parts = router.recv_multipart(copy=False)
    message, _ = decode([part.buffer for part in parts[1:]])
    authenticator.check(camera_of(message), parts[1])
    return camera_of(message)


def test_a_host_sends_for_its_own_cameras_only(admission: Admission):
    config, authenticator, router, _ = admission
    up = uplink(config, config.camera("far"))
    sender = up.connected(zmq.DEALER, up.frames, high_water=4, patient=True)
    try:
        sender.send_multipart(encode(CreditRequest("far", "s1", True)))
        assert arrived(authenticator, router) == "far"
        for camera, told in [
            ("other", "camera 'other' from host 'edge': expected host 'hill'"),
            ("near", "'near' of another host"),
            ("unknown", "'unknown' of another host"),
        ]:
            sender.send_multipart(encode(CreditRequest(camera, "s1", True)))
            with pytest.raises(WireError, match=told):
                arrived(authenticator, router)
    finally:
        sender.close(0)


@pytest.mark.parametrize("known", ["no key", "the server's key, and one of its own", "a key of another site"])
def test_nobody_comes_in_without_a_key_of_the_site(admission: Admission, tmp_path: Path, known: str):
    config, authenticator, router, counter = admission
    unknown = zmq.Context.instance().socket(zmq.DEALER)
    if known != "no key":
        unknown.curve_publickey, unknown.curve_secretkey = zmq.curve_keypair()
        unknown.curve_serverkey = client_keys(tmp_path / "keys", "edge").server
    if known == "a key of another site":
        make_keys(tmp_path / "elsewhere", ["edge"])
        own = client_keys(tmp_path / "elsewhere", "edge").own
        unknown.curve_publickey, unknown.curve_secretkey = own.public, own.secret
    try:
        unknown.connect(f"tcp://127.0.0.1:{config.link.port if config.link else 0}")
        with suppress(zmq.Again):  # where it was refused already, there is nobody to send to
            unknown.send_multipart(encode(CreditRequest("far", "s1", True)), flags=zmq.DONTWAIT)
        up = uplink(config, config.camera("other"))  # one who may, later: its message is the first that comes
        sender = up.connected(zmq.DEALER, up.frames, high_water=4, patient=True)
        sender.send_multipart(encode(CreditRequest("other", "s1", True)))
        assert arrived(authenticator, router) == "other"
        assert not router.poll(300)
        assert (count(counter) > 0) == (known != "no key")  # without any it does not come so far
        sender.close(0)
    finally:
        unknown.close(0)


def test_a_removed_key_is_disconnected_and_rejected_and_others_continue(admission: Admission, tmp_path: Path):
    config, authenticator, router, counter = admission
    senders = {}
    for camera in ("far", "other"):  # of the hosts edge and hill
        up = uplink(config, config.camera(camera))
        senders[camera] = up.connected(zmq.DEALER, up.frames, high_water=4)
    with capture_logs() as logs, closing(senders["far"]) as revoked, closing(senders["other"]) as kept:
        for camera, sender in senders.items():
            assert sender.poll(5000, zmq.POLLOUT)
            sender.send_multipart(encode(CreditRequest(camera, "s1", True)))
            assert arrived(authenticator, router) == camera
        with closing(revoked.get_monitor_socket()) as monitor:
            (tmp_path / "keys/hosts/edge.key").unlink()
            events = []
            while zmq.Event.HANDSHAKE_FAILED_AUTH not in events:
                assert monitor.poll(5000), "an open connection is closed within seconds, and the next one refused"
                events.append(recv_monitor_message(monitor)["event"])
            assert events[0] == zmq.Event.DISCONNECTED and count(counter) == 1
            revoked.disable_monitor()
        assert not revoked.poll(500, zmq.POLLOUT)
        assert kept.poll(5000, zmq.POLLOUT), "the others are back"
        kept.send_multipart(encode(CreditRequest("other", "s2", True)))
        assert arrived(authenticator, router) == "other"
        assert [entry["hosts"] for entry in logs if entry["event"] == "host keys revoked"] == [["edge"]]
    make_keys(tmp_path / "keys", ["third"])
    (tmp_path / "keys/hosts/third.key").rename(tmp_path / "keys/hosts/edge.key")  # a new key for the same host
    (tmp_path / "keys/hosts/third.key_secret").replace(tmp_path / "keys/hosts/edge.key_secret")
    up = uplink(config, config.camera("far"))
    with closing(up.connected(zmq.DEALER, up.frames, high_water=4, patient=True)) as renewed:
        renewed.send_multipart(encode(CreditRequest("far", "s3", True)))
        assert arrived(authenticator, router) == "far"


def test_the_reply_with_the_shortest_round_trip_gives_the_offset():
    clock = ClockOffset()
    assert clock.ns is None
    clock.update(1_000, 501_000, 3_000)  # took 2,000: 501,000 - 2,000
    assert clock.ns == 499_000
    clock.update(10_000, 510_100, 10_200)  # took 200
    clock.update(20_000, 900_000, 90_000)
    assert clock.ns == 510_100 - 10_100
    clock.update(30_000, 1, 29_999)  # came before it was asked for: no answer
    assert clock.ns == 500_000


@pytest.mark.parametrize("shape", [(48, 64, 3), (48, 64)])
def test_pixels_pass_as_jpeg_nearly_unchanged(shape: tuple[int, ...]):
    rng = np.random.default_rng(1)
    pixels = np.clip(rng.normal(128, 4, shape), 0, 255).astype(np.uint8)
    back = pixels_of_jpeg(memoryview(jpeg_bytes(pixels)), shape)
    assert back.shape == shape and np.abs(back.astype(int) - pixels).mean() < 4


@pytest.mark.parametrize("fault", ["size", "huge", "cut", "none", "two sizes"])
def test_a_jpeg_that_is_not_the_frame_is_refused(fault: str):
    data = bytearray(jpeg_bytes(np.zeros((48, 64, 3), np.uint8)))
    header = data.index(b"\xff\xc0")
    shape = (48, 64, 3)
    if fault == "size":
        shape = (48, 65, 3)
    elif fault == "huge":
        data[header + 5 : header + 9] = b"\xff\xff\xff\xff"
    elif fault == "cut":
        del data[header + 4 :]
    elif fault == "none":
        data = bytearray(b"\xff\xd8")
    else:
        data[2:2] = data[header : header + 19]
    with pytest.raises(WireError, match="JPEG"):
        pixels_of_jpeg(memoryview(bytes(data)), shape)


def test_a_ledger_s_copy_is_one_and_what_does_not_balance_is_refused(tmp_path: Path):
    ledger, copies = Ledger(tmp_path / "far.ledger", 1), LedgerCopies()
    ledger.sent()
    ledger.segmented()
    ledger.dropped(Cause.OVERLOAD, 3)
    ledger.connection(up=True)
    copies.write(tmp_path / "copy.ledger", ledger.words)
    copy = read(tmp_path / "copy.ledger")
    assert (copy.captured, copy.segmented, copy.dropped[Cause.OVERLOAD], copy.up) == (4, 1, 3, True)
    assert copy.balanced and time.time_ns() - copy.updated_utc_ns < 5e9
    for words in (b"", ledger.words[:-8], b"\x01" + ledger.words[1:], b"\xff" * len(ledger.words)):
        with pytest.raises(WireError, match="ledger copy"):
            copies.write(tmp_path / "copy.ledger", words)
    copies.close()
    ledger.close()


def test_an_unreachable_inference_host_is_logged_and_so_is_its_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clock_offset, "INFERENCE_HOST_TIMEOUT_S", 0.3)
    address = f"tcp://127.0.0.1:{free_port()}"
    rejected = Counter("rejected", "Text.", registry=None)

    def heard(logs: Sequence[Mapping[str, object]], what: str) -> None:
        deadline_s = time.monotonic() + 10
        while not (said := [entry for entry in logs if what in str(entry["event"])]):
            assert time.monotonic() < deadline_s, logs
            time.sleep(0.05)  # written by a thread
        assert [(entry["camera"], entry["address"]) for entry in said] == [("far", address)]

    with Ledger(tmp_path / "far.ledger", 1) as ledger, capture_logs() as logs:
        link = Uplink(frames=address, remote=True)
        sender = channel.Channel(link, "far", "s1", live=True, max_age_s=0.25, ledger=ledger, rejected=rejected)
        heard(logs, "inference host unreachable or key rejected")
        with closing(bound(zmq.ROUTER, address, high_water=8)) as inference_host:
            name, *parts = inference_host.recv_multipart()
            asked, _ = decode(parts)
            assert isinstance(asked, TimeRequest)
            inference_host.send_multipart([name, *encode(TimeReply("s1", asked.asked_ns, time.monotonic_ns()))])
            heard(logs, "inference host reachable")
        sender.close()


AHEAD_S = 100_000  # of the other host's clock


@pytest.fixture
def other_host() -> Iterator[list[str]]:
    """How to run a command on it: it has a network of its own, 10.77.7.2, and this one is 10.77.7.1."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("needs root, ip and unshare")
    name = f"dasnet{os.getpid()}"
    setup = [
        ["netns", "add", name],
        ["link", "add", "dasnet0", "type", "veth", "peer", "name", "dasnet1", "netns", name],
        ["address", "add", "10.77.7.1/24", "dev", "dasnet0"],
        ["link", "set", "dasnet0", "up"],
        ["-n", name, "address", "add", "10.77.7.2/24", "dev", "dasnet1"],
        ["-n", name, "link", "set", "dasnet1", "up"],
        ["-n", name, "link", "set", "lo", "up"],
    ]
    try:
        for command in setup:
            done = subprocess.run(["ip", *command], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"ip {' '.join(command)}: {done.stderr.strip()}")
        clock = ["unshare", "--time", "--monotonic", str(AHEAD_S)]
        in_time = clock if not subprocess.run([*clock, "true"], capture_output=True).returncode else []
        yield ["ip", "netns", "exec", name, *in_time]
    finally:
        subprocess.run(["ip", "link", "delete", "dasnet0"], capture_output=True)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.live
@pytest.mark.parametrize("pixels", ["jpeg", pytest.param("raw", marks=pytest.mark.slow)])
def test_cameras_of_another_host_are_processed_accounted_for_and_come_back(
    other_host: list[str], tmp_path: Path, pixels: str
):
    """Its monotonic clock is a day ahead; latencies are in that of the inference host."""
    paths = {}
    for host in ("here", "edge"):
        described = site(tmp_path, host="10.77.7.1", pixels=pixels) | {"run_dir": str(tmp_path / host)}
        described["cameras"] = CAMERAS[:2]
        paths[host] = tmp_path / f"{host}.yaml"
        paths[host].write_text(yaml.safe_dump(described))
    far = '{camera="far"}'
    with Running("run", paths["here"]) as here:
        command = [*other_host, *DASNET]
        with Running("run", paths["edge"], "--host", "edge", command=command) as edge:
            here.wait_for_metric(f"dasnet_frames_segmented_total{far}", 8)
            metrics = here.metrics()
            assert metrics[f"dasnet_camera_up{far}"] == 1
            assert metrics['dasnet_frames_segmented_total{camera="near"}'] > 0
            age_s = metrics[f"dasnet_capture_to_track_seconds_sum{far}"]
            assert 0 < age_s / metrics[f"dasnet_capture_to_track_seconds_count{far}"] < 5
            status = dasnet("status", paths["here"])
            assert "far" in status.stdout and status.returncode == 0, status.stdout
        here.wait_for_metric(f"dasnet_frames_segmented_total{far}", 8)
        deadline_s = time.monotonic() + 20
        while here.metrics()[f"dasnet_camera_up{far}"] and time.monotonic() < deadline_s:
            time.sleep(0.2)
        assert here.metrics()[f"dasnet_camera_up{far}"] == 0
        counted = here.metrics()[f"dasnet_frames_segmented_total{far}"]
        with Running("run", paths["edge"], "--host", "edge", command=command) as edge:
            here.wait_for_metric(f"dasnet_frames_segmented_total{far}", counted + 5)
            assert read(tmp_path / "edge/ledgers/far.ledger").balanced
            assert edge.stop() == 0
        assert here.stop() == 0
        rejected = [line for line in here.lines if "message rejected" in line]
        assert not rejected, rejected
