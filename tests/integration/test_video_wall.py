"""The video wall: many cameras on one screen without scrolling, the alarming one on top; zoom and full screen."""

import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import zmq
from playwright.sync_api import Browser, Page, expect
from support.accessibility import assert_accessible
from support.console_site import Process, browser, faultless_page, live_message, site_config, until
from support.events import raised, track

from pipeline.store.store import Store

__all__ = ["browser"]  # a fixture
SIZES = [(1366, 768), (3840, 2160), (390, 844)]


class ManyCameras(threading.Thread):
    """The track worker's part: a frame of every camera, twice a second."""

    def __init__(self, endpoint: str, names: list[str]) -> None:
        super().__init__()
        self.endpoint = endpoint
        self._names = names
        self.stop = threading.Event()

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
            publisher.linger = 0
            publisher.bind(self.endpoint)
            seq = 0
            while not self.stop.wait(0.5):
                for name in self._names:
                    publisher.send_multipart(live_message(name, seq))
                seq += 1


@dataclass
class Site:
    console: Process
    store: Store
    cameras: int


@pytest.fixture(scope="module", params=[pytest.param(16, marks=pytest.mark.slow), 36])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    names = [f"camera-{number}" for number in range(request.param)]
    with tempfile.TemporaryDirectory(prefix="wall") as folder:
        config = site_config(Path(folder) / "run", *names)
        config.run_dir.mkdir()
        with Store(config.store_path) as store:
            feed = ManyCameras(f"ipc://{config.run_dir}/live.sock", names)
            feed.start()
            console = Process(config, feed.endpoint)
            yield Site(console, store, request.param)
            console.stop()
            feed.stop.set()
            feed.join()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with faultless_page(browser) as page:
        page.goto(site.console.url("/?wall"))
        expect(page.locator("canvas[data-picture=true]")).to_have_count(site.cameras)
        yield page


def test_all_cameras_fit_on_the_screen(page: Page, site: Site, tmp_path: Path) -> None:
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        boxes = until(partial(laid_out, page, width, height))
        assert len(boxes) == site.cameras
        filled = sum(box["width"] * box["height"] for box in boxes) / (width * height)
        assert filled > 0.75, "little is wasted"
        page.screenshot(path=tmp_path / f"wall_{site.cameras}_{width}.png")
    page.set_viewport_size({"width": 1366, "height": 768})
    assert_accessible(page)
    page.keyboard.press("Escape")
    expect(page.locator("#alerts")).to_be_visible()
    page.get_by_role("button", name="Video wall").click()
    expect(page.locator("#alerts")).to_be_hidden()
    assert page.url.endswith("/?wall")


def laid_out(page: Page, width: int, height: int) -> list[dict[str, float]]:
    """The places of all cameras, once they are all on the screen."""
    boxes = page.locator(".card .view").evaluate_all("all => all.map(e => e.getBoundingClientRect().toJSON())")
    fit = all(box["right"] <= width and box["bottom"] <= height and box["width"] > 20 for box in boxes)
    return boxes if fit and page.evaluate("document.documentElement.scrollHeight <= innerHeight") else []


def test_the_camera_of_the_newest_alarm_pops_up_until_it_is_dismissed(page: Page, site: Site) -> None:
    alert(site, 1, "camera-3")
    expect(page.locator(".popped")).to_have_attribute("data-camera", "camera-3")
    alert(site, 2, "camera-7")
    expect(page.locator(".popped")).to_have_attribute("data-camera", "camera-7")
    expect(page.locator(".alarming")).to_have_count(2)
    page.reload()  # its alerts come before its cameras
    expect(page.locator(".alarming")).to_have_count(2)
    expect(page.locator(".popped")).to_have_attribute("data-camera", "camera-7")
    page.keyboard.press("Escape")
    expect(page.locator(".popped")).to_have_count(0)
    expect(page.locator("#wall-tools")).to_be_visible()


def alert(site: Site, number: int, camera: str) -> None:
    site.store.append(raised(track(number, camera=camera), camera=camera, time_utc_ns=time.time_ns()))


def test_a_camera_is_enlarged_zoomed_and_shown_on_the_full_screen(browser: Browser, site: Site, tmp_path: Path) -> None:
    with faultless_page(browser) as page:
        page.goto(site.console.url("/#camera-0"))
        card = page.locator(".card.large")
        canvas = card.locator(".view canvas")
        expect(canvas).to_have_attribute("data-picture", "true")
        assert bright_share(page) < 0.1
        for _ in range(3):
            page.keyboard.press("+")
        page.get_by_role("button", name="Zoom in").click()
        box = canvas.bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 - 40, steps=3)
        page.mouse.up()
        page.screenshot(path=tmp_path / "zoom.png")
        until(lambda: bright_share(page) > 0.15)  # the target is large, when it passes
        page.keyboard.press("0")
        until(lambda: bright_share(page) < 0.1)
        assert card.get_by_role("link", name="Zones").get_attribute("href") == "/camera/camera-0/zones"
        page.keyboard.press("f")
        until(lambda: page.evaluate("document.fullscreenElement?.dataset.camera") == "camera-0")
        page.keyboard.press("f")
        until(lambda: page.evaluate("document.fullscreenElement === null"))
        assert_accessible(page)


def bright_share(page: Page) -> float:
    """The share of white pixels of the enlarged camera."""
    script = """c => {
      const {data} = c.getContext("2d").getImageData(0, 0, c.width, c.height);
      let bright = 0;
      for (let i = 0; i < data.length; i += 4) bright += data[i] > 240 && data[i + 1] > 240 && data[i + 2] > 240;
      return bright / (data.length / 4);
    }"""
    return float(page.locator(".card.large .view canvas").evaluate(script))
