"""A camera that turns, asked by ONVIF over real HTTP: where it looks, and why it does not say so."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import zmq
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from support.events import until
from support.onvif_camera import DEGREES, OnvifCamera, sweep
from support.program import dasnet_in_process

import pipeline.capture.onvif
import pipeline.capture.pose_poller
from pipeline.capture.onvif import OnvifDevice, OnvifError, PtzStatus
from pipeline.capture.pose_poller import axis_of, polled
from pipeline.config.camera import Camera
from pipeline.telemetry.pose import PoseMetrics
from pipeline.transport.link import Uplink
from pipeline.transport.wire import decode
from pipeline.types import AxisSample

PLACE = {"lat": 52.1, "lon": 11.6, "azimuth_deg": 30, "elevation_deg": 1, "hfov_deg": 60}


@pytest.fixture
def ptz() -> Iterator[OnvifCamera]:
    with OnvifCamera() as camera:
        yield camera


def camera_at(url: str | None, uri: str = "demo:scene", **onvif: Any) -> Camera:
    return Camera(id="dome", uri=uri, pose=PLACE | {"onvif": {"url": url} | onvif})


def asked(url: str, profile: str | None = None) -> PtzStatus:
    device = OnvifDevice(url, profile)
    try:
        return device.status()
    finally:
        device.close()


def test_a_camera_says_where_it_looks(ptz: OnvifCamera) -> None:
    ptz.look = lambda: (0.25, -0.5, 0.1, "MOVING")
    status = asked(ptz.url)
    assert (status.pan, status.tilt, status.zoom) == (0.25, -0.5, 0.1)
    assert status.is_moving and not status.in_degrees and 0 < status.error_ns < 1e9
    assert ptz.requests == ["GetSystemDateAndTime", "GetServices", "GetProfiles", "GetStatus"]
    assert ptz.password.encode() not in ptz.received
    ptz.space, ptz.look = DEGREES, lambda: (-170.0, 12.5, None, None)
    status = asked(ptz.url, "sub")
    assert status.in_degrees and status.zoom is status.is_moving is None
    ptz.services = ["tds", "tr2", "tptz"]
    assert asked(ptz.url).pan == -170


@pytest.mark.parametrize("ahead_s", [-86400.0, 3600.0])
def test_a_clock_that_is_wrong_does_not_matter(ahead_s: float, ptz: OnvifCamera) -> None:
    ptz.clock_ahead_s = ahead_s
    device = OnvifDevice(ptz.url)
    assert device.clock_ahead_s == pytest.approx(ahead_s, abs=2)
    device.close()


@pytest.mark.parametrize("year", [9999, 10**12])
def test_a_clock_that_is_no_time_is_left_out(year: int, ptz: OnvifCamera) -> None:
    ptz.user, ptz.year = "", year
    device = OnvifDevice(ptz.url)
    assert device.clock_ahead_s is None and device.status().pan == 0
    device.close()


def test_a_camera_may_challenge_over_http(ptz: OnvifCamera) -> None:
    ptz.challenges = True
    assert asked(ptz.url).pan == 0
    with pytest.raises(OnvifError) as caught:
        asked(ptz.url_with("me", "wr0ng-Pass"))
    assert caught.value.cause == "credentials"


@pytest.mark.parametrize(
    ("trouble", "cause", "text"),
    [
        ({"password": "other"}, "credentials", "the camera refuses the user or the password"),
        ({"services": ["tds", "trt"]}, "no_ptz", "no PTZ service"),
        ({"services": ["tds", "tptz"]}, "no_ptz", "no media service"),
        ({"hangs": True}, "unreachable", "no answer within"),
        ({"body": "<tptz:GetStatusResponse/>"}, "answer", "does not tell its pan and tilt"),
        ({"look": lambda: (float("nan"), 0.0, 0.0, None)}, "answer", "position 'nan': must be a number"),
        ({"body": "<unclosed>"}, "answer", "the answer is no SOAP message"),
        ({"body": "<!DOCTYPE x>"}, "answer", "the answer is no SOAP message"),
        ({"body": "x" * (1 << 21)}, "answer", "an answer without an end"),
        ({"challenges": True, "challenge_body": "x" * (1 << 21)}, "answer", "an answer without an end"),
        ({"challenges": True, "challenge": 'Digest realm="a", nonce="b", algorithm=X'}, "credentials", "unknown way"),
        ({"challenges": True, "challenge": "Digest realm"}, "credentials", "unknown way"),
        (
            {"challenges": True, "challenge": 'Digest realm="a", nonce="b", qop="auth-int"'},
            "credentials",
            "unknown way",
        ),
        ({"service_host": "[::1"}, "answer", "address of a service"),
    ],
)
def test_why_a_camera_does_not_say_so(
    trouble: dict[str, Any], cause: str, text: str, ptz: OnvifCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.capture.onvif, "TIMEOUT_S", 0.3)
    url = ptz.url
    for name, value in trouble.items():
        setattr(ptz, name, value)
    with pytest.raises(OnvifError) as caught:
        asked(url)
    assert caught.value.cause == cause and text in str(caught.value), str(caught.value)
    assert str(caught.value).startswith(f"127.0.0.1:{ptz.port}: ") and "s3cr3t" not in str(caught.value)


def test_no_camera_and_no_such_profile(ptz: OnvifCamera) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OnvifError, match="Connection refused") as caught:
        asked(f"http://me:s3cr3t@127.0.0.1:{port}/onvif/device_service")
    assert caught.value.cause == "unreachable" and "s3cr3t" not in str(caught.value)
    with pytest.raises(OnvifError, match=r"onvif\.profile 'fixed': must be one of the camera's: one, sub"):
        asked(ptz.url, "fixed")


def status(pan: float, tilt: float, zoom: float | None, in_degrees: bool = False) -> PtzStatus:
    return PtzStatus(pan, tilt, zoom, in_degrees, None, 1, 0)


def test_positions_are_directions_by_the_calibration() -> None:
    zoom = [(0.5, 30.0), (1.0, 2.0)]
    camera = camera_at("http://h/x", pan=[[-1, -175], [1, 175]], tilt=[[0, 0], [1, -90]], zoom=zoom)
    assert camera.pose is not None and camera.pose.onvif is not None

    def axis(*told: Any, **how: Any) -> tuple[float, float, float]:
        assert camera.pose is not None and camera.pose.onvif is not None
        sample = axis_of("dome", camera.pose, camera.pose.onvif, status(*told, **how))
        return sample.azimuth_deg, sample.elevation_deg, sample.hfov_deg

    assert axis(0, 0, 0) == pytest.approx((30, 1, 60))
    assert axis(0.4, 0.1, 0.5) == pytest.approx((100, -8, 30))
    assert axis(-0.4, 0.1, 1) == pytest.approx((320, -8, 2))
    assert axis(90, 45, 0, in_degrees=True) == pytest.approx((120, 46, 60))
    assert 30 < axis(0, 0, 0.25)[2] < 60
    for told, text in ((1.2, "zoom position 1.2: must be 0 to 1,"), (None, "no zoom position: must be 0 to 1,")):
        with pytest.raises(OnvifError, match=text) as caught:
            axis(0, 0, told)
        assert caught.value.cause == "zoom"
    plain = camera_at("http://h/x")
    assert plain.pose is not None and plain.pose.onvif is not None
    assert axis_of("dome", plain.pose, plain.pose.onvif, status(0, 0, None)).hfov_deg == 60
    with pytest.raises(OnvifError, match="must be 0 to 0"):
        axis_of("dome", plain.pose, plain.pose.onvif, status(0, 0, 0.1))


class Receiver:
    """The track worker's end."""

    def __init__(self, folder: Path) -> None:
        self.socket = zmq.Context.instance().socket(zmq.PULL)
        address = f"ipc://{folder}/results.sock"
        self.socket.bind(address)
        self.link = Uplink(results=address)
        self.registry = CollectorRegistry()
        self.metrics = PoseMetrics("dome", self.registry)

    def sample(self, timeout_s: float = 10) -> AxisSample:
        assert self.socket.poll(timeout_s * 1000), "no sample in time"
        message, _ = decode(self.socket.recv_multipart())
        assert isinstance(message, AxisSample)
        return message

    def known(self) -> float | None:
        return self.registry.get_sample_value("dasnet_pose_known", {"camera": "dome"})

    def failures(self, cause: str) -> float:
        labels = {"camera": "dome", "cause": cause}
        return self.registry.get_sample_value("dasnet_pose_failures_total", labels) or 0.0


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(tmp_path)
    yield made
    made.socket.close(0)


