"""The console: a real server, fed over real ZeroMQ, seen with a real browser."""

import asyncio
import base64
import http.client
import json
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import httpx
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect
from support.clips import video
from support.console_site import (
    HEIGHT,
    SECRET,
    WIDTH,
    Feed,
    Process,
    browser,
    faultless_page,
    in_a_thread,
    live_message,
    picture,
    site_config,
    until,
)
from support.events import CONFIRMED, ESCALATED, LOST, event, gone, raised, ref, track

from pipeline.console.cameras import CameraMonitor
from pipeline.console.frames import KEPT_IMAGES, LiveFrames
from pipeline.console.hub import Hub
from pipeline.console.security import is_loopback
from pipeline.console.server import run_console
from pipeline.errors import ConfigError, WireError
from pipeline.store.alert import Alert
from pipeline.store.clips import ClipRecord, partial, record_path, record_without_clip, write_record
from pipeline.store.ledger import Ledger
from pipeline.store.store import Store
from pipeline.transport.listener import listen
from pipeline.transport.live import TOPIC, LiveFrame, decode, encode
from pipeline.types import Cause, Event, EventKind, Severity, Track, TrackState

__all__ = ["browser"]  # a fixture


class Site:
    def __init__(self, run_dir: Path) -> None:
        self.config = site_config(run_dir, "north", "south")
        (run_dir / "snapshots").mkdir(parents=True)
        self.feed = Feed(f"ipc://{run_dir}/live.sock")
        self.ledgers = [Ledger(self.config.ledger_path(camera.id), credits=2) for camera in self.config.cameras]
        self.store = Store(self.config.store_path)
        self.console = Process(self.config, self.feed.endpoint)
        self.feed.start()

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.console.url(path), headers=headers)

    def close(self) -> None:
        self.feed.stop.set()
        self.feed.join()
        self.console.stop()
        self.store.close()
        for ledger in self.ledgers:
            ledger.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="console") as folder:  # short: a socket's path is limited
        site = Site(Path(folder) / "run")
        yield site
        site.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with faultless_page(browser) as page:
        page.goto(site.console.url("/"))
        yield page


def canvas_pixels(page: Page, camera: str) -> NDArray[np.uint8]:
    """BGR."""
    text = page.locator(f'[data-camera="{camera}"] .view canvas').evaluate("c => c.toDataURL()")
    return image(base64.b64decode(text.partition(",")[2]))


