"""Hostile texts on every page that shows them: labels, rules, evidence, notes, users.  They are text, at every size."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq
from playwright.sync_api import Browser, Page, expect
from support.console_site import HEIGHT, WIDTH, Process, browser, faultless_page, site_config
from support.events import raised, track

from pipeline.store import reviews
from pipeline.store.actions import Actor
from pipeline.store.store import Store
from pipeline.transport.live import LiveFrame, encode
from pipeline.types import Verdict

__all__ = ["browser"]  # a fixture
MARKUP = "<img src=x onerror=\"document.body.innerHTML='taken'\">"
SHOWN = "<img src=x onerror"  # of it, where a name begins with a capital or is cut off
SIZES = ((1366, 768), (3840, 2160), (390, 844))


@dataclass
class Site:
    console: Process
    alert: str


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="hostile") as folder, zmq.Context() as context:
        config = site_config(Path(folder) / "run", "north")
        config.run_dir.mkdir()
        subject = track(1, label=MARKUP, evidence={MARKUP: 2.0})
        with Store(config.store_path) as store, context.socket(zmq.PUB) as publisher:
            opened = raised(subject, rule=MARKUP, time_utc_ns=time.time_ns())
            store.append(opened)
            alert = opened[0].id
            reviews.review(config.store_path, alert, Verdict.BIRD, MARKUP, time.time_ns(), Actor(MARKUP, MARKUP))
            publisher.bind(f"ipc://{config.run_dir}/live.sock")
            console = Process(config, f"ipc://{config.run_dir}/live.sock")
            frame = LiveFrame("north", MARKUP, 1, 0.1, time.time_ns(), WIDTH, HEIGHT, [subject])
            publisher.send_multipart(encode(frame))
            yield Site(console, alert)
            console.stop()
            publisher.close(0)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with faultless_page(browser) as page:
        yield page


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("/", ["#ended", "#events", "#tracks"]),
        ("/?wall", []),
        ("/history", ["#found"]),
        ("/alert/", ["#details-title", "#details-list", "#events"]),
        ("/audit", ["#found"]),
        ("/history?label=" + MARKUP, []),
        ("/audit?user=" + MARKUP, []),
        ("/camera/" + MARKUP + "/zones", []),
    ],
    ids=lambda value: str(value).partition("<")[0] if isinstance(value, str) else "",
)
def test_hostile_texts_are_text_and_fit(page: Page, site: Site, path: str, places: list[str]) -> None:
    page.goto(site.console.url(path + (site.alert if path == "/alert/" else "")))
    expect(page.locator("#link")).to_have_text("Live")
    for place in places:
        expect(page.locator(place)).to_contain_text(SHOWN, ignore_case=True)
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("img[src=x]").count() == 0
