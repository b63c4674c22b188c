"""What an operator does with alerts on the page and through the API: real server, store and browser."""

import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from support.console_site import Process, browser, faultless_page, picture, site_config
from support.events import ENDED, ESCALATED, event, gone, raised, track, until

from pipeline.store.alert import Alert
from pipeline.store.reader import StoreReader
from pipeline.store.reviews import acknowledge_ended
from pipeline.store.store import Store
from pipeline.types import Severity

__all__ = ["browser"]  # a fixture


@dataclass
class Site:
    """A console with a store."""

    console: Process
    store: Store
    run_dir: Path

    def alert(self, number: int, time_utc_ns: int | None = None, rule: str | None = None, **changes: Any) -> str:
        severity = Severity.WARNING if changes.get("label") == "unknown" else Severity.ALARM
        at = {"severity": severity, "time_utc_ns": time_utc_ns or time.time_ns(), "rule": rule}
        opened = raised(track(number, **changes), snapshot="shot.jpg", crop="crop.jpg", **at)
        self.store.append(opened)
        return opened[0].id

    def end(self, number: int, alert: str) -> None:
        self.store.append(gone(track(number, 9), alert, time_utc_ns=time.time_ns()))

    def escalate(self, number: int, alert: str, **changes: Any) -> None:
        self.store.append([event(ESCALATED, track(number, 9), alert=alert, time_utc_ns=time.time_ns(), **changes)])

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return httpx.post(self.console.url(f"/api/v1{path}"), timeout=60, **arguments)

    def stored(self, alert: str) -> Alert:
        with StoreReader(self.run_dir / "store.sqlite") as reader:
            found = reader.alert(alert)
            assert found is not None
            return found

    def clear(self) -> None:
        """Leave nothing that waits."""
        with StoreReader(self.run_dir / "store.sqlite") as reader:
            for alert in reader.alerts(100, "active"):
                self.store.append([event(ENDED, alert=alert.id)])
        acknowledge_ended(self.run_dir / "store.sqlite", time.time_ns())


@pytest.fixture(scope="module")
def module_site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="alerts") as folder:
        config = site_config(Path(folder) / "run", "north", "south")
        (config.run_dir / "snapshots").mkdir(parents=True)
        for name in ("shot.jpg", "crop.jpg"):
            cv2.imwrite(str(config.run_dir / "snapshots" / name), picture(0))
        with Store(config.store_path) as store:
            site = Site(Process(config, f"ipc://{config.run_dir}/nobody.sock"), store, config.run_dir)
            yield site
            site.console.stop()


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    yield module_site
    module_site.clear()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with faultless_page(browser) as page:
        page.goto(site.console.url("/"))
        yield page


def item(page: Page, alert: str) -> Locator:
    return page.locator(f'.alerts [data-key="{alert}"]')


def test_an_alert_is_acknowledged_and_dismissed_for_all_browsers_at_once(
    page: Page, browser: Browser, site: Site
) -> None:
    other = browser.new_page()
    other.goto(site.console.url("/"))
    alert = site.alert(1)
    before_ns = time.time_ns()
    expect(page).to_have_title("(1) alert · dasnet")
    item(page, alert).get_by_role("button", name="Acknowledge").click()
    expect(item(page, alert).locator(".severity")).to_have_text("Alarm · acknowledged")
    expect(other.locator("#active .severity")).to_have_text("Alarm · acknowledged", timeout=900)
    expect(page).to_have_title("dasnet")
    assert before_ns <= (site.stored(alert).acknowledged_utc_ns or 0) <= time.time_ns()

    item(page, alert).get_by_role("button", name="Verdict").press("Enter")
    page.get_by_role("button", name="Bird", exact=True).press("Enter")
    expect(page.locator("dialog")).to_contain_text("Dismissed")
    expect(other.locator(f'#ended [data-key="{alert}"] .severity')).to_have_text("Dismissed: bird", timeout=900)
    expect(other.locator("#active li")).to_have_count(0)
    assert (site.stored(alert).dismissed_as, site.stored(alert).state) == ("bird", "active")
    other.close()