def image(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def test_the_page_shows_pictures_with_the_marks_of_exactly_their_frame(page: Page, tmp_path: Path) -> None:
    for camera, label in (("north", "UAV"), ("south", "Unknown")):
        expect(page.locator(f'[data-camera="{camera}"] .view canvas')).to_have_attribute("data-picture", "true")
        expect(page.locator(f'[data-camera="{camera}"] .chips')).to_contain_text(label)
    seen = set()
    for _ in range(8):
        pixels = canvas_pixels(page, "north")
        white = np.argwhere((pixels[100:-60] > 250).all(axis=2))  # of the square; the label is higher or lower
        blue, green, red = (pixels[..., i].astype(int) for i in range(3))
        mark = np.argwhere((red > 200) & (green < 140) & (blue < 140))  # brackets and the label's bar
        centres = [float(np.median([points[:, 1].min(), points[:, 1].max()])) for points in (white, mark)]
        assert abs(centres[0] - centres[1]) < 6, "the mark is where the square is"
        seen.add(round(centres[0]))
        page.wait_for_timeout(120)
    assert len(seen) > 3, "and both move"
    page.screenshot(path=tmp_path / "console.png")


def test_zones_are_outlined_on_their_camera_alone(page: Page, tmp_path: Path) -> None:
    for camera, zones in (("north", "roof fence"), ("south", "runway")):
        canvas = page.locator(f'[data-camera="{camera}"] .view canvas')
        expect(canvas).to_have_attribute("data-picture", "true")
        expect(canvas).to_have_attribute("data-zones", zones)
    shares = {camera: zone_shares(canvas_pixels(page, camera)) for camera in ("north", "south")}
    assert min(shares["north"][:3]) > 0.3 and shares["north"][3] < 0.1, "dashes on the outline, none inside"
    assert max(shares["south"]) < 0.1
    page.screenshot(path=tmp_path / "zones.png")


def zone_shares(pixels: NDArray[np.uint8]) -> list[float]:
    """How much of the roof's right and lower edge, of the fence, and of a line inside has the colour of zones."""
    scale = pixels.shape[1] / WIDTH

    def share(x0: int, y0: int, x1: int, y1: int) -> float:
        points = np.linspace((x0, y0), (x1, y1), 200) * scale
        x, y = points.astype(int).T
        near = np.stack([pixels[y + down, x + right] for down in (-1, 0) for right in (-1, 0)]).astype(int)
        is_blue = (near[..., 0] > 150) & (near[..., 0] - near[..., 2] > 30)
        return float(np.mean(is_blue.any(axis=0)))

    return [share(260, 50, 260, 210), share(70, 220, 250, 220), share(10, 240, 310, 240), share(240, 60, 240, 210)]


def test_an_alert_appears_with_its_snapshot_escalates_and_stays_until_a_person_acts(page: Page, site: Site) -> None:
    expect(page.locator("#no-alerts")).to_have_text("No active alerts.")
    cv2.imwrite(str(site.config.run_dir / "snapshots" / "shot-1.jpg"), picture(0))
    now_ns = time.time_ns()
    unsure = track(41, label="unknown")
    opened = raised(unsure, snapshot="shot-1.jpg", time_utc_ns=now_ns, severity=Severity.WARNING)
    own = {"alert": opened[0].id, "time_utc_ns": now_ns}
    site.store.append(opened)
    alert = page.locator("#active li")
    expect(alert).to_contain_text("Unknown #41", timeout=1500)
    expect(page).to_have_title("(1) alert · dasnet")
    assert page.locator("#active img").evaluate("async image => (await image.decode(), image.naturalWidth)") > 0
    expect(page.locator("#events li").nth(0)).to_contain_text("Alert: Unknown #41")
    expect(page.locator("#events li").nth(1)).to_contain_text("Unknown #41 confirmed")
    site.store.append([event(ESCALATED, track(41, 9), was="unknown", **own)])
    expect(alert).to_contain_text("UAV #41")
    expect(alert.locator(".change")).to_have_text("opened as Unknown, now UAV")
    expect(alert.locator(".severity")).to_have_text("Alarm")
    expect(page.locator("#announce")).to_have_text("Alarm: UAV on north, opened as Unknown, now UAV")
    expect(page.locator("#events li").first).to_contain_text("Escalated from Unknown: UAV #41")

    page.keyboard.press("Tab")  # all by keyboard: past the link that skips, to the alert
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_contain_text(opened[0].id)
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()

    again = track(42, 20, first_seen=ref(15))
    site.store.append([event(LOST, track(41, 9, state=TrackState.LOST), **own), event(CONFIRMED, again, **own)])
    expect(alert).to_contain_text("UAV #41 #42")
    site.store.append(gone(again, **own))
    expect(alert.locator(".severity")).to_have_text("Gone, not seen")
    expect(page.locator("#tracks")).to_contain_text("lost")
    expect(page).to_have_title("(1) alert · dasnet")
    page.get_by_role("button", name="Acknowledge ended (1)").click()
    expect(page.locator("#ended li .severity")).to_have_text("Ended")
    expect(page.locator("#active li")).to_have_count(0)
    expect(page.locator("#acknowledge-ended")).not_to_be_visible()
    expect(page).to_have_title("dasnet")


def test_why_an_alert_has_no_clip_is_told(page: Page, site: Site) -> None:
    confirmed, opened = raised(track(44), time_utc_ns=time.time_ns())
    alert, path = confirmed.id, record_path(site.config.clips_path, confirmed.id)
    site.store.append([confirmed, opened, *gone(track(44), alert, time_utc_ns=time.time_ns())])
    away, lost = "edge host 'mast' does not answer", "no keyframe in memory"
    write_record(partial(path), record_without_clip(alert, "north", "s1", 3.0, away, ended=""))
    for state, reason, shown in [("pending", away, f"not here yet: {away}"), ("failed", lost, f"none: {lost}")]:
        told = site.get(f"/api/v1/alerts/{alert}/clip.json").json()
        assert told == {"state": state, "reason": reason, "clip": None}
        page.locator(f'[data-key="{alert}"] button').first.click()
        expect(page.locator("dialog")).to_contain_text(shown)
        page.keyboard.press("Escape")
        write_record(path, record_without_clip(alert, "north", "s1", 3.0, lost))


def test_an_alert_s_clip_is_linked_and_served_in_ranges(page: Page, site: Site) -> None:
    confirmed, opened = raised(track(43), time_utc_ns=time.time_ns())
    alert = confirmed.id
    url = f"/api/v1/alerts/{alert}/clip"
    site.store.append([confirmed, opened, *gone(track(43), alert, time_utc_ns=time.time_ns())])
    assert site.get(url).status_code == 404 and site.get(f"{url}.json").json() == {
        "state": "none",
        "reason": "",
        "clip": None,
    }
    folder = site.config.clips_path
    folder.mkdir(exist_ok=True)
    content = video(folder / f"{alert}.mp4").read_bytes()
    record = ClipRecord(alert, "north", "s1", 3.0, "h264", (160, 128), 1.0, 1.0, 13.0, reason="the disk was too slow")
    write_record(record_path(folder, alert), record)
    answer = site.get(url, range="bytes=10-19")
    assert (answer.status_code, answer.content) == (206, content[10:20])
    assert answer.headers["content-type"] == "video/mp4" and site.get(url).content == content
    assert site.get(f"{url}.json").json()["clip"]["first_detection_pts_s"] == 3.0
    page.locator(f'[data-key="{alert}"] button').first.click()
    expect(page.locator("dialog")).to_contain_text("12 s, incomplete: the disk was too slow")
    with page.expect_popup() as opening:
        page.locator("dialog").get_by_role("link", name="12 s").click()
    assert opening.value.evaluate("document.querySelector('video') !== null"), "the browser plays it"
    opening.value.close()


def test_a_camera_is_enlarged_and_its_state_is_told(page: Page, site: Site) -> None:
    card = page.locator('[data-camera="south"]')
    site.ledgers[0].connection(up=True)
    site.ledgers[1].connection(up=True)
    expect(card.locator(".state")).to_have_text("Processing")
    expect(page.locator("#summary")).to_have_text("2 cameras, all processing")
    site.ledgers[1].connection(up=False)
    expect(card.locator(".state")).to_have_text("Down")
    expect(page.locator("#summary")).to_have_text("1 processing, 1 down: south")
    names = [page.locator(f'[data-camera="{camera}"] .chips b').first for camera in ("north", "south")]
    colours = {name.evaluate("b => getComputedStyle(b).color") for name in names}
    assert len(colours) == 1, "a camera's state colours no target's name"
    page.get_by_role("button", name="south", exact=True).click()
    width = card.locator(".view").bounding_box()
    assert width and width["width"] > 900
    page.keyboard.press("Escape")
    expect(card.locator(".view")).to_have_css("width", "471px")


def test_the_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator('[data-camera="north"] .view canvas')).to_have_attribute("data-picture", "true")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_page_says_that_the_link_is_lost_and_comes_back_by_itself(page: Page, site: Site) -> None:
    expect(page.locator("#link")).to_have_text("Live")
    canvas = page.locator('[data-camera="north"] .view canvas')
    site.console.stop(signal.SIGKILL)
    expect(page.locator("#banner")).to_contain_text("Connection to dasnet lost")
    expect(page.locator('[data-camera="north"] .state')).to_have_text("Unknown")
    before = canvas.get_attribute("data-seq")
    site.console.start()
    expect(page.locator("#link")).to_have_text("Live", timeout=8000)
    expect(page.locator("#banner")).not_to_be_visible()
    until(lambda: canvas.get_attribute("data-seq") != before)


