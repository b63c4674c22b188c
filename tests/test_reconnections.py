"""A camera that is lost and opened again, over and over, costs neither memory nor descriptors."""

import ctypes
import gc
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from rtsp import RtspCameras

from pipeline.capture.sources import open_source
from pipeline.config import Camera

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


def clip(path: Path) -> Path:
    """A keyframe ten times a second, so that no connection waits for one."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=FPS, options={"g": str(FPS // 10), "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 320, 256, "yuv420p"
        for number in range(FPS):
            picture = np.full((256, 320, 3), number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode(None))
    return path


def connect(camera: Camera, times: int) -> None:
    for _ in range(times):
        source = open_source(camera)
        picture = next(iter(source.pictures()))
        assert picture.pixels.shape[:2] == (256, 320)
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
