"""A camera that is lost and opened again costs neither memory nor descriptors, and may come back as another."""

import ctypes
import gc
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
import zmq
from support.program import Running
from support.rtsp import RtspCameras

from pipeline.capture.open import open_source
from pipeline.config.camera import Camera
from pipeline.store import ledger
from pipeline.transport.payloads import frame_of
from pipeline.transport.sockets import Socket, bound
from pipeline.transport.wire import Credit, CreditRequest, FrameHeader, decode, encode
from pipeline.types import FrameRef

FPS = 50
WARM_UP = 20
MOST_MB = 5.0
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


def resident_mb() -> float:
    """Of what is in use: free memory that glibc keeps in pieces is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_MB


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def clip(path: Path, codec: str = "libx264", size_px: tuple[int, int] = (320, 256)) -> Path:
    """A keyframe ten times a second, so that no connection waits for one."""
    options = {"libx265": {"x265-params": f"keyint={FPS // 10}:bframes=0:log-level=0"}, "mjpeg": {}}
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=FPS, options=options.get(codec, {"g": str(FPS // 10), "bf": "0"}))
        stream.width, stream.height = size_px
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(FPS):
            image = np.full((size_px[1], size_px[0], 3), number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    return path


def connect(camera: Camera, times: int) -> None:
    for _ in range(times):
        source = open_source(camera)
        frame = next(iter(source.frames()))
        assert frame.pixels.shape[:2] == (256, 320)
        source.close()


@pytest.mark.parametrize("times", [40, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_reconnections_leave_nothing_behind(times: int, tmp_path: Path) -> None:
    with RtspCameras({"cam": {"file": str(clip(tmp_path / "clip.mp4")), "fps": FPS}}) as cameras:
        camera = Camera.model_validate({"id": "cam", "uri": cameras.uri("cam"), "band": "infrared"})
        connect(camera, WARM_UP)
        before_mb, open_before = resident_mb(), descriptors()
        connect(camera, times)
        grown_mb = resident_mb() - before_mb
        print(f"{times} reconnections: {grown_mb:.1f} MB more, {descriptors() - open_before} descriptors more")
        assert grown_mb <= MOST_MB
        assert descriptors() == open_before


def test_a_camera_that_comes_back_as_another_is_watched_on(tmp_path: Path) -> None:
    """With another codec, resolution and frame rate each time: one session, numbers and times that go on."""
    shown = {
        "h264": clip(tmp_path / "h264.mp4"),
        "h265": clip(tmp_path / "h265.mp4", "libx265", (640, 512)),
        "mjpeg": clip(tmp_path / "mjpeg.mkv", "mjpeg", (176, 144)),
    }
    rounds = [("h264", 50), ("h265", 10), ("mjpeg", 25), ("h264", 50)]
    sizes = {"h264": (320, 256), "h265": (640, 512), "mjpeg": (176, 144)}
    config = tmp_path / "site.yaml"
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with (
        RtspCameras({"cam": {"file": str(shown["h264"]), "fps": FPS}}) as cameras,
        bound(zmq.ROUTER, f"ipc://{run_dir}/segmentation.sock", high_water=16) as socket,
    ):
        config.write_text(
            yaml.safe_dump({"cameras": [{"id": "cam", "uri": cameras.uri("cam")}], "run_dir": str(run_dir)})
        )
        with Running("worker", "capture", config, "--camera", "cam"):
            last: FrameRef | None = None
            for codec, fps in rounds:
                if last is not None:
                    cameras.command("down cam")
                    cameras.command(f"set cam file {shown[codec]}")
                    cameras.command(f"set cam fps {fps}")
                    cameras.command("up cam")
                frames = received(socket, sizes[codec], 12)
                steps_s = np.diff([ref.pts_s for ref in frames])
                assert np.median(steps_s) == pytest.approx(1 / fps, rel=0.25)
                for ref in frames:
                    assert last is None or (ref.seq > last.seq and ref.pts_s > last.pts_s)
                    assert last is None or ref.session == last.session
                    last = ref
    account = ledger.read(run_dir / "ledgers" / "cam.ledger")
    assert account.reconnects == len(rounds) - 1 and account.balanced


def received(socket: Socket, size_px: tuple[int, int], count: int) -> list[FrameRef]:
    """So many frames of that size in a row, each answered with credit for another."""
    frames: list[FrameRef] = []
    while len(frames) < count:
        assert socket.poll(20_000), f"no more frames after {len(frames)} of {size_px}"
        sender, *parts = socket.recv_multipart()
        message, buffers = decode(parts)
        assert isinstance(message, CreditRequest | FrameHeader)
        is_frame = isinstance(message, FrameHeader)
        if is_frame and frame_of(message, buffers).size_px == size_px:
            frames.append(message.ref)
        session = message.ref.session if is_frame else message.session
        done = [message.ref.seq] if is_frame else []
        socket.send_multipart([sender, *encode(Credit("here", session, segmented=done, granted=True))])
    return frames