def test_live_data_that_never_came_is_not_said_to_be_lost(browser: Browser, site: Site) -> None:
    with faultless_page(browser) as page:
        page.route("**/api/v1/live", lambda route: route.fulfill(status=503))
        page.goto(site.console.url("/"))
        expect(page.locator("#banner")).to_have_text("dasnet sends no live data yet. Trying again …")
        page.unroute("**/api/v1/live")
        expect(page.locator("#banner")).to_be_hidden()


def test_a_store_that_cannot_be_read_is_not_shown_as_one_without_alerts(browser: Browser, tmp_path: Path) -> None:
    config = site_config(tmp_path / "run", "north")
    config.run_dir.mkdir()
    config.store_path.write_bytes(b"garbage" * 1000)
    console = Process(config, f"ipc://{tmp_path}/nobody.sock")
    answer = httpx.get(console.url("/api/v1/alerts"))
    assert answer.status_code == 503 and "is damaged or not a store" in answer.json()["error"]
    page = browser.new_page()
    page.goto(console.url("/"))
    expect(page.locator("#banner")).to_contain_text("is damaged or not a store")
    expect(page.locator("#no-alerts")).not_to_have_text("No active alerts.")
    config.store_path.unlink()
    Store(config.store_path).close()
    expect(page.locator("#no-alerts")).to_have_text("No active alerts.")
    expect(page.locator("#banner")).not_to_be_visible()
    expect(page.locator(".note")).to_have_text("Waiting for an image")
    page.close()
    assert console.stop() < 4


