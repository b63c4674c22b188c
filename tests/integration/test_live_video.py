"""The camera's own video in the browser: near its newest frame, each frame with its own time, images where it ends."""

import base64
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from support.clips import FPS, SIZE_PX
from support.coded_camera import FRAMES, CodedCamera, watched_camera
from support.console_site import Process, browser, faultless_page, site_config, until

__all__ = ["browser"]  # a fixture


@dataclass
class Site:
    console: Process
    camera: CodedCamera


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="video") as folder:
        config = site_config(Path(folder) / "run", "north", "south")
        config.run_dir.mkdir()
        with watched_camera(config.run_dir) as camera:
            console = Process(config, camera.endpoint)
            yield Site(console, camera)
            console.stop()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with faultless_page(browser) as page:
        page.goto(site.console.url("/#north"))
        yield page


def test_the_enlarged_camera_plays_its_own_video_with_boxes_at_their_frame(
    page: Page, site: Site, tmp_path: Path
) -> None:
    canvas = page.locator(".card.large .view canvas")
    expect(canvas).to_have_attribute("data-video", "true", timeout=20_000)
    until(lambda: site.camera.number / FPS - float(canvas.get_attribute("data-pts") or 0) < 1.5)
    for _ in range(5):
        content, pts_s = canvas.evaluate("c => [c.toDataURL(), Number(c.dataset.pts)]")
        pixels = np.frombuffer(base64.b64decode(content.partition(",")[2]), np.uint8)
        shown = np.asarray(cv2.imdecode(pixels, cv2.IMREAD_COLOR), np.int32)
        assert square(shown) == pytest.approx(round(pts_s * FPS) % FRAMES * 3, abs=4), "the frame of that time"
    expect(page.locator(".card.large .source")).to_have_text("Live video")
    page.screenshot(path=tmp_path / "video.png")
    page.keyboard.press("Escape")
    expect(page.locator('.card[data-camera="north"] .view canvas')).to_have_attribute("data-video", "false")


def square(pixels: np.ndarray[Any, Any]) -> float:
    """The left edge of the red square, in frame pixels."""
    blue, green, red = (pixels[..., i] for i in range(3))
    found = np.argwhere((red > 200) & (green < 80) & (blue < 230))[:, 1]
    scale = min(pixels.shape[0] / SIZE_PX[1], pixels.shape[1] / SIZE_PX[0])
    return float((np.percentile(found, 2) - (pixels.shape[1] - SIZE_PX[0] * scale) / 2) / scale)


def test_a_camera_without_video_is_told_and_shows_images(page: Page, site: Site) -> None:
    page.get_by_role("button", name="south", exact=True).click()
    told = "Images, as processed · no video: its capture worker does not answer"
    expect(page.locator('.large[data-camera="south"] .source')).to_have_text(told)
    answer = httpx.get(site.console.url("/api/v1/cameras/south/live.mp4"))
    assert answer.status_code == 404 and "does not answer" in answer.json()["error"]
    assert httpx.get(site.console.url("/api/v1/cameras/west/live.mp4")).status_code == 404
    with httpx.stream("GET", site.console.url("/api/v1/cameras/north/live.mp4")) as response:
        assert response.headers["content-type"].startswith("video/mp4; codecs=")
        content = b""
        for each in response.iter_raw():
            content += each
            if b"moof" in content:
                break
        assert b"moof" in content, "its video began"


def test_who_asks_for_the_head_of_a_video_alone_is_not_sent_one(site: Site) -> None:
    path = "/api/v1/cameras/{}/live.mp4"
    with httpx.Client(base_url=site.console.url(""), timeout=5) as client:
        assert client.head(path.format("west")).status_code == 404
        assert client.head(path.format("north")).headers["content-type"].startswith("video/mp4")
        assert client.get("/healthz").status_code == 200, "the connection is free again"
