"""Cameras that send JPEGs over HTTP, and RTP without RTSP: real servers and real packets."""

import base64
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from pipeline.capture.open import DecodedFrame, Source, open_source
from pipeline.config.camera import Camera
from pipeline.errors import CredentialsError, SourceError

FPS = 10
GROUP = "239.255.77.7"
USER, PASSWORD = "viewer", "s3cret-word"


def camera(uri: str) -> Camera:
    return Camera.model_validate({"id": "gate", "uri": uri})


def first(count: int, source: Source) -> list[DecodedFrame]:
    frames = list(islice(source.frames(), count))
    source.close()
    return frames


class Multipart(BaseHTTPRequestHandler):
    """`/video` sends FPS frames a second without end, `/short` ends after five, `/silent` sends nothing.

    `/huge` declares frames of 192 megapixels after five.
    """

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        stopping: threading.Event = self.server.stopping  # type: ignore[attr-defined]
        number = 0
        while not stopping.wait(1 / FPS) and not (self.path == "/short" and number == 5):
            if self.path != "/silent":
                self._send(number)
            number += 1

    def _send(self, number: int) -> None:
        jpeg = cv2.imencode(".jpg", np.full((120, 160, 3), 10 * number % 256, np.uint8))[1].tobytes()
        if self.path == "/huge" and number > 5:
            jpeg = jpeg.replace(struct.pack(">HH", 120, 160), struct.pack(">HH", 12_000, 16_000), 1)
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        try:
            self.wfile.write(head.encode() + jpeg + b"\r\n")
        except OSError:  # the reader has gone
            self.server.stopping.set()  # type: ignore[attr-defined]

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Multipart) as server:
        server.stopping = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.stopping.set()  # type: ignore[attr-defined]
        server.shutdown()


def test_jpegs_over_http(served: str) -> None:
    source = open_source(camera(f"http://{USER}:{PASSWORD}@{served}/video"))
    assert source.live
    frames = first(12, source)
    assert frames[0].pixels.shape == (120, 160) and all(frame.intact for frame in frames)
    steps = [later.pts_s - earlier.pts_s for earlier, later in pairwise(frames[2:])]
    assert np.median(steps) == pytest.approx(1 / FPS, rel=0.3), "the times are those of arrival, not a nominal rate's"


def test_a_stream_over_http_that_ends_is_a_lost_camera(served: str) -> None:
    source = open_source(camera(f"http://{USER}:{PASSWORD}@{served}/short"))
    with pytest.raises(SourceError, match=f"camera gate at {served}: (the camera closed the stream|reading failed)"):
        list(source.frames())
    source.close()


def test_a_camera_that_declares_huge_jpegs_is_refused_for_it(served: str) -> None:
    source = open_source(camera(f"http://{USER}:{PASSWORD}@{served}/huge"))
    shown = []
    with pytest.raises(SourceError, match=r"declares 16000x12000 px; must be at most 67,108,864 px") as caught:
        shown.extend(frame.pixels.shape for frame in source.frames())
    source.close()
    assert PASSWORD not in str(caught.value) and set(shown) <= {(120, 160)}


@pytest.mark.parametrize("credentials", ["", f"{USER}:wr0ng@"])
def test_a_refused_password_is_told_apart_and_not_shown(served: str, credentials: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        open_source(camera(f"http://{credentials}{served}/video?token=hidden"))
    assert str(caught.value) == f"camera gate at {served}: the camera refuses the user or the password"


def test_an_address_without_a_host() -> None:
    with pytest.raises(ValueError, match="must be http://HOST/PATH, or with USER:PASSWORD@ before the host"):
        camera("http:///video")


# RTP.


def free_port() -> int:
    """Even, as RTP wants it."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            if (port := probe.getsockname()[1]) % 2 == 0:
                return int(port)


class RtpSender:
    """H.264, a keyframe every half second."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._place = f"rtp://{host}:{port}?pkt_size=1200&ttl=0"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> "RtpSender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        with av.open(self._place, "w", format="rtp") as out:
            stream: Any = out.add_stream("libx264", rate=FPS, options={"g": "5", "bf": "0", "tune": "zerolatency"})
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            number = 0
            while not self._stop.wait(1 / FPS):
                image = np.full((120, 160, 3), 10 * number % 256, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
                number += 1


def described(path: Path, port: int, host: str = "127.0.0.1") -> Path:
    path.write_text(
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=camera\nc=IN IP4 {host}\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1\n"
    )
    return path


def test_a_multicast_has_several_receivers(tmp_path: Path) -> None:
    """The same frames reach both, as where a recorder and dasnet watch one camera."""
    if not joins_groups():
        pytest.skip(f"the network of this machine joins no multicast group such as {GROUP}")
    port = free_port()
    description = described(tmp_path / "camera.sdp", port, f"{GROUP}/1")
    with RtpSender(port, GROUP), ThreadPoolExecutor(2) as receivers:
        sources = [open_source(camera(f"sdp:{description}")) for _ in range(2)]
        one, other = receivers.map(lambda source: first(12, source), sources)
    levels = [{round(float(frame.pixels.mean())) for frame in frames} for frames in (one, other)]
    assert len(levels[0] & levels[1]) >= 6


def joins_groups() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + bytes(4))
            probe.connect((GROUP, 9))
        except OSError:
            return False
    return True


def test_rtp_by_a_session_description(tmp_path: Path) -> None:
    port = free_port()
    description = described(tmp_path / "camera.sdp", port)
    with RtpSender(port):
        source = open_source(camera(f"sdp:{description}"))
        started_s = time.monotonic()
        frames = first(12, source)
    assert time.monotonic() - started_s < 12 / FPS + 3
    assert frames[0].pixels.shape == (120, 160)
    steps = [later.pts_s - earlier.pts_s for earlier, later in pairwise(frames[2:])]
    assert np.median(steps) == pytest.approx(1 / FPS, rel=0.3)


def test_a_missing_session_description(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere.sdp does not exist; must be a session description"):
        open_source(camera(f"sdp:{tmp_path / 'nowhere.sdp'}"))