def test_the_api_gives_the_same_objects_as_the_store(site: Site) -> None:
    opened = raised(track(51))
    made = [event(EventKind.CAMERA_UP), *opened, *gone(track(51, 3), opened[0].id)]
    site.store.append(made)
    answer = site.get("/api/v1/events?limit=5").json()["events"]
    assert msgspec.convert(answer, list[Event]) == made
    after = site.get(f"/api/v1/events?after={made[0].id}").json()["events"]
    assert msgspec.convert(after, list[Event]) == made[1:]
    alerts = msgspec.convert(site.get("/api/v1/alerts").json()["alerts"], list[Alert])
    assert {alert.id: alert.state for alert in alerts}[made[1].id] == "ended"
    assert site.get("/api/v1/alerts?state=active").json() == {"alerts": []}
    ended = site.get("/api/v1/alerts?state=ended&unacknowledged=true").json()["alerts"]
    assert opened[0].id in [alert["id"] for alert in ended]
    assert made[-1].track in msgspec.convert(site.get("/api/v1/tracks").json()["tracks"], list[Track])


def test_the_api_says_what_is_allowed(site: Site) -> None:
    for path, allowed in {
        "/api/v1/events?limit=0": "1 to 1000",
        "/api/v1/tracks?limit=" + "9" * 5000: "1 to 1000",
        "/api/v1/events?after=nobody": "the id of a stored event",
        "/api/v1/alerts?state=x": "any, active, ended",
        "/api/v1/alerts?unacknowledged=x": "false, true",
    }.items():
        answer = site.get(path)
        assert answer.status_code == 400 and allowed in answer.json()["error"]
    assert site.get("/api/v1/nothing").json() == {"error": "Not Found"}
    assert httpx.post(site.console.url("/api/v1/events")).status_code == 405
    assert site.get("/api/v1/latency?window=1y").json() == {"error": "window '1y'; must be one of 10m, 1h, 24h"}


def test_cameras_and_pictures(site: Site) -> None:
    def newest() -> Any:
        return site.get("/api/v1/cameras").json()["cameras"][0]["frame"]

    frame = until(newest)
    assert (frame["width"], frame["tracks"], frame["session"]) == (WIDTH, 1, "s1") and frame["age_s"] < 2
    answer = site.get(f"/api/v1/cameras/north/frames/{frame['seq']}.jpg?session=s1")
    assert np.abs(image(answer.content).astype(int) - picture(frame["seq"])).mean() < 3
    for path in (f"north/frames/{frame['seq']}.jpg?session=s0", "north/frames/999999.jpg", "nobody/frames/0.jpg"):
        assert site.get(f"/api/v1/cameras/{path}").status_code == 404


def test_no_credentials_are_shown(site: Site) -> None:
    texts = [site.get(path).text for path in ("/", "/api/v1/cameras", "/healthz", "/static/main.js")]
    with httpx.stream("GET", site.console.url("/api/v1/live")) as stream:
        lines = stream.iter_lines()
        texts += [next(lines) for _ in range(40)]
    assert "rtsp://192.0.2.1/north" in texts[1]
    assert not any(SECRET in text for text in texts)


def test_malformed_live_messages_are_counted_and_harm_nothing(site: Site) -> None:
    good = live_message("north", 0)
    bad = [
        [b"live"],
        [b"live", b"", b""],
        [b"live", b"\xc1" * 100, b""],
        [b"live", good[1][:-5], good[2]],
        [b"live", good[1], b"no jpeg"],
        [b"live", b"\x91" * 100_000 + b"\x01", b""],
        live_message("nobody", 0),
    ]
    before = site.get("/healthz").json()["live"]["refused"]
    site.feed.extra += bad
    until(lambda: site.get("/healthz").json()["live"]["refused"] == before + len(bad))
    count = site.get("/healthz").json()["live"]["received"]
    until(lambda: site.get("/healthz").json()["live"]["received"] > count)


