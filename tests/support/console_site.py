"""A console with a live feed, and a browser that looks at it."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.config.models import Config
from pipeline.transport.live import LiveFrame, encode
from support.events import track
from support.program import die_with_parent

WIDTH, HEIGHT, SIDE = 320, 256, 40  # px; of the frame, and of the target in it


ROOT = Path(__file__).parents[2]
SERVER = """
import os, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.console.server import run_console
from pipeline.transport.listener import listen
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
path = Path(sys.argv[1])
config = load(path) if path.suffix == ".yaml" else Config.model_validate_json(path.read_bytes())
os.chdir(config.run_dir)  # as the supervisor starts it
listener = listen(config.console.host, int(sys.argv[3]), **eval(sys.argv[5]))
run_console(config, sys.argv[2], listener, ready=lambda url: print(url, flush=True), stop=stop,
            metrics=lambda: sys.argv[4])
"""
CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage"
)
SECRET = "hunter2"
POSE = {"lat": 48, "lon": 11, "azimuth_deg": 90, "hfov_deg": 40}
SECTORS = {"runway": {"azimuth_deg": [80, 100], "elevation_deg": [-5, 5]}}
ZONES = {"roof": [[60, 40], [260, 40], [260, 220], [60, 220]], "fence": [[0, 240], [320, 240]]}


def site_config(run_dir: Path, *names: str) -> Config:
    uris = (f"rtsp://user:{SECRET}@192.0.2.1/{name}?pwd={SECRET}" for name in names)
    entries: list[dict[str, object]] = [
        {"id": name, "uri": uri, "band": "infrared"} for name, uri in zip(names, uris, strict=True)
    ]
    entries[0]["zones"] = ZONES
    if len(entries) > 1:
        entries[1] |= {"pose": POSE, "sectors": SECTORS}
    return Config.model_validate({"cameras": entries, "run_dir": run_dir})


def target_x(seq: int) -> int:
    return 20 + seq * 7 % (WIDTH - SIDE - 40)


def picture(seq: int) -> NDArray[np.uint8]:
    """A white square on grey, at another place in every frame."""
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    x = target_x(seq)
    pixels[100 : 100 + SIDE, x : x + SIDE] = 255
    return pixels


def live_message(camera: str, seq: int, label: str = "uav", picture_too: bool = True) -> list[bytes]:
    x = target_x(seq)
    box = (float(x), 100.0, float(x + SIDE), 100.0 + SIDE)
    tracks = [track(7, seq, camera=camera, label=label, xyxy=box, ulid=f"01K{camera}")]
    frame = LiveFrame(camera, "s1", seq, seq / 10, time.time_ns(), WIDTH, HEIGHT, tracks)
    jpeg = cv2.imencode(".jpg", picture(seq))[1].tobytes() if picture_too else b""
    return encode(frame, jpeg)


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    end = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)
    return result


def in_a_thread(work: Callable[[], object]) -> None:
    """Playwright's event loop occupies the main thread."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(work).result(10)


class Process:
    """The console in a process of its own."""

    def __init__(
        self, config: Config, endpoint: str, metrics: str = "http://127.0.0.1:9/metrics", **limits: float
    ) -> None:
        self._limits = limits
        self._file = config.run_dir / "config.json"
        self._file.write_text(config.model_dump_json())
        self._endpoint = endpoint
        self._metrics = metrics
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", SERVER, str(self._file), self._endpoint, str(self.port), self._metrics]
        command.append(repr(self._limits))
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=die_with_parent
        )
        assert self.process.stdout
        self.scheme, _, port = self.process.stdout.readline().rstrip("/\n").split(":")
        self.port = int(port)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> float:
        """Returns how long that took, s."""
        started = time.monotonic()
        self.process.send_signal(how)
        assert self.process.wait(8) == (0 if how is signal.SIGTERM else -how)
        assert self.process.stdout
        self.process.stdout.close()
        return time.monotonic() - started

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"


class Feed(threading.Thread):
    """The track worker's part: frames of two cameras ten times a second, and what else is given to it to send."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.extra: list[list[bytes]] = []
        self.stop = threading.Event()

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
            publisher.linger = 0
            publisher.bind(self.endpoint)
            seq = 0
            while not self.stop.wait(0.1):
                while self.extra:
                    publisher.send_multipart(self.extra.pop())
                publisher.send_multipart(live_message("north", seq))
                publisher.send_multipart(live_message("south", seq, "unknown"))
                seq += 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_FLAGS.split())
        yield browser
        browser.close()


@contextmanager
def faultless_page(browser: Browser) -> Iterator[Page]:
    """A page on which no script fails, and which asks for nothing that it may not."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    yield page
    page.close()
    assert faults == []
