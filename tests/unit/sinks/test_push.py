"""Web Push against a real push service: what browsers are sent they can read, and nobody else; none delays another."""

import asyncio
import json
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpcore
import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from support import certificates
from support.events import ENDED, ESCALATED, event, raised, track, until
from support.receiver import Receiver

from pipeline.config.sinks import PushSinkConfig
from pipeline.sinks import delivery
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.push_endpoints import check_endpoint
from pipeline.sinks.push_files import MAX_BROWSERS, PushFiles, public_key
from pipeline.sinks.push_network import PushNetwork
from pipeline.store.store import Store
from pipeline.telemetry.metrics import families
from pipeline.telemetry.sinks import SinkMetrics
from pipeline.types import Event

pytest.importorskip("http_ece", reason="needs dasnet[push]")
pytest.importorskip("py_vapid", reason="needs dasnet[push]")

import http_ece
from support.push_browser import PushBrowser, vapid_claims

from pipeline.sinks import push
from pipeline.sinks.push import PushSink

FAST_S = (0.01, 0.05)
soon = partial(until, timeout_s=30.0)


@dataclass
class Site:
    """A site's run folder, its store, and a push service."""

    folder: Path
    store: Store
    service: Receiver
    ca: Path

    @property
    def files(self) -> PushFiles:
        return PushFiles(self.folder)

    def browser(self, name: str) -> PushBrowser:
        browser = PushBrowser(self.service, name)
        assert self.files.add(browser.subscription, "")
        return browser

    def sink(self) -> PushSink:
        settings = {"contact": "mailto:duty@example.org", "services": [f"localhost:{self.service.port}"], "ca": self.ca}
        return PushSink(PushSinkConfig.model_validate({"type": "push"} | settings), self.files)

    def outbox(self, metrics: SinkMetrics | None = None) -> Outbox:
        return Outbox(self.folder / "store.sqlite", [self.sink()], FAST_S, metrics=metrics)

    def answers(self, *, of: PushBrowser, are: int | str) -> None:
        """Answer one browser's messages so, and accept those of the others."""
        kind = self.service._server.RequestHandlerClass  # type: ignore[union-attr]
        original = kind.do_POST

        def do_post(handler: Any) -> None:
            if handler.path == of.path:
                self.service.answers.append(are)
            original(handler)

        kind.do_POST = do_post


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificate:
    return certificates.made(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def site(tmp_path: Path, store: Store, certificate: certificates.Certificate) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with Receiver(context) as service:
        service.read = lambda body: body
        yield Site(tmp_path, store, service, certificate.certificate)


def alert(number: int = 1, **changes: Any) -> list[Event]:
    return raised(track(number), time_utc_ns=time.time_ns(), **changes)


def samples(registry: CollectorRegistry) -> dict[str, float]:
    found = [sample for _, _, samples in families(registry).values() for sample in samples]
    return {sample.name.removeprefix("dasnet_sink_"): sample.value for sample in found}


def test_every_browser_is_sent_an_alert_that_it_alone_can_read(site: Site) -> None:
    duty, phone = site.browser("duty"), site.browser("phone")
    outbox = site.outbox()
    confirmed, opened = alert(33)
    escalated = event(ESCALATED, track(33), alert=opened.alert, time_utc_ns=time.time_ns())
    ended = event(ENDED, track(33), alert=opened.alert, time_utc_ns=time.time_ns())
    site.store.append([confirmed, opened, escalated, ended])
    assert outbox.stop(20) == {"push": 0}
    for browser in (duty, phone):
        assert browser.messages == [
            {
                "title": f"ALARM: uav {verb}, north",
                "time_utc_ns": sent.time_utc_ns,
                "tag": opened.alert,
                "path": f"/alert/{opened.alert}",
                "is_alarm": True,
            }
            for verb, sent in (("opened", opened), ("escalated", escalated))
        ]
    with pytest.raises(http_ece.ECEException):
        duty.decrypted(phone.requests[0])
    for request in site.service.requests:
        assert b"uav" not in request.body
        expected = {"Content-Encoding": "aes128gcm", "TTL": "3600", "Urgency": "high"}
        assert request.headers.items() >= expected.items() and len(request.headers["Topic"]) == 32
        claims = vapid_claims(request, public_key(site.files.key()))
        assert claims["aud"] == f"https://localhost:{site.service.port}" and claims["sub"] == "mailto:duty@example.org"
        assert 0 < claims["exp"] - time.time() < 24 * 3600


@pytest.mark.parametrize("status", [404, 410])
def test_a_browser_that_is_gone_is_removed_and_the_others_stay(site: Site, status: int) -> None:
    gone, stays = site.browser("gone"), site.browser("stays")
    site.answers(of=gone, are=status)
    outbox = site.outbox()
    site.store.append(alert(1))
    outbox.wake()
    soon(lambda: site.files.subscriptions() == [stays.subscription])
    site.store.append(alert(2))
    assert outbox.stop(20) == {"push": 0}
    assert len(gone.requests) == 1 and len(stays.messages) == 2


@pytest.mark.slow
def test_who_asks_to_wait_is_left_alone_for_so_long_and_delays_nobody(site: Site) -> None:
    busy, other = site.browser("busy"), site.browser("other")
    registry = CollectorRegistry()
    outbox = site.outbox(SinkMetrics(registry))
    site.service.extra_headers["Retry-After"] = "4"
    site.answers(of=busy, are=429)
    started_s = time.monotonic()
    site.store.append(alert(1))
    outbox.wake()
    soon(lambda: len(busy.requests) == 1)
    site.store.append(alert(2))
    outbox.wake()
    soon(lambda: len(other.messages) == 2)
    assert "1 of 2 browsers not reached: localhost" in outbox.failures()["push"]
    assert len(busy.requests) == 1
    soon(lambda: len(busy.requests) == 2)
    assert time.monotonic() - started_s >= 4
    outbox.stop(0.1)
    assert len(other.messages) == 2, "it is not sent again what it has"
    assert samples(registry)["failures_total"] > 0 and outbox.backlog()["push"] > 0


def test_a_service_that_hangs_delays_nobody_and_is_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "TIMEOUT_S", 1.5)
    monkeypatch.setattr(push, "LONGEST_WAIT_S", 0.2)
    stuck, other = site.browser("stuck"), site.browser("other")
    site.answers(of=stuck, are="hang")
    outbox = site.outbox()
    site.store.append(alert(1))
    outbox.wake()
    soon(lambda: len(other.messages) == 1 and len(stuck.requests) >= 2)
    assert "did not answer within 1.5 s" in outbox.failures()["push"]
    site.service.go()
    soon(lambda: "ConnectError" in outbox.failures()["push"] or "connect" in outbox.failures()["push"])
    site.service.come()
    soon(lambda: outbox.backlog() == {"push": 0})
    outbox.stop()
    assert len(other.messages) == len(stuck.messages) == 1