def raw_status(site: Site, path: str, host: str | None = None) -> tuple[int, bytes]:
    """Without a client that tidies the path up."""
    connection = http.client.HTTPConnection("127.0.0.1", site.console.port)
    connection.putrequest("GET", path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or "127.0.0.1")
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_path_traversal_is_refused(site: Site) -> None:
    folder = site.config.run_dir / "snapshots"
    (folder / "real.jpg").write_bytes(b"\xff\xd8 picture")
    (folder / "link.jpg").unlink(missing_ok=True)
    (folder / "link.jpg").symlink_to(site.config.store_path)
    (site.config.run_dir / "above.jpg").write_bytes(b"secret")
    assert raw_status(site, "/api/v1/snapshots/real.jpg") == (200, b"\xff\xd8 picture")
    for name in (
        "../above.jpg", "..%2fabove.jpg", "%2e%2e/above.jpg", "%2e%2e%2fabove.jpg", "..%5cabove.jpg", "link.jpg",
        "..jpg", ".jpg", "", "real.jpg%00", "real.jpg/", "store.sqlite", "a" * 300 + ".jpg", "%ff.jpg",
    ):  # fmt: skip
        status, body = raw_status(site, f"/api/v1/snapshots/{name}")
        assert status in (404, 307) and b"secret" not in body, name
    for alert in ("..%2fabove", "%2e%2e", "a" * 300, "a%00", "..%2fstore.sqlite"):
        status, body = raw_status(site, f"/api/v1/alerts/{alert}/clip")
        assert status in (404, 307) and b"secret" not in body, alert
        status, body = raw_status(site, f"/api/v1/alerts/{alert}/clip.json")
        assert status in (404, 307) or body == b'{"state":"none","reason":"","clip":null}', alert
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert raw_status(site, path)[0] == 404, path


def test_a_foreign_host_is_refused(site: Site) -> None:
    for host in ("127.0.0.1", "localhost", "localhost:8470", "[::1]:8470", "LOCALHOST"):
        assert raw_status(site, "/healthz", host)[0] == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "127.0.0.1:x", "10.0.0.1"):
        for path in ("/", "/api/v1/cameras", "/static/main.js"):
            status, body = raw_status(site, path, host)
            assert status == 421 and b"is not served; must be one of 127.0.0.1" in body
    assert not is_loopback("")
    assert raw_status(site, "/healthz", "")[0] in (400, 421)


def test_every_answer_is_guarded(site: Site) -> None:
    for path in ("/", "/static/style.css", "/api/v1/events", "/nothing", "/api/v1/events?limit=x"):
        headers = site.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] in ("no-cache", "no-store")
        assert "server" not in headers


def test_a_browser_that_does_not_read_holds_up_no_other(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.console.port)) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        many = [track(number, camera="north") for number in range(400)]
        large = encode(LiveFrame("north", "s1", 10**6, 0.0, 1, WIDTH, HEIGHT, many))
        site.feed.extra += [large] * 60  # about 15 MB of events: more than any buffer on the way holds
        until(lambda: not site.feed.extra)
        with httpx.stream("GET", site.console.url("/api/v1/live"), timeout=3) as stream:
            lines = stream.iter_lines()
            seqs: list[int] = []
            while len(seqs) < 10:
                line = next(lines)
                if line.startswith('data: {"frame":{"camera":"north"') and '"seq":1000000,' not in line:
                    seqs.append(json.loads(line[6:])["frame"]["seq"])
    assert seqs == sorted(seqs)
    assert seqs[-1] - seqs[0] < 15


def test_a_subscriber_queue_keeps_the_newest_of_each_topic() -> None:
    async def run() -> None:
        hub = Hub()
        hub.publish("site", b"0")
        slow, gone = hub.stream(), hub.stream()
        assert (await anext(slow)).startswith(b"retry:")
        await anext(gone)
        await cast("AsyncGenerator[bytes]", gone).aclose()
        for number in range(1000):
            hub.publish_frame(str(number).encode(), "north")
            hub.publish_frame(str(-number).encode(), "south")
        messages = await anext(slow)
        assert messages == b"event: site\ndata: 0\n\nevent: frame\ndata: 999\n\nevent: frame\ndata: -999\n\n"
        hub.close()
        with pytest.raises(StopAsyncIteration):
            await anext(slow)
        assert hub.full

    in_a_thread(lambda: asyncio.run(run()))


