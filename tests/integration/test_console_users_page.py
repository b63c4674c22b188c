"""Users of the console as people do it: they log in by name, see what their role may do, and an admin reads the log."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from playwright.sync_api import Browser, Page, expect
from support.accessibility import assert_accessible, assert_fits_phone
from support.console_site import Feed, Process, browser, faultless_page, site_config
from support.events import gone, raised, track

from pipeline.config.console import ConsoleAddress
from pipeline.config.users import User, UserRole
from pipeline.console.users_file import add_user, remove_user
from pipeline.store import reviews
from pipeline.store.actions import Actor
from pipeline.store.store import Store
from pipeline.types import Verdict

__all__ = ["browser"]  # a fixture
PASSWORD = "correct horse battery"
MARKUP = "<img src=x onerror=\"document.body.innerHTML='taken'\">"
ACTIONS = 60


@dataclass
class Site:
    console: Process
    users: Path
    alert: str


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="users") as folder:
        config = site_config(Path(folder) / "run", "north", "south")
        users = Path(folder) / "users.yaml"
        password_hash = PasswordHasher(1, 8, parallelism=1).hash(PASSWORD)
        for name, role, cameras in (
            ("vera", UserRole.VIEWER, None),
            ("otto", UserRole.OPERATOR, frozenset({"north"})),
            ("ada", UserRole.ADMIN, None),
            ("gone", UserRole.VIEWER, None),
        ):
            add_user(users, User(name, role, cameras, password_hash))
        config = config.model_copy(update={"console": ConsoleAddress(users_file=users)})
        config.run_dir.mkdir()
        with Store(config.store_path) as store:
            alerts = []
            for number, camera in enumerate(("north", "south")):
                subject = track(number, camera=camera, ulid=f"01K{camera}")
                events = raised(subject, camera=camera)
                store.append([*events, *gone(subject, events[0].id, camera=camera)])
                alerts.append(events[0].id)
            for number in range(ACTIONS):
                reviews.pin(config.store_path, alerts[1], number + 1, Actor("ada", "192.0.2.9"))
            reviews.review(config.store_path, alerts[1], Verdict.BIRD, MARKUP, ACTIONS + 1, Actor(MARKUP, MARKUP))
            feed = Feed(f"ipc://{config.run_dir}/live.sock")
            process = Process(config, feed.endpoint)
            feed.start()
            yield Site(process, users, alerts[0])
            feed.stop.set()
            feed.join()
            process.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with faultless_page(browser) as page:
        yield page


def log_in(page: Page, site: Site, user: str) -> None:
    page.goto(site.console.url("/"))
    expect(page).to_have_url(re.compile("/login$"))
    page.keyboard.type(user)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#link")).to_have_text("Live")
    expect(page.locator("#who")).to_have_text(user)


def test_the_log_in_asks_for_a_name_and_says_what_is_wrong(page: Page, site: Site) -> None:
    page.goto(site.console.url("/login"))
    assert_accessible(page)
    page.get_by_label("User").fill("otto")
    page.get_by_label("Password").fill("not it at all")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#problem")).to_have_text("wrong user or password")


def test_a_viewer_sees_everything_and_can_change_nothing(page: Page, site: Site) -> None:
    log_in(page, site, "vera")
    expect(page.locator("#wall [data-camera]")).to_have_count(2)
    expect(page.locator("#active li")).to_have_count(1)
    expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
    expect(page.get_by_role("button", name="Verdict …")).to_have_count(0)
    pages = page.get_by_role("navigation", name="Pages").get_by_role("link")
    assert [link.partition("\n")[0].rstrip("0123456789") for link in pages.all_inner_texts()] == [
        *("Wall", "Map", "History", "Latency", "Status")
    ]
    page.goto(site.console.url(f"/alert/{site.alert}"))
    expect(page.locator("#details-list")).to_contain_text("Severity")
    expect(page.locator("#details-review")).to_be_hidden()


def test_an_operator_of_one_camera_sees_that_one_and_the_history_says_who_acknowledged(page: Page, site: Site) -> None:
    log_in(page, site, "otto")
    expect(page.locator("#wall [data-camera]")).to_have_count(1)
    expect(page.locator("body")).not_to_contain_text("south")
    page.get_by_role("button", name="north", exact=True).click()
    expect(page.get_by_role("button", name="Zoom in")).to_be_visible()
    expect(page.get_by_role("link", name="Zones")).to_have_count(0)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Acknowledge", exact=True).click()
    expect(page.locator("#events")).to_contain_text("north · otto")
    page.goto(site.console.url(f"/alert/{site.alert}"))
    expect(page.locator("#events")).to_contain_text("by otto")


def test_an_admin_reads_the_audit_log(page: Page, site: Site) -> None:
    log_in(page, site, "ada")
    page.get_by_role("button", name="north", exact=True).click()
    expect(page.get_by_role("link", name="Zones")).to_be_visible()
    page.get_by_role("link", name="Audit").click()
    rows = page.locator("#found tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("Logged in")
    expect(page.locator("#found")).to_contain_text("Bird: " + MARKUP)
    assert page.locator("main img").count() == 0, "text is text"
    page.get_by_role("button", name="Older").click()
    expect(page.locator("#range")).to_contain_text("51 to")
    page.get_by_label("User").fill("nobody")
    page.keyboard.press("Enter")
    page.get_by_label("User").blur()
    expect(page.locator("#nothing")).to_have_text("No such actions.")
    page.get_by_role("button", name="Clear").click()
    expect(rows).to_have_count(50)
    assert_accessible(page)
    assert_fits_phone(page)


def test_a_user_who_is_removed_is_led_to_the_log_in(page: Page, site: Site) -> None:
    log_in(page, site, "gone")
    remove_user(site.users, "gone")
    expect(page).to_have_url(re.compile("/login$"), timeout=15_000)
    assert httpx.get(site.console.url("/api/v1/session")).status_code == 401