def test_where_a_camera_looks_is_passed_on_in_the_frames_clock(ptz: OnvifCamera, receiver: Receiver) -> None:
    ptz.look = sweep(0.1)
    offsets: list[int | None] = [None]
    with polled(camera_at(ptz.url), receiver.link, receiver.metrics, lambda: offsets[0]):
        until(lambda: ptz.requests.count("GetStatus") >= 2)
        offsets[0] = 10**15  # the other host's clock is known now
        first, second = receiver.sample(), receiver.sample()
    assert 10**15 < first.mono_ns < second.mono_ns and first.is_moving
    turned_deg = second.azimuth_deg - first.azimuth_deg
    assert turned_deg / (second.mono_ns - first.mono_ns) * 1e9 == pytest.approx(18, rel=0.2)
    assert receiver.known() == 0 and threading.active_count() < 50


def test_a_camera_that_fails_is_asked_again_and_said_once(
    ptz: OnvifCamera, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.capture.pose_poller, "BACKOFF_S", (0.02,))
    structlog.reset_defaults()
    with capture_logs() as logs, polled(camera_at(ptz.url), receiver.link, receiver.metrics, lambda: 0):
        receiver.sample()
        ptz.services = ["tds", "trt"]
        ptz.body = "<tptz:GetStatusResponse/>"
        until(lambda: receiver.failures("no_ptz") > 3)
        assert receiver.known() == 0
        ptz.services, ptz.body = ["tds", "trt", "tptz"], None
        while receiver.socket.poll(0):
            receiver.sample()
        receiver.sample()
        until(lambda: receiver.known() == 1)
        ptz.look = lambda: (0.0, 0.0, 0.7, "IDLE")
        until(lambda: receiver.failures("zoom") >= 2)
    said = [log["reason"].partition(": ")[2] for log in logs if log["log_level"] == "warning"]
    assert [text.partition(";")[0].partition(",")[0] for text in said] == [
        "the camera does not tell its pan and tilt",
        "the camera has no PTZ service",
        "must be 0 to 0",
    ]
    assert "s3cr3t" not in str(logs) and receiver.failures("answer") == 1


