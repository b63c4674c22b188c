"""The history page as a person uses it: filters, pages, exports, the time line; and the same through the API."""

import csv
import io
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from support.accessibility import assert_accessible, assert_fits_phone
from support.console_site import Feed, Process, browser, faultless_page, site_config
from support.events import event, gone, raised, track

from pipeline.store.reviews import acknowledge, review
from pipeline.store.store import Store
from pipeline.types import Cause, EventKind, Severity, Verdict

__all__ = ["browser"]  # a fixture
HOUR_NS = 3_600_000_000_000
MARKUP = "<img src=x onerror=\"document.body.innerHTML='taken'\">"
FORMULA = "=HYPERLINK(1)"
ALERTS = 130


@dataclass
class Site:
    """A console with a store."""

    console: Process
    store: Store
    path: Path
    now_ns: int

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.console.url(f"/api/v1{path}"), timeout=30)

    def found(self, query: str) -> list[dict[str, Any]]:
        answer = self.get(f"/alerts?limit=1000&{query}")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["alerts"])


def fill(store: Store, path: Path, now_ns: int) -> None:
    """One alert a minute, backwards; every third is of the other camera, every fifth unknown."""
    for number in range(ALERTS):
        camera = "south" if number % 3 == 0 else "north"
        label = "unknown" if number % 5 == 0 else "uav"
        opened_ns = now_ns - number * 60_000_000_000
        at = {
            "camera": camera,
            "severity": Severity.ALARM if label == "uav" else Severity.WARNING,
            "time_utc_ns": opened_ns,
        }
        of_feed = {"ulid": "01Knorth"} if number == 1 else {}
        subject = track(number, camera=camera, label=label, **of_feed)
        opened = raised(subject, **at)
        store.append(opened)
        store.append(gone(subject, opened[0].id, time_utc_ns=opened_ns + 5_000_000_000))
        if number >= 4:
            acknowledge(path, opened[0].id, now_ns)
        if number in (10, 11):
            note = MARKUP if number == 10 else FORMULA
            review(path, opened[0].id, Verdict.BIRD, note, now_ns)


def flap(store: Store, now_ns: int) -> None:
    """One camera fails twelve times in an hour, and is blind for a while before; another one is down now."""
    up, down, blind = EventKind.CAMERA_UP, EventKind.CAMERA_DOWN, EventKind.CAMERA_BLIND

    def at(hours: float, kind: EventKind, camera: str, cause: Cause | None = None) -> None:
        store.append([event(kind, camera=camera, time_utc_ns=now_ns - round(hours * HOUR_NS), cause=cause)])

    at(30, blind, "north", Cause.FROZEN)
    at(20, up, "north")
    for number in range(12):
        at(3 - number / 12, down, "north")
        at(3 - number / 12 - 0.01, up, "north")
    at(0.5, down, "south")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="history") as folder:
        config = site_config(Path(folder) / "run", "north", "south", "quiet")
        config.run_dir.mkdir()
        now_ns = time.time_ns()
        with Store(config.store_path) as store:
            fill(store, config.store_path, now_ns)
            flap(store, now_ns)
            feed = Feed(f"ipc://{config.run_dir}/live.sock")
            process = Process(config, feed.endpoint)
            feed.start()
            yield Site(process, store, config.store_path, now_ns)
            feed.stop.set()
            feed.join()
            process.stop()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with faultless_page(browser) as page:
        page.goto(site.console.url("/history"))
        expect(page.locator("#found tr")).to_have_count(50)
        yield page


def iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat().replace("+00:00", "Z")


def test_alerts_are_found_by_camera_label_severity_verdict_and_time(site: Site) -> None:
    assert len(site.found("")) == ALERTS
    assert {alert["camera"] for alert in site.found("camera=south")} == {"south"}
    assert len(site.found("camera=south")) == 44 and site.found("camera=elsewhere") == []
    assert len(site.found("label=unknown")) == len(site.found("severity=warning")) == 26
    assert len(site.found("label=unknown&camera=south")) == 9
    assert len(site.found("verdict=bird")) == 2 and len(site.found("verdict=none")) == ALERTS - 2
    assert len(site.found("unacknowledged=true")) == 4
    half_hour = f"since={iso(site.now_ns - HOUR_NS // 2)}&before={iso(site.now_ns - HOUR_NS // 4)}"
    assert len(site.found(half_hour)) in (14, 15, 16)
    for wrong in ("since=yesterday", "before=2026-01-01T00:00:00", "severity=high", "verdict=plane", "after=nothing"):
        answer = site.get(f"/alerts?{wrong}")
        assert answer.status_code == 400 and wrong.partition("=")[0] in answer.json()["error"], wrong


@pytest.mark.parametrize("query", ["", "unacknowledged=true", "camera=north&severity=alarm"])
def test_pages_hold_every_alert_once_in_order(site: Site, query: str) -> None:
    whole = [alert["id"] for alert in site.found(query)]
    paged: list[str] = []
    while alerts := site.get(f"/alerts?limit=3&{query}" + (f"&after={paged[-1]}" if paged else "")).json()["alerts"]:
        paged += [alert["id"] for alert in alerts]
    assert paged == whole and len(set(paged)) == len(paged)


def test_events_are_found_by_camera_alert_and_time(site: Site) -> None:
    (alert,) = site.get("/alerts?limit=1&verdict=bird").json()["alerts"]
    kinds = [each["kind"] for each in site.get(f"/events?alert={alert['id']}").json()["events"]]
    assert kinds[:2] == ["track.confirmed", "alert.opened"] and kinds[-1] == "alert.reviewed"
    since = f"/events?limit=1000&camera=north&since={iso(site.now_ns - 4 * HOUR_NS)}"
    states = [each["kind"] for each in site.get(since).json()["events"] if each["kind"].startswith("camera.")]
    assert states == ["camera.down", "camera.up"] * 12
    assert {each["camera"] for each in site.get("/events?camera=south").json()["events"]} == {"south"}


