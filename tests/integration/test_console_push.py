"""Web Push from the page to the notification: real console, store, sink, push service and browser.

One part is not here: Google's servers, between which and Chromium a real message travels.  In their place stand a push
service of the tests, which decrypts what it is sent, and Chromium's own way to hand a message to a service worker.
"""

import json
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support import certificates
from support.console_site import CHROMIUM_FLAGS, Process, site_config
from support.events import raised, track
from support.receiver import Receiver

from pipeline.config.models import Config
from pipeline.sinks.configured import configured_sinks
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.push_files import PushFiles
from pipeline.store.store import Store

pytest.importorskip("py_vapid", reason="needs dasnet[push]")
pytest.importorskip("http_ece", reason="needs dasnet[push]")

from support.push_browser import PushBrowser

PASSWORD = "correct horse battery"
# What Google's servers do: they give the browser an endpoint.
STANDING_IN = """
const given = %s;
const subscription = {...given, toJSON: () => given, unsubscribe: async () => localStorage.removeItem("given")};
PushManager.prototype.subscribe = async () => (localStorage.setItem("given", "yes"), subscription);
PushManager.prototype.getSubscription = async () => localStorage.getItem("given") && subscription;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    flags = [*CHROMIUM_FLAGS.split(), "--host-resolver-rules=MAP dasnet.test 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        yield browser
        browser.close()


@dataclass
class Site:
    """A console with a push sink, and a push service."""

    config: Config
    console: Process
    service: Receiver

    @property
    def browsers(self) -> list[str]:
        return [each.endpoint for each in PushFiles(self.config.run_dir).subscriptions()]

    def post(self, path: str, content: object, **headers: str) -> httpx.Response:
        return httpx.post(self.console.url(f"/api/v1/push/{path}"), json=content, headers=headers)


@contextmanager
def served(folder: Path, *sinks: object, **console: object) -> Iterator[Process]:
    config = site_config(folder, "north", "south")
    folder.mkdir()
    settings = config.model_dump(mode="json") | {"sinks": sinks, "console": console}
    config = Config.model_validate(settings)
    with Store(config.store_path):
        pass
    process = Process(config, f"ipc://{folder}/nobody.sock")
    process.config = config
    yield process
    process.stop()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="push") as name:
        folder = Path(name)
        files = certificates.made(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        with Receiver(context) as service:
            service.read = lambda body: body
            sink = {
                "type": "push", "contact": "mailto:duty@example.org", "services": [f"localhost:{service.port}"],
                "ca": str(files.certificate),
            }  # fmt: skip
            with served(folder / "run", sink) as console:
                yield Site(console.config, console, service)


@contextmanager
def opened(browser: Browser, url: str, *scripts: str, granted: bool = True) -> Iterator[Page]:
    context = browser.new_context(permissions=["notifications"] if granted else [])
    page = context.new_page()
    for script in scripts:
        page.add_init_script(script)
    page.goto(url)
    yield page
    context.close()


def test_an_alert_is_shown_by_a_browser_that_wanted_it_until_it_does_not(browser: Browser, site: Site) -> None:
    own = PushBrowser(site.service)
    with opened(browser, site.console.url("/"), STANDING_IN % json.dumps(own.content)) as page:
        push = page.locator("#push")
        expect(push).to_have_text("Push off")
        push.click()
        expect(push).to_have_text("Push on")
        expect(push).to_have_attribute("aria-pressed", "true")
        assert site.browsers == [own.subscription.endpoint]

        outbox = Outbox(site.config.store_path, configured_sinks(site.config))
        confirmed, alert = raised(track(33), time_utc_ns=time.time_ns())
        with Store(site.config.store_path) as store:
            store.append([confirmed, alert])
        assert outbox.stop(20) == {"push": 0}
        (message,) = own.messages
        shown = "navigator.serviceWorker.ready.then((each) => each.getNotifications())"
        deliver(page, site.console.url("/"), json.dumps(message), f"{shown}.then((all) => all.length)")
        told = page.evaluate(f"{shown}.then(([{{title, tag, data, body}}]) => [title, tag, data, body.slice(-17)])")
        assert told == [
            "ALARM: uav opened, north", alert.alert, f"/alert/{alert.alert}", "Not acknowledged.",
        ]  # fmt: skip

        PushFiles(site.config.run_dir).remove(own.subscription.endpoint)  # lost with the run folder
        page.reload()
        expect(push).to_have_text("Push on")
        assert site.browsers == [own.subscription.endpoint], "told again"
        push.click()
        expect(push).to_have_text("Push off")
        assert site.browsers == []


def deliver(page: Page, origin: str, message: str, count: str) -> None:
    """Hand a push message to the console's service worker until it shows one notification.

    Chromium reports nothing where its worker did not start for a message; a second message replaces the notification.
    """
    session = page.context.new_cdp_session(page)
    found: list[str] = []
    session.on(
        "ServiceWorker.workerRegistrationUpdated",
        lambda event: found.extend(each["registrationId"] for each in event["registrations"]),
    )
    session.send("ServiceWorker.enable")
    end_s = time.monotonic() + 40
    while not found and time.monotonic() < end_s:
        page.wait_for_timeout(20)
    while page.evaluate(count) != 1 and time.monotonic() < end_s:
        arguments = {"origin": origin.rstrip("/"), "registrationId": found[-1], "data": message}
        session.send("ServiceWorker.deliverPushMessage", arguments)
        shown_by_s = time.monotonic() + 5
        while page.evaluate(count) != 1 and time.monotonic() < shown_by_s:
            page.wait_for_timeout(20)
    assert page.evaluate(count) == 1


def test_the_button_says_what_is_in_the_way(browser: Browser, site: Site) -> None:
    with opened(browser, site.console.url("/"), granted=False) as page:
        page.locator("#push").click()
        expect(page.locator("#push")).to_have_text("Push refused by the browser")
    with opened(browser, site.console.url("/")) as page:
        page.locator("#push").click()
        expect(page.locator("#push")).to_have_text("Push failed")  # no push service can be reached from here
        assert "Registration failed" in (page.locator("#push").get_attribute("title") or "")
        worker = "navigator.serviceWorker.ready.then(({scope, active}) => [scope, active.scriptURL])"
        assert page.evaluate(worker) == [site.console.url("/"), site.console.url("/static/service_worker.js")]
    assert site.browsers == []


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Process]:
    """A console with a password."""
    file = tmp_path / "console.password"
    file.write_text(PasswordHasher(1, 8, parallelism=1).hash(PASSWORD))
    sink = {"type": "push", "contact": "mailto:duty@example.org"}
    with served(tmp_path / "run", sink, password_file=str(file)) as console:
        yield console


def log_in(page: Page) -> None:
    page.locator("input[type=password]").fill(PASSWORD)
    page.keyboard.press("Enter")


def test_without_https_the_page_says_so(browser: Browser, guarded: Process) -> None:
    with opened(browser, f"http://dasnet.test:{guarded.port}/login") as page:
        log_in(page)
        push = page.locator("#push")
        expect(push).to_have_text("Push needs HTTPS")
        expect(push).to_be_disabled()
        expect(push).to_have_attribute("title", "Browsers allow this over HTTPS or on localhost only: set console.tls")


def test_who_logs_out_is_sent_nothing_more(browser: Browser, guarded: Process, site: Site, tmp_path: Path) -> None:
    given = PushBrowser(site.service).content | {"endpoint": "https://push.example.com/x"}
    files = PushFiles(tmp_path / "run")
    assert httpx.get(guarded.url("/api/v1/push")).status_code == 401
    with opened(browser, guarded.url("/login"), STANDING_IN % json.dumps(given)) as page:
        log_in(page)
        page.locator("#push").click()
        expect(page.locator("#push")).to_have_text("Push on")
        assert len(files.subscriptions()) == 1
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
    assert files.subscriptions() == []


def test_without_a_sink_there_is_no_button(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path / "run") as console, opened(browser, console.url("/")) as page:
        expect(page.locator("#notify")).to_be_visible()
        expect(page.locator("#push")).to_be_hidden()
        assert httpx.get(console.url("/api/v1/push")).json() == {"key": None}
        given = {"endpoint": "https://push.example.com/x", "keys": {"p256dh": "", "auth": ""}}
        assert httpx.post(console.url("/api/v1/push/subscribe"), json=given).status_code == 404


def test_what_is_no_subscription_is_refused(site: Site) -> None:
    good = PushBrowser(site.service).content
    for change, text in (
        ({"endpoint": "https://127.0.0.1/x"}, "endpoint: must be on a public host, or on one of sinks[].services"),
        ({"endpoint": "http://push.example.com/x"}, "endpoint: must be https://HOST/PATH"),
        ({"keys": good["keys"] | {"auth": "AAAA"}}, "keys: auth must have 16 bytes, in base64url"),
        ({"keys": good["keys"] | {"p256dh": "AAAA"}}, "keys: p256dh must be a public key on the curve P-256"),
        ({"keys": None}, "expected JSON with endpoint: a URL, keys: {p256dh, auth}"),
    ):
        answer = site.post("subscribe", good | change)
        assert answer.status_code == 400 and text in answer.json()["error"]
    assert site.post("subscribe", good, origin="https://evil.example").status_code == 403
    assert site.browsers == []


def test_another_password_ends_the_subscriptions(site: Site, tmp_path: Path) -> None:
    browser = PushBrowser(site.service)
    own = browser.subscription
    assert site.post("subscribe", browser.content).status_code == 204
    site.console.stop()
    site.console.start()
    assert site.browsers == [own.endpoint]
    site.console.stop()
    PushFiles(site.config.run_dir).add(own, "digest of another password")
    site.console.start()
    assert site.browsers == []