def test_many_that_hang_hold_up_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "TIMEOUT_S", 60.0)
    browsers = [site.browser(f"stuck{number:02}") for number in range(12)]
    site.service.judge = lambda _: "hang"
    outbox = site.outbox()
    site.store.append(alert(1))
    outbox.wake()
    soon(lambda: all(browser.requests for browser in browsers))
    site.service.go()
    outbox.stop(0.1)


def test_what_every_browser_refuses_is_a_dead_letter(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_REFUSALS", 2)
    browser = site.browser("one")
    site.service.judge = lambda _: 403
    outbox = site.outbox()
    events = alert(1)
    site.store.append(events)
    outbox.wake()
    soon(lambda: outbox.backlog() == {"push": 0})
    outbox.stop()
    (letter,) = (site.folder / "dead-letters" / "push.jsonl").read_text().splitlines()
    assert json.loads(letter)["event"]["id"] == events[1].id
    assert json.loads(letter)["reason"] == f"localhost:{site.service.port} answered 403"
    assert site.files.subscriptions() == [browser.subscription], "the site's key or clock may be at fault"


def test_a_browser_that_refuses_what_another_accepts_is_removed(site: Site) -> None:
    odd, other = site.browser("odd"), site.browser("other")
    site.answers(of=odd, are=307)  # a redirect is not followed
    outbox = site.outbox()
    site.store.append(alert(1))
    assert outbox.stop(20) == {"push": 0}
    assert site.files.subscriptions() == [other.subscription]
    assert len(site.service.requests) == 2 and len(other.messages) == 1


def test_a_user_is_told_of_the_own_cameras_only_until_the_user_changes(site: Site) -> None:
    north, south = PushBrowser(site.service, "north"), PushBrowser(site.service, "south")
    for browser, name in ((north, "north"), (south, "south")):
        assert site.files.add(browser.subscription, name, frozenset({name}))
    outbox = site.outbox()
    site.store.append([*(own := alert(1)), *(other := alert(2, camera="south"))])
    assert outbox.stop(20) == {"push": 0}
    assert [message["tag"] for message in north.messages] == [own[0].alert]
    assert [message["tag"] for message in south.messages] == [other[0].alert]
    site.files.remove_of_others({"north"})
    assert site.files.subscriptions() == [north.subscription]


def test_what_is_too_old_is_counted_and_not_sent(site: Site) -> None:
    browser = site.browser("one")
    registry = CollectorRegistry()
    outbox = site.outbox(SinkMetrics(registry))
    old = alert(1, severity="alarm")
    site.store.append([*raised(track(2), time_utc_ns=time.time_ns() - 3601 * 10**9), *old])
    assert outbox.stop(20) == {"push": 0}
    assert [message["tag"] for message in browser.messages] == [old[0].alert]
    assert samples(registry)["expired_total"] == samples(registry)["delivered_total"] == 1


def test_key_and_browsers_outlive_the_program_and_are_the_owner_s_alone(site: Site) -> None:
    key = public_key(site.files.key())
    browser = site.browser("one")
    assert public_key(PushFiles(site.folder).key()) == key
    folder = site.folder / "push"
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in [folder, *folder.iterdir()]} == {
        "push": "0o700", "vapid.pem": "0o600", next(folder.glob("*.json")).name: "0o600",
    }  # fmt: skip
    site.files.remove_of_others({"", "another"})
    assert site.files.subscriptions() == [browser.subscription]
    site.files.remove_of_others({"another"})
    assert site.files.subscriptions() == []
    others = [PushBrowser(site.service, str(number)).subscription for number in range(MAX_BROWSERS + 1)]
    assert [site.files.add(other, "") for other in others] == [True] * MAX_BROWSERS + [False]