def test_what_is_gone_and_not_seen_stays_on_top_and_in_the_count_until_a_person_acts(page: Page, site: Site) -> None:
    seen, warning, alarm = site.alert(1), site.alert(2, label="unknown"), site.alert(3)
    site.post(f"/alerts/{seen}/acknowledge")
    site.end(2, warning)
    site.end(3, alarm)
    top = page.locator("#active li")
    expect(top.locator(".severity")).to_have_text(["Gone, not seen", "Gone, not seen", "Alarm · acknowledged"])
    assert [each.get_attribute("data-key") for each in top.all()] == [alarm, warning, seen], "alarms first"
    expect(page.locator("#badge")).to_have_text("2")
    expect(page.locator("#alert-count")).to_have_text("2")
    expect(page).to_have_title("(2) alerts · dasnet")
    site.console.stop()
    site.console.start()
    page.reload()
    expect(page).to_have_title("(2) alerts · dasnet")  # across restarts
    page.goto(site.console.url("/status"))
    expect(page).to_have_title("(2) alerts · dasnet")
    page.goto(site.console.url("/"))
    page.get_by_role("button", name="Acknowledge ended (2)").click()
    expect(page).to_have_title("dasnet")
    expect(top).to_have_count(1)
    assert site.stored(alarm).acknowledged_utc_ns is not None and site.stored(seen).state == "active"


def test_an_acknowledged_alert_that_escalates_waits_again_and_says_why(page: Page, site: Site) -> None:
    alert = site.alert(33, label="unknown")
    item(page, alert).get_by_role("button", name="Acknowledge").click()
    expect(page).to_have_title("dasnet")
    site.escalate(33, alert, was="unknown", reason="label")
    expect(page).to_have_title("(1) alert · dasnet")
    expect(item(page, alert).locator("b")).to_have_text("UAV #33")
    expect(item(page, alert).locator(".change")).to_have_text("opened as Unknown, now UAV")
    expect(page.locator("#announce")).to_contain_text("Alarm: UAV on north, opened as Unknown, now UAV")
    assert item(page, alert).locator(".thumb img").get_attribute("src") == "/api/v1/snapshots/crop.jpg"


def test_a_verdict_with_a_note_is_given_seen_undone_and_the_alert_reopened(page: Page, site: Site) -> None:
    alert = site.alert(5)
    item(page, alert).get_by_role("button", name="Verdict").click()
    dialog = page.locator("dialog")
    dialog.get_by_label("Note").fill("a heron, from the pond")
    pressed = dialog.get_by_role("button", name="Bird", exact=True)
    pressed.click()
    expect(pressed).to_have_attribute("aria-pressed", "true")
    colours = pressed.evaluate("b => [getComputedStyle(b).color, getComputedStyle(b).backgroundColor]")
    contrast = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours]
    assert abs(contrast[0] - contrast[1]) > 150, "its text is legible"
    until_stored(site, alert, verdict="bird", note="a heron, from the pond")
    dialog.get_by_label("Note").fill("a heron")
    dialog.get_by_label("Note").press("Tab")
    until_stored(site, alert, verdict="bird", note="a heron")
    dialog.get_by_role("button", name="Confirmed UAV").click()
    until_stored(site, alert, verdict="uav", note="a heron", dismissed_as=None)
    expect(item(page, alert).locator(".severity")).to_have_text("Confirmed")
    dialog.get_by_role("button", name="Undo").click()
    expect(dialog.get_by_role("button", name="Undo")).not_to_be_visible()
    assert site.stored(alert).verdict is None and site.stored(alert).acknowledged_utc_ns is not None
    dialog.get_by_role("button", name="Reopen").click()
    expect(page).to_have_title("(1) alert · dasnet")
    expect(dialog.get_by_role("button", name="Acknowledge", exact=True)).to_be_enabled()
    expect(dialog.get_by_role("button", name="Reopen")).not_to_be_visible()