def test_exports_hold_what_is_filtered_and_no_formula(site: Site) -> None:
    whole = site.get("/alerts.json?severity=alarm")
    assert whole.json()["alerts"] == site.found("severity=alarm")
    assert site.get("/alerts.json?camera=elsewhere").json() == {"alerts": []}
    answer = site.get("/alerts.csv?verdict=bird")
    assert "attachment" in answer.headers["content-disposition"] and "text/csv" in answer.headers["content-type"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["note"] for row in rows] == [MARKUP, f"'{FORMULA}"]
    assert [row["id"] for row in rows] == [alert["id"] for alert in site.found("verdict=bird")]


def test_a_person_filters_with_the_keyboard_alone(page: Page, site: Site, tmp_path: Path) -> None:
    page.screenshot(path=tmp_path / "history.png")
    page.locator("#filters select[name=camera]").focus()
    page.keyboard.type("sou")
    expect(page.locator("#found tr")).to_have_count(44)
    page.keyboard.press("Tab")
    page.keyboard.type("unk")
    expect(page.locator("#found tr")).to_have_count(9)
    assert "camera=south" in page.url and "label=unknown" in page.url
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#found tr")).to_have_count(1)
    page.reload()
    expect(page.locator("#found tr")).to_have_count(1)
    page.keyboard.press("Escape")
    page.locator("#filters button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#found tr")).to_have_count(50)
    assert page.url.endswith("/history")
    first = page.locator("#found a").first
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/alert/*")


def test_a_person_turns_pages_there_and_back(page: Page, tmp_path: Path) -> None:
    expect(page.locator("#range")).to_have_text("1 to 50")
    first = page.locator("#found tr").first.get_attribute("data-key")
    assert page.locator("#newer").is_disabled()
    page.locator("#older").click()
    expect(page.locator("#range")).to_have_text("51 to 100")
    page.locator("#older").click()
    expect(page.locator("#range")).to_have_text("101 to 130")
    assert page.locator("#older").is_disabled()
    page.locator("#newer").click()
    expect(page.locator("#range")).to_have_text("51 to 100")
    page.locator("#newest").click()
    expect(page.locator("#found tr").first).to_have_attribute("data-key", str(first))


def test_what_is_focused_stays_so_while_the_list_follows_what_happens(page: Page, site: Site) -> None:
    rows = page.locator("#found tr")
    for row in (rows.nth(3), rows.first):
        row.get_by_role("link").focus()
        with page.expect_response(re.compile(r"/api/v1/alerts\?")):
            path = f"/api/v1/alerts/{rows.first.get_attribute('data-key')}"
            pinned = httpx.get(site.console.url(path)).json()["pinned_utc_ns"] is not None
            httpx.post(site.console.url(f"{path}/{'unpin' if pinned else 'pin'}")).raise_for_status()
        page.evaluate("fetch('/healthz').then((answer) => answer.text())")  # the answer before it is shown by then
        expect(row.get_by_role("link")).to_be_focused()


def test_the_time_line_shows_alerts_and_blind_time_and_flapping_is_one_line(page: Page, site: Site) -> None:
    north = page.locator('#timeline [data-camera="north"]')
    expect(north.locator('.blind[data-cause="frozen"]')).to_have_count(1)
    expect(north.locator('.blind[data-cause="offline"]')).to_have_count(12)
    assert page.locator("#timeline a").count() > 20
    lines = page.locator("#spells li").all_inner_texts()
    assert len(lines) == 3
    assert sum("north blind 12 times since" in line and "offline" in line for line in lines) == 1, lines
    assert sum(line.startswith("south blind since") for line in lines) == 1, lines
    assert sum("(frozen), 4 h" in line for line in lines) == 1, lines
    mark = north.locator("a").nth(5)
    said = re.search(r": (\d+) alerts", str(mark.get_attribute("aria-label")))
    assert said, "a step in the middle has more than one"
    page.goto(site.console.url(str(mark.get_attribute("href"))))
    expect(page.locator("#found tr")).to_have_count(int(said[1]))


def test_hostile_text_is_text(page: Page, site: Site) -> None:
    page.goto(site.console.url("/history?verdict=bird&camera=" + MARKUP))
    expect(page.locator("#nothing")).to_have_text("No such alerts.")
    page.goto(site.console.url("/history?verdict=bird"))
    expect(page.locator("#found")).to_contain_text(MARKUP)
    assert page.locator("main img").count() == 0


def test_rows_events_and_chips_of_the_wall_lead_to_the_alert(page: Page, site: Site) -> None:
    page.goto(site.console.url("/"))
    alert = site.found("camera=north")[0]["id"]
    for place in ("#tracks", '[data-camera="north"] .chips'):
        expect(page.locator(place).locator(f'a[href="/alert/{alert}"]')).to_have_count(1)
    expect(page.locator('#events a[href^="/alert/"]').first).to_be_visible()
    page.locator("#tracks a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/alert/*")
    expect(page.locator("#details-title")).to_contain_text("on")


@pytest.mark.parametrize("path", ["/history", "/alert/"])
def test_the_pages_are_accessible_and_fit_a_phone(page: Page, site: Site, path: str) -> None:
    page.goto(site.console.url(path + (site.found("")[0]["id"] if path == "/alert/" else "")))
    expect(page.locator("#link")).to_have_text("Live")
    assert_accessible(page)
    assert_fits_phone(page)
