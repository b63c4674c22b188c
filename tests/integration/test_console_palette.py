"""Day and night on every page, and whether what can be operated is readable in every state."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from support.colours import unreadable
from support.console_site import Process, browser, faultless_page
from support.events import raised, track
from support.mapped_site import flown, mapped_config

from pipeline.store.store import Store

__all__ = ["browser"]  # a fixture
LEAST = 4.5
MEASURED = 30  # states of links and buttons: the header's alone are as many
PAGES = {  # and what is there when they are
    "/": "#active button",
    "/map": "#map-tools select",
    "/history": "#found a",
    "/latency": "main button",
    "/try": "main input",
    "/audit": "main button",
    "/status": "#api td",
    "/camera/north/zones": "main button",
    "/alert/{alert}": "#details-review button",
}


@pytest.fixture
def console(tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """A console, and an alert."""
    config = mapped_config(tmp_path / "run", flown(1))
    config.run_dir.mkdir()
    events = raised(track(1))
    with Store(config.store_path) as store:
        store.append(events)
    process = Process(config, f"ipc://{config.run_dir}/live.sock")
    yield process, events[0].id
    process.stop()


def test_a_chosen_theme_stays_and_every_state_is_readable(browser: Browser, console: tuple[Process, str]) -> None:
    _check(browser, *console, ("/", "/map"))


@pytest.mark.slow
def test_every_state_of_every_page_is_readable(browser: Browser, console: tuple[Process, str]) -> None:
    _check(browser, *console, tuple(PAGES))


def _check(browser: Browser, console: Process, alert: str, pages: tuple[str, ...]) -> None:
    with faultless_page(browser) as page:
        page.emulate_media(color_scheme="light")
        page.goto(console.url("/"))
        ground = "getComputedStyle(document.documentElement).backgroundColor"
        day = page.evaluate(ground)
        theme = page.locator("#theme")
        expect(theme).to_have_text("Auto")
        theme.click()
        expect(theme).to_have_text("Day")
        assert page.evaluate(ground) == day
        for name in ("Day", "Night"):
            page.goto(console.url("/"))
            if theme.inner_text() != name:
                theme.click()
            for path in pages:
                page.goto(console.url(path.replace("{alert}", alert)))
                expect(theme).to_have_text(name)
                expect(page.locator(PAGES[path]).first).to_be_visible()
                expect(page.locator("#link")).to_have_text("Live")
                assert (page.evaluate(ground) == day) == (name == "Day")
                assert not list(unreadable(page, LEAST)), (path, name)
                assert len(list(unreadable(page, 22.0))) >= MEASURED, "more than any contrast: all that was measured"
