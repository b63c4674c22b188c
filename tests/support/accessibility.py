"""Whether a page can be used by everyone, by axe-core, and on a phone."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def assert_accessible(page: Page) -> None:
    """Check a page by day and by night."""
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        faults = Axe().run(page).response["violations"]
        serious = [fault for fault in faults if fault["impact"] in ("serious", "critical")]
        assert not serious, [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in serious]


def assert_fits_phone(page: Page) -> None:
    """Check that nothing is wider than a phone."""
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
