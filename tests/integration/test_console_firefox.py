"""The console in real Firefox: every page without a failing script, fresh images and video, an alert acknowledged."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import firefox
from support.coded_camera import CAMERA, watched_camera
from support.console_site import Process, site_config, until
from support.events import raised, track
from support.firefox import Firefox

from pipeline.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(firefox.missing()), reason=str(firefox.missing()))]
OTHER = "south"
PAGES = ("/", "/?wall", "/history", "/latency", "/try", "/audit", "/status", f"/camera/{CAMERA}/zones")
SCREENS = os.environ.get("SCREENS")  # a folder for images of every page, to look at


@dataclass
class Site:
    console: Process
    store: Store
    alert: str


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="firefox-site") as folder:
        config = site_config(Path(folder) / "run", CAMERA, OTHER)
        config.run_dir.mkdir()
        with Store(config.store_path) as store, watched_camera(config.run_dir, [OTHER]) as camera:
            store.append(opened := raised(track(0), time_utc_ns=time.time_ns()))
            console = Process(config, camera.endpoint)
            yield Site(console, store, opened[0].id)
            console.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Firefox]:
    with Firefox() as browser:
        yield browser


def shows(browser: Firefox, expression: str, value: object) -> None:
    until(lambda: browser.evaluate(expression) == value)


@pytest.mark.parametrize("path", [*PAGES, "/alert/"])
def test_a_page_works_and_fits_a_phone(browser: Firefox, site: Site, path: str) -> None:
    browser.faults.clear()
    browser.goto(site.console.url(path + (site.alert if path == "/alert/" else "")))
    shows(browser, "document.querySelector('#link').textContent", "Live")
    shows(browser, "document.querySelector('#badge').textContent", "1")
    if SCREENS:
        browser.screenshot(Path(SCREENS) / f"firefox_{PAGES.index(path) if path in PAGES else 'alert'}.png")
    browser.goto(site.console.url(path + (site.alert if path == "/alert/" else "")), (450, 844))
    shows(browser, "document.querySelector('#link').textContent", "Live")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.faults == []


def test_the_wall_is_fresh_and_an_enlarged_camera_says_what_it_shows(browser: Firefox, site: Site) -> None:
    browser.faults.clear()
    browser.goto(site.console.url(f"/#{CAMERA}"))
    card = f"document.querySelector('.large[data-camera=\"{CAMERA}\"]')"
    until(lambda: browser.evaluate(f"{card}?.querySelector('.source').textContent"))
    says = browser.evaluate(f"{card}.querySelector('.source').textContent")
    plays = browser.evaluate("MediaSource.isTypeSupported('video/mp4; codecs=\"avc1.42c015\"')")
    if plays:
        shows(browser, f"{card}.querySelector('.source').textContent", "Live video")
        pts_s = float(browser.evaluate(f"{card}.querySelector('canvas').dataset.pts"))
        until(lambda: float(browser.evaluate(f"{card}.querySelector('canvas').dataset.pts")) > pts_s)
    else:
        until(lambda: "does not play video/mp4" in browser.evaluate(f"{card}.querySelector('.source').textContent"))
    other = f"document.querySelector('[data-camera=\"{OTHER}\"]')"
    browser.press("\ue00c")  # Escape
    shows(browser, "document.querySelectorAll('.large').length", 0)
    shows(browser, f"{other}.dataset.age", "fresh")
    shows(browser, f"{other}.querySelector('.view canvas').dataset.picture", "true")
    assert says and browser.faults == []


def test_an_alert_is_acknowledged(browser: Firefox, site: Site) -> None:
    browser.goto(site.console.url("/"))
    shows(browser, "document.querySelectorAll('#active li').length", 1)
    browser.click("#active .acknowledge")
    shows(browser, "document.querySelector('#active .severity').textContent.includes('acknowledged')", True)