def test_pictures_are_kept_for_a_while_and_for_one_session() -> None:
    frames = LiveFrames(["north"])
    for seq in range(KEPT_IMAGES + 5):
        frames.receive(live_message("north", seq))
    frames.receive(live_message("north", KEPT_IMAGES + 5, picture_too=False))
    assert [seq for seq in range(99) if frames.image("north", seq, "s1")] == list(range(5, KEPT_IMAGES + 5))
    assert frames.image("north", 10, None) and not frames.image("north", 10, "s0")
    frame = msgspec.structs.replace(decode(live_message("north", 0))[0], session="s2")
    frames.receive(encode(frame))
    assert not frames.image("north", 10, None)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"camera": "../x"}, "matching regex"),
        ({"seq": -1}, ">= 0"),
        ({"width": 0}, ">= 1"),
        ({"pts_s": float("nan")}, "must be finite"),
        ({"tracks": [track(1, xyxy=(0.0, 0.0, float("inf"), 1.0))]}, "must be finite"),
        ({"tracks": [track(1, camera="south")]}, "a track of camera 'south'"),
        ({"tracks": [track(1)] * 501}, "length <= 500"),
    ],
)
def test_a_live_frame_that_could_not_be_is_refused(changes: dict[str, Any], error: str) -> None:
    frame = LiveFrame("north", "s1", 3, 0.3, 1, WIDTH, HEIGHT, [track(1)])
    assert decode(encode(frame, b"\xff\xd8")) == (frame, b"\xff\xd8")
    with pytest.raises(WireError, match=error):
        decode(encode(msgspec.structs.replace(frame, **changes)))
    assert encode(frame)[0] == TOPIC


def test_the_state_of_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = site_config(tmp_path, "north")
    cameras, frames, now_s = CameraMonitor(config), LiveFrames(["north"]), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])

    def look(after_s: float = 1.0) -> tuple[str, Cause | None, float]:
        now_s[0] += after_s
        (status,) = cameras.status(frames)
        return status.state, status.cause, status.blind_share

    assert look() == ("starting", None, 0.0)
    with Ledger(config.ledger_path("north"), credits=2) as ledger:
        assert look() == ("down", Cause.OFFLINE, 0.0)
        ledger.connection(up=True)
        assert look() == ("up", None, 0.0)
        ledger.blind(Cause.OVERLOAD, 400_000_000)
        state, cause, share = look()
        assert (state, cause) == ("up", Cause.OVERLOAD) and 0.1 < share < 0.3
        for _ in range(5):
            ledger.blind(Cause.FROZEN, 1_000_000_000)
            seen = look()
        assert seen == ("blind", Cause.FROZEN, 1.0)
        for _ in range(6):
            seen = look()
        assert seen == ("up", None, 0.0)
        ledger.touch(time.time_ns() - 20_000_000_000)
        assert look()[:2] == ("down", Cause.OFFLINE), "the worker is gone"
        ledger.touch(time.time_ns())
        assert look()[0] == "up"


def test_a_given_socket_is_served_and_a_bad_endpoint_is_a_clear_error(tmp_path: Path) -> None:
    urls: list[str] = []
    stop = threading.Event()
    arguments = (site_config(tmp_path, "north"), f"ipc://{tmp_path}/live.sock", listen("127.0.0.1", 0))
    thread = threading.Thread(target=run_console, args=arguments, kwargs={"ready": urls.append, "stop": stop})
    thread.start()
    until(lambda: urls)
    assert httpx.get(f"{urls[0]}healthz").json()["status"] == "ok"
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    with pytest.raises(ConfigError, match=r"live endpoint 'nonsense': .*must be a ZeroMQ endpoint"):
        in_a_thread(lambda: run_console(site_config(tmp_path, "north"), "nonsense", listen("127.0.0.1", 0)))


def test_a_stop_ends_open_streams(site: Site) -> None:
    with httpx.stream("GET", site.console.url("/api/v1/live")) as stream:
        next(stream.iter_lines())
        assert site.console.stop() < 2
    site.console.start()