def test_a_damaged_key_is_named_and_neither_key_nor_endpoints_are_said(
    site: Site, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(push, "TIMEOUT_S", 1.5)
    monkeypatch.setattr(push, "LONGEST_WAIT_S", 0.01)
    site.browser("one")
    path = site.folder / "push" / "vapid.pem"
    path.write_text("nonsense s3cr3tT0ken")
    outbox = site.outbox()
    site.store.append(alert(1))
    soon(lambda: f"{path}: must be a P-256 key in PEM" in outbox.failures().get("push", ""))
    path.unlink()
    site.service.answers.extend([500, "break", 403, "hang", 410])
    soon(lambda: not site.files.subscriptions())
    outbox.stop()
    texts = "".join(capfd.readouterr()) + caplog.text
    assert all(cause in texts for cause in ("500", "403", "did not answer", "410")) and "s3cr3tT0ken" not in texts


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://push.example.com/x", "https://localhost/x", "https://127.0.0.1/x", "https://8.8.8.8/x",
        "https://[::1]/x", "https://push.example.com:8443/x", "https://user@push.example.com/x", "https://host/x",
        "https://0x7f000001/x", "https://2130706433/x", "https://10.1/x", "https://push.example.com/x#y",
        "https://push.example.com/x y", "https://push.example.com:x/", "https://\xe4.example.com/",
        "file:///etc/passwd", "", "https://push.example.com/" + "x" * 2000,
    ],
)  # fmt: skip
def test_only_public_hosts_are_endpoints(endpoint: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        check_endpoint(endpoint, {"push.lan:8443"})
    assert "/x" not in str(caught.value)


def test_endpoints_of_browsers_and_of_configured_services_are_accepted() -> None:
    for endpoint in (
        "https://fcm.googleapis.com/fcm/send/abc:def",
        "https://updates.push.services.mozilla.com/wpush/v2/gAAA",
        "https://web.push.apple.com/QG",
        "https://push.LAN:8443/x",
    ):
        check_endpoint(endpoint, {"push.lan:8443"})


def test_a_name_that_resolves_to_this_network_is_not_connected_to() -> None:
    async def connect(services: frozenset[str]) -> None:
        await (await PushNetwork(services).connect_tcp("localhost", port)).aclose()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        with pytest.raises(httpcore.ConnectError, match="is not public"):
            asyncio.run(connect(frozenset()))
        with pytest.raises(BlockingIOError):
            server.accept()
        asyncio.run(connect(frozenset({f"localhost:{port}"})))
        server.accept()[0].close()


def test_an_endpoint_that_the_configuration_no_longer_allows_is_removed(site: Site) -> None:
    site.browser("one")
    entry = PushSinkConfig(type="push", contact="mailto:duty@example.org")
    outbox = Outbox(site.folder / "store.sqlite", [PushSink(entry, site.files)], FAST_S)
    site.store.append(alert(1))
    assert outbox.stop(20) == {"push": 0}
    assert site.files.subscriptions() == [] and site.service.requests == []


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("contact", "duty@example.org", "must be mailto:NAME@HOST or https://HOST"),
        ("services", ["https://push.lan"], "must be HOST or HOST:PORT"),
        ("services", ["user@push.lan"], "must be HOST or HOST:PORT"),
        ("services", ["push.lan/x"], "must be HOST or HOST:PORT"),
    ],
)
def test_bad_settings_are_named(key: str, value: object, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        PushSinkConfig.model_validate({"type": "push", "contact": "mailto:duty@example.org"} | {key: value})