def test_check_says_what_the_camera_answers(ptz: OnvifCamera, tmp_path: Path) -> None:
    ptz.look, ptz.clock_ahead_s = lambda: (0.5, 0.1, 0.0, None), -600.0
    pose = ", ".join(f"{key}: {value}" for key, value in PLACE.items())
    site = tmp_path / "site.yaml"
    site.write_text(
        f"run_dir: {tmp_path}/run\n"
        f"cameras:\n- {{id: dome, uri: 'demo:scene?fps=30', pose: {{{pose}, onvif: {{url: '{ptz.url}'}}}}}}\n"
        f"- {{id: far, uri: 'demo:scene?fps=30', pose: {{{pose}, onvif: {{url: '{ptz.url_with('me', 'n0t-It')}'}}}}}}\n"
    )
    ended = dasnet_in_process("check", "--connect", site)
    stdout = ended.stdout.replace("601 s behind", "600 s behind")  # a second may pass
    assert ended.returncode == 1 and "2 of 2 cameras deliver frames" in ended.stdout
    assert (
        "ok       pose of camera dome: profile one, clock 600 s behind, does not say whether it moves, pan 0.5, "
        "tilt 0.1, zoom 0, azimuth 120.0°, elevation 10.0°, 60.0° wide" in stdout
    ), stdout
    assert "FAILED   pose of camera far: 127.0.0.1" in stdout and "; its clock is 600 s behind" in stdout
    assert "s3cr3t" not in ended.stdout + ended.stderr and "n0t-It" not in ended.stdout + ended.stderr


def test_the_thread_outlives_what_nobody_expected(
    ptz: OnvifCamera, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.capture.pose_poller, "BACKOFF_S", (0.02,))
    with polled(camera_at(ptz.url), receiver.link, receiver.metrics, lambda: 0):
        receiver.sample()
        with monkeypatch.context() as patched:
            patched.setattr(OnvifDevice, "status", lambda _: 1 / 0)
            until(lambda: receiver.failures("answer") > 1)
        while receiver.socket.poll(0):
            receiver.sample()
        receiver.sample()