def test_an_alert_is_pinned_and_unpinned_and_says_which_rule_raised_it(
    page: Page, browser: Browser, site: Site, tmp_path: Path
) -> None:
    other = browser.new_page()
    other.goto(site.console.url("/"))
    alert, plain = site.alert(6, rule="perimeter at night"), site.alert(7)
    expect(item(page, alert).locator(".why")).to_contain_text("rule perimeter at night")
    expect(item(page, plain).locator(".why")).not_to_contain_text("rule")
    item(page, alert).get_by_role("button", name="Verdict").click()
    dialog = page.locator("dialog")
    expect(dialog.locator("dl")).to_contain_text("Ruleperimeter at night")
    pin = dialog.locator('[data-action="pin"]')
    expect(pin).to_have_text("Pin")
    before_ns = time.time_ns()
    pin.press("Enter")
    expect(pin).to_have_text("Unpin")
    expect(pin).to_have_attribute("aria-pressed", "true")
    expect(dialog.locator("dl")).to_contain_text("Pinned")
    expect(item(other, alert).locator(".pinned")).to_be_visible()
    expect(item(other, plain).locator(".pinned")).not_to_be_visible()
    assert before_ns < (site.stored(alert).pinned_utc_ns or 0) < time.time_ns()
    page.screenshot(path=tmp_path / "pinned.png")
    pin.click()
    expect(pin).to_have_text("Pin")
    expect(item(other, alert).locator(".pinned")).not_to_be_visible()
    until_stored(site, alert, pinned_utc_ns=None, acknowledged_utc_ns=None)
    other.close()


def test_pins_through_the_api_and_from_a_foreign_page(site: Site) -> None:
    alert = site.alert(9, rule="perimeter")
    answer = site.post(f"/alerts/{alert}/pin")
    assert answer.status_code == 200 and answer.json()["pinned_utc_ns"] > 0 and answer.json()["rule"] == "perimeter"
    assert site.post("/alerts/nobody/pin").status_code == site.post("/alerts/nobody/unpin").status_code == 404
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert site.post(f"/alerts/{alert}/unpin", headers=headers).status_code == 403
    assert site.stored(alert).pinned_utc_ns is not None
    assert site.post(f"/alerts/{alert}/unpin").json()["pinned_utc_ns"] is None


def until_stored(site: Site, alert: str, **values: object) -> None:
    end_s = time.monotonic() + 5
    while any(getattr(site.stored(alert), name) != value for name, value in values.items()):
        assert time.monotonic() < end_s, site.stored(alert)
        time.sleep(0.02)


HEARD = """
window.tones = [];
const start = OscillatorNode.prototype.start;
OscillatorNode.prototype.start = function (...when) {
  tones.push(this.frequency.value);
  return start.apply(this, when);
};
"""


@pytest.mark.slow
def test_an_alarm_sounds_until_it_is_acknowledged_once_that_is_wanted(page: Page, site: Site) -> None:
    page.add_init_script(HEARD)
    page.reload()
    alert = site.alert(61)
    sound = page.locator("#sound")
    expect(item(page, alert)).to_be_visible()
    expect(sound).to_have_text("Sound off")
    assert page.evaluate("tones") == [], "opt-in"
    sound.click()
    expect(sound).to_have_text("Sound on")
    until(lambda: page.evaluate("tones.length === 6"), 15)  # it repeats
    page.reload()  # a choice of this browser, which then waits for a click
    expect(sound).to_have_text("Sound silent until you click")
    page.locator("h1, h2").first.click()
    expect(sound).to_have_text("Sound on")
    until(lambda: page.evaluate("tones.length === 3"), 15)
    item(page, alert).get_by_role("button", name="Acknowledge").click()
    expect(page).to_have_title("dasnet")
    heard = page.evaluate("tones.length")
    page.wait_for_timeout(5500)  # longer than it takes to repeat: that nothing comes has no event
    assert page.evaluate("tones.length") == heard
    warning = site.alert(62, label="unknown")
    until(lambda: page.evaluate("tones.at(-1) === 520"), 15)
    sound.click()
    expect(sound).to_have_text("Sound off")
    site.post(f"/alerts/{warning}/acknowledge")


def test_a_new_alert_is_notified_once_that_is_wanted(browser: Browser, site: Site) -> None:
    context = browser.new_context(permissions=["notifications"])
    page = context.new_page()
    page.add_init_script(
        "window.said = []; const Own = Notification; window.Notification = class extends Own {"
        "constructor(text, more) { super(text, more); said.push([text, more.tag]); } };"
    )
    page.goto(site.console.url("/"))
    notify = page.locator("#notify")
    expect(notify).to_have_text("Notifications off")
    notify.click()
    expect(notify).to_have_text("Notifications on")
    alert = site.alert(63)
    until(lambda: page.evaluate("said.length === 1"), 15)
    assert page.evaluate("said") == [["Alarm: UAV on north", alert]]
    context.close()


def test_the_date_is_said_when_it_is_not_today(page: Page, site: Site) -> None:
    before = datetime.now() - timedelta(days=3)
    old, new = site.alert(7, round(before.timestamp() * 1e9)), site.alert(8)
    expect(item(page, old).locator(".where")).to_contain_text(f"{before:%m-%d %H:%M:%S}")
    expect(item(page, new).locator(".where")).not_to_contain_text(f"{before:%m-%d}")


def test_reviews_through_the_api_and_from_a_foreign_page(site: Site) -> None:
    alert = site.alert(2)
    answer = site.post(f"/alerts/{alert}/dismiss", json={"reason": "insect"})
    assert answer.status_code == 200 and answer.json()["dismissed_as"] == "insect"
    refused = site.post(f"/alerts/{alert}/dismiss", json={"reason": "uav"})
    assert refused.status_code == 400 and "reason: bird | aircraft | insect" in refused.json()["error"]
    assert site.post(f"/alerts/{alert}/dismiss", content=b"x" * 5000).status_code == 413
    assert site.post("/alerts/nobody/acknowledge").status_code == 404
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        for path, body in ((f"/alerts/{alert}/verdict", {"verdict": None}), (f"/alerts/{alert}/reopen", None)):
            assert site.post(path, json=body, headers=headers).status_code == 403
        assert site.post("/alerts/acknowledge-ended", headers=headers).status_code == 403
    assert site.stored(alert).dismissed_as == "insect"
    own = {"origin": site.console.url("")}
    assert site.post(f"/alerts/{alert}/acknowledge", headers=own).status_code == 200

    answer = site.post(f"/alerts/{alert}/verdict", json={"verdict": "aircraft", "note": " a glider "})
    assert (answer.json()["verdict"], answer.json()["note"]) == ("aircraft", "a glider")
    for wrong in ({"verdict": "plane"}, {"verdict": "bird", "note": "x" * 501}, {}):
        refused = site.post(f"/alerts/{alert}/verdict", json=wrong)
        assert refused.status_code == 400 and "verdict: uav | bird | aircraft" in refused.json()["error"]
    reopened = site.post(f"/alerts/{alert}/reopen").json()
    assert (reopened["verdict"], reopened["note"], reopened["acknowledged_utc_ns"]) == (None, None, None)
    site.end(2, alert)
    assert site.post("/alerts/acknowledge-ended").json() == {"alerts": 1}
    events = httpx.get(site.console.url("/api/v1/events?limit=1000")).json()["events"]
    kinds = [each["kind"].removeprefix("alert.") for each in events if each.get("alert") == alert][2:]
    assert kinds == ["acknowledged", "reviewed", "reviewed", "reopened", "track.lost", "ended", "acknowledged"]
