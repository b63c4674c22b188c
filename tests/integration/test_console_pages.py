"""The console's pages beside the wall, what people say of alerts, and who is let in: real server, store and browser."""

import gc
import json
import re
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from prometheus_client import start_http_server
from support.accessibility import assert_accessible, assert_fits_phone
from support.console_site import SECRET, Feed, Process, browser, faultless_page, picture, until
from support.events import raised, track
from support.png import png
from support.program import CLIPS, DASNET, REPOSITORY

from pipeline.config.file import load
from pipeline.console.history import History, parse, quantile
from pipeline.console.model_card import card_html
from pipeline.console.status import public
from pipeline.console.trial import MAX_MEMORY_BYTES
from pipeline.errors import ConfigError
from pipeline.imaging.frame_size import MAX_FRAME_PX
from pipeline.store.store import Store
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.types import Cause

__all__ = ["browser"]  # a fixture
PASSWORD = "correct horse battery"
CANARY = "canary-7f3a"
SLOW_S = 0.33


@dataclass
class Site:
    """A console with a store, a feed of live frames, and a host whose metrics are made up."""

    console: Process
    store: Store
    feed: Feed
    run_dir: Path
    tracking: TrackingMetrics

    def alert(self, number: int, **changes: object) -> str:
        opened = raised(track(number, **changes), snapshot="shot.jpg", time_utc_ns=time.time_ns())
        self.store.append(opened)
        return opened[0].id

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return httpx.post(self.console.url(f"/api/v1{path}"), timeout=60, **arguments)


def write_config(folder: Path, **console: object) -> Path:
    camera = "{id: %s, uri: 'rtsp://user:${CAM_PASSWORD}@192.0.2.1/%s?token=" + SECRET + "', band: infrared}"
    entries = ", ".join(camera % (name, name) for name in ("north", "south"))
    settings = ", ".join(f"{key}: {value}" for key, value in console.items())
    path = folder / "site.yaml"
    path.write_text(f"cameras: [{entries}]\nrun_dir: {folder / 'run'}\nconsole: {{{settings}}}\n")
    return path


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="pages") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAM_PASSWORD", CANARY)
        config = load(write_config(Path(folder)))
        (config.run_dir / "snapshots").mkdir(parents=True)
        cv2.imwrite(str(config.run_dir / "snapshots" / "shot.jpg"), picture(0))
        tracking = TrackingMetrics(["north"], config.objective.capture_to_track_ms / 1e3)
        server, _ = start_http_server(0, "127.0.0.1", tracking.registry)
        feed = Feed(f"ipc://{config.run_dir}/live.sock")
        feed.start()
        with Store(config.store_path) as store:
            console = Process(config, feed.endpoint, f"http://127.0.0.1:{server.server_port}/metrics")
            site = Site(console, store, feed, config.run_dir, tracking)
            yield site
            site.feed.stop.set()
            site.feed.join()
            console.stop()
        server.shutdown()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with faultless_page(browser) as page:
        yield page


def test_the_latency_page_shows_which_stage_is_slow(page: Page, site: Site) -> None:
    page.goto(site.console.url("/latency"))
    expect(page.locator("#sampled")).to_contain_text("Sampled")  # the state before the delay
    for _ in range(200):
        site.tracking.stage("decode", 4_000_000)
        site.tracking.stage("inference", round(SLOW_S * 1e9))
        site.tracking.capture_to_track.labels("north").observe(SLOW_S + 0.25)
    row = page.locator('[data-stage="inference"] td')
    expect(row.nth(1)).to_have_text("200", timeout=15_000)
    p95_ms = float(row.nth(4).inner_text().removesuffix(" ms"))
    assert abs(p95_ms - SLOW_S * 1e3) < 0.1 * SLOW_S * 1e3
    assert float(page.locator('[data-stage="decode"] td').nth(4).inner_text().removesuffix(" ms")) < 6
    tile = page.locator('[data-name="capture_to_track"]')
    expect(tile).to_contain_text("objective 500 ms")
    expect(tile.locator('[data-mood="bad"]')).to_have_count(3)
    expect(page.locator("#budget svg")).to_have_attribute(
        "aria-label", re.compile(r"^decode [34]\.\d ms, .*inference 3[0-5]\d ms.*; objective 500 ms$")
    )
    assert page.locator("#heat .heat").count() >= 1
    page.get_by_role("button", name="Hour").click()
    expect(row.nth(1)).to_have_text("200")


@pytest.mark.alone  # trials have a low priority
def test_a_picture_and_a_clip_are_tried(page: Page, site: Site, tmp_path: Path) -> None:
    clip, still = tmp_path / "drone.avi", tmp_path / "drone.png"
    video = cv2.VideoCapture(str(CLIPS / "IR_DRONE_015.mp4"))
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 256))
    frames = [video.read()[1] for _ in range(72)]
    for frame in frames:
        writer.write(frame)
    writer.release()
    cv2.imwrite(str(still), frames[60])

    page.goto(site.console.url("/try"))
    page.locator("#file").set_input_files(still)
    result = page.locator("#result")
    expect(result).to_contain_text("Overlay", timeout=40_000)
    expect(result.locator("tbody tr").first).to_contain_text("UAV")
    with page.expect_download() as saved:
        result.get_by_role("link", name="drone_mask.png").click()
    mask = cv2.imread(str(saved.value.path()), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (256, 320) and mask.any()

    page.locator("#file").set_input_files(clip)
    expect(result).to_contain_text("72frames processed", timeout=60_000)
    expect(result.get_by_role("link", name="drone_annotated.mp4")).to_be_visible()
    expect(result.locator("tbody tr")).to_contain_text("UAV #")
    assert not list((site.run_dir / "try").rglob("input.avi")), "what was uploaded is gone"
    assert len(list((site.run_dir / "try").iterdir())) == 2, "and so is the result before"


def test_what_cannot_be_tried_says_why(site: Site) -> None:
    for name, content, error in (
        ("x.exe", b"x", "file extension '.exe'; must be one of .jpg"),
        ("x.png", b"", "empty file"),
        ("../../x.png", b"no picture", "input.png: is broken or no image"),
    ):
        answer = site.post("/trials", params={"name": name}, content=content)
        assert answer.status_code == 400 and error in answer.json()["error"] and "/" not in answer.json()["error"]
    assert not (site.run_dir / "try").exists()
    for path in ("x/y.png", "../store.sqlite", "..%2f..%2fstore.sqlite", "%2e%2e/store.sqlite"):
        assert httpx.get(site.console.url(f"/api/v1/trials/{path}")).status_code == 404


def test_a_small_file_that_holds_a_huge_image_is_refused_before_it_is_decoded(site: Site) -> None:
    bomb = png(10_000, 10_000)
    assert len(bomb) < 200_000
    answer = site.post("/trials", params={"name": "x.png"}, content=bomb)
    told = f"input.png: declares 10000x10000 px; must be at most {MAX_FRAME_PX:,} px"
    assert answer.status_code == 400 and told in answer.json()["error"]
    assert not (site.run_dir / "try").exists()


@pytest.mark.alone
def test_a_trial_has_limits_and_is_the_first_to_be_ended(site: Site) -> None:
    def children() -> list[Path]:
        parent = Path(f"/proc/{site.console.process.pid}")
        found = {int(child) for task in parent.glob("task/*/children") for child in task.read_text().split()}
        return [Path(f"/proc/{child}") for child in found if b"predict" in Path(f"/proc/{child}/cmdline").read_bytes()]

    before_kb = peak_kb(Path(f"/proc/{site.console.process.pid}"))
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(site.post, "/trials", params={"name": "x.png"}, content=png(6000, 6000))
        until(lambda: bool(children()))
        [child] = children()
        limits = (child / "limits").read_text()
        assert re.search(rf"Max data size +{MAX_MEMORY_BYTES} +{MAX_MEMORY_BYTES}", limits)
        assert re.search(r"Max cpu time +\d+", limits) and re.search(r"Max file size +\d+", limits)
        assert (child / "oom_score_adj").read_text() == "1000\n"
        most_kb = 0
        while not answer.done():
            most_kb = max(most_kb, peak_kb(child))
            time.sleep(0.05)  # of another process: only its state can be read
    assert answer.result().status_code == 400
    assert "needs more than 3 GiB of memory" in answer.result().json()["error"]
    assert most_kb < 3.5 * 2**20 and peak_kb(Path(f"/proc/{site.console.process.pid}")) < before_kb + 100_000


def peak_kb(process: Path) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+)", (process / "status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def test_one_is_tried_at_a_time_and_whoever_goes_away_ends_it(site: Site) -> None:
    clip = (CLIPS / "IR_DRONE_019.mp4").read_bytes()

    def status() -> int:
        return site.post("/trials", params={"name": "x.png"}, content=b"").status_code

    with ThreadPoolExecutor(1) as executor:
        gone = executor.submit(
            httpx.post, site.console.url("/api/v1/trials"), params={"name": "x.mp4"}, content=clip, timeout=1.5
        )
        until(lambda: status() == 409)
        assert isinstance(gone.exception(10), httpx.ReadTimeout)
    until(lambda: status() == 400)


def test_the_status_page_hides_secrets(page: Page, site: Site) -> None:
    page.goto(site.console.url("/status"))
    config = page.locator("#config")
    expect(config).to_contain_text("rtsp://192.0.2.1/north")
    expect(page.locator("#checkpoint")).to_contain_text("uav, bird, airplane, helicopter")
    expect(page.locator("#card table").first).to_be_visible()
    expect(page.locator("#card")).to_contain_text("1,658,452 parameters")
    expect(page.locator("#thresholds")).to_contain_text("object probability from which a pixel belongs")
    expect(page.locator("#training")).to_contain_text("22372")
    expect(page.locator("#cameras tr").first).to_contain_text("rtsp://192.0.2.1/north")
    expect(page.locator("#api")).to_contain_text("/api/v1/alerts/{alert}/dismiss")
    for path in ("/", "/status", "/api/v1", "/api/v1/status", "/api/v1/cameras", "/api/v1/latency", "/healthz"):
        text = httpx.get(site.console.url(path)).text
        assert CANARY not in text and SECRET not in text, path
    schemas = httpx.get(site.console.url("/api/v1")).json()["schemas"]
    assert "dismissed_as" in schemas["Alert"]["properties"] and "columns" in schemas["LatencyReport"]["properties"]


def test_the_header_counts_cameras_by_what_they_do(page: Page, site: Site) -> None:
    page.goto(site.console.url("/status"))
    seeing = {"id": "a", "state": "up", "blind_share": 0}
    some = [
        seeing,
        seeing | {"id": "b", "blind_share": 0.2, "cause": "frozen"},
        seeing | {"id": "c", "state": "blind", "cause": "saturated"},
        seeing | {"id": "d", "state": "down", "cause": "offline"},
    ]
    said = "import('/static/top.js').then((top) => top.summaryText(%s))"
    text = "1 processing, 1 partly, 1 down, 1 blind: c (blind · saturated), d, b (blind 20 % · frozen)"
    assert page.evaluate(said % json.dumps(some)) == text
    assert page.evaluate(said % json.dumps([seeing])) == "1 camera, processing"
    meant = "import('/static/camera_state.js').then((state) => %s.map(state.meaning))"
    meanings = ["", "The image does not change", "The image is black or overexposed", "No connection to the camera"]
    assert page.evaluate(meant % json.dumps(some)) == meanings


def test_a_card_s_html_is_text_and_links_lead_out_only() -> None:
    shown = card_html(
        "# Title\n\n## Part\n\n<script>alert(1)</script> [in](docs/x.md) [js](javascript:x) [out](https://a.example)"
    )
    assert "<script" not in shown and "Title" not in shown and "<h4>Part</h4>" in shown
    assert shown.count("<a ") == 1 and 'href="https://a.example"' in shown and ">in<" not in shown


def test_a_configuration_is_shown_without_what_may_be_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_PASSWORD", CANARY)
    monkeypatch.setenv("PLACE", CANARY)
    path = write_config(tmp_path, password_file="x.password")
    path.write_text(path.read_text() + "sinks: [{type: jsonl, path: '${PLACE}/events.jsonl'}]\n")
    config = load(path)
    shown = public(config.model_dump(mode="json"), config.references)
    assert CANARY not in str(shown) and SECRET not in str(shown)
    assert shown["sinks"][0]["path"] == "${PLACE}/events.jsonl"
    assert shown["console"]["password_file"] == str(tmp_path / "x.password")
    hooks = {"url": "https://u:p@h/x?k=1", "token": "t", "headers": {"a": "b"}, "list": [{"api_key": "k"}]}
    hidden = {"token": "•••", "headers": "•••", "list": [{"api_key": "•••"}]}
    assert public(hooks, {}) == {"url": "https://h/***", **hidden}


@pytest.mark.parametrize("path", ["/", "/latency", "/try", "/status"])
def test_every_page_is_accessible_and_fits_a_phone(page: Page, site: Site, path: str) -> None:
    alert = site.alert(30 + len(path))
    page.goto(site.console.url(path))
    expect(page.locator("#link")).to_have_text("Live")
    expect(page.locator("#badge")).to_have_text("1")
    assert_accessible(page)
    assert_fits_phone(page)
    site.post(f"/alerts/{alert}/dismiss", json={"reason": "other"})
    expect(page.locator("#badge")).to_have_text("")


def test_the_wall_goes_on_when_the_pipeline_is_started_again(page: Page, site: Site) -> None:
    page.goto(site.console.url("/"))
    canvas = page.locator('[data-camera="north"] .view canvas')
    expect(canvas).to_have_attribute("data-picture", "true")
    site.feed.stop.set()
    site.feed.join()
    before = canvas.get_attribute("data-seq")
    site.feed = Feed(site.feed.endpoint)
    site.feed.start()
    until(lambda: canvas.get_attribute("data-seq") != before)
    expect(page.locator("#link")).to_have_text("Live")


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """A console off loopback, with a password."""
    file = tmp_path / "console.password"
    made = subprocess.run([*DASNET, "password", file], input=PASSWORD + "\n", text=True, cwd=REPOSITORY, check=True)
    assert made.returncode == 0 and file.stat().st_mode & 0o077 == 0 and PASSWORD not in file.read_text()
    monkeypatch.setenv("CAM_PASSWORD", CANARY)
    config = load(write_config(tmp_path, host="0.0.0.0", port=0, password_file=file))
    config.run_dir.mkdir()
    console = Process(config, f"ipc://{tmp_path}/x.sock")
    yield console
    console.stop()


def test_a_password_lets_in_and_keeps_out(browser: Browser, guarded: Process) -> None:
    console = guarded
    assert httpx.get(console.url("/api/v1/alerts")).status_code == 401
    assert httpx.get(console.url("/")).headers["location"] == "/login"
    assert httpx.get(console.url("/"), headers={"host": "any.example"}).status_code == 303, "any name, with a password"

    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(console.url("/status"))
    assert page.url == console.url("/login")
    assert_accessible(page)
    page.keyboard.type("wrong password")
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_have_text("wrong password")
    page.locator("#password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(console.url("/"))
    (cookie,) = context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"

    console.stop()
    console.start()  # a session outlives it
    expect(page.locator("#link")).to_have_text("Live", timeout=8000)
    page.goto(console.url("/status"))
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(console.url("/login"))
    forged = {"cookie": f"dasnet_session={int(time.time()) + 1000}.{'0' * 64}"}
    assert httpx.get(console.url("/api/v1/alerts"), headers=forged).status_code == 401
    codes = [httpx.post(console.url("/api/v1/login"), json={"password": f"wrong {n}"}).status_code for n in range(6)]
    assert codes == [401] * 5 + [429]
    assert httpx.post(console.url("/api/v1/login"), json={"password": PASSWORD}).status_code == 429
    context.close()


def test_off_loopback_it_does_not_start_without_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_PASSWORD", CANARY)
    with pytest.raises(ConfigError, match=r"console.password_file: is required.*`dasnet password FILE`"):
        load(write_config(tmp_path, host="0.0.0.0"))
    (tmp_path / "text").write_text("hunter2")
    path = write_config(tmp_path, host="127.0.0.1", port=0, password_file=tmp_path / "text")
    started = subprocess.run([*DASNET, "worker", "console", path], capture_output=True, text=True, cwd=REPOSITORY)
    assert started.returncode == 2
    assert "text must be a readable password file, written by `dasnet password" in started.stderr
    short = subprocess.run(
        [*DASNET, "password", tmp_path / "new"], input="x\n", capture_output=True, text=True, cwd=REPOSITORY
    )
    assert short.returncode == 2 and "must have 8 to 200" in short.stderr and not (tmp_path / "new").exists()


def test_history_tells_quantiles_of_the_window_and_survives_a_new_host() -> None:
    """Known distributions, an hour of samples, counters that begin anew, and a gap."""

    def text(fast: int, slow: int, dropped: int) -> str:
        return "\n".join(
            [
                "# TYPE dasnet_capture_to_track_seconds histogram",
                *(
                    f'dasnet_capture_to_track_seconds_bucket{{camera="{camera}",le="{le}"}} {count}'
                    for camera in ("a", "b")
                    for le, count in (("0.1", fast), ("0.2", fast), ("0.4", fast + slow), ("+Inf", fast + slow))
                ),
                f'dasnet_capture_to_track_seconds_sum{{camera="a"}} {fast * 0.05 + slow * 0.3}',
                "# TYPE dasnet_frames_dropped_total counter",
                f'dasnet_frames_dropped_total{{camera="a",cause="overload"}} {dropped}',
                "# TYPE dasnet_build_info gauge",
                'dasnet_build_info{version="1",model="m",engine="e"} 1',
                "",
            ]
        )

    start_s = 1_790_000_040.0
    history = History(objective_s=0.5)
    for step in range(121):
        history.receive(text(90 * step, 10 * step, 2 * step), start_s + 5 * step)
    now_s = start_s + 601
    report = history.report("10m", now_s)
    (track, _alert) = report.end_to_end
    assert track.count == pytest.approx(2 * 100 * 118, abs=600)
    assert (
        track.p50_s == pytest.approx(0.1 * 50 / 90)
        and track.p95_s == pytest.approx(0.3)
        and track.p99_s == pytest.approx(0.38)
    )
    assert report.edges_s == [0.0, 0.1, 0.2, 0.4, None] and all(column is not None for column in report.columns[2:-1])
    assert report.columns[30] == [360, 0, 40, 0]
    assert [(loss.camera, loss.cause) for loss in report.losses] == [("a", "overload")]
    assert history.build == {"version": "1", "model": "m", "engine": "e"}

    history.receive(text(0, 50, 1), now_s + 1800)  # another host at this address, after half an hour
    report = history.report("1h", now_s + 1801)
    assert report.end_to_end[0].count == 2 * (100 * 120 + 50)
    assert report.losses[0].dropped == 241
    assert sum(column is None for column in report.columns) > 40
    assert parse("", 0.0)[0].latency == {}
    assert quantile(0.5, parse(text(0, 0, 0), 0.0)[0].latency["capture_to_track"]) is None
    with pytest.raises(ValueError):
        history.receive("no metrics {", 0.0)
    one, two = (parse(text(n, n, n), float(n))[0] for n in (1, 2))  # a day of them is kept
    assert one.counts.keys is two.counts.keys
    assert one.latency["capture_to_track"].bounds_s is two.latency["capture_to_track"].bounds_s


@pytest.mark.slow
def test_a_day_of_history_of_sixteen_cameras_takes_little_memory() -> None:
    history = History(objective_s=0.5)

    def text(count: int) -> str:
        counters = ("dasnet_frames_dropped_total", "dasnet_frames_failed_total", "dasnet_blind_seconds_total")
        return "".join(
            f'{name}{{camera="camera{number}",cause="{cause.value}"}} {count + number / 7}\n'
            for name in counters
            for number in range(16)
            for cause in Cause
        )

    history.receive(text(0), 0.0)
    tracemalloc.start(6)
    try:
        for minute in range(1, 31):
            history.receive(text(minute), 60.0 * minute)
        gc.collect()
        # Other threads of this process allocate too.
        own = tracemalloc.Filter(True, "*/pipeline/console/history.py", all_frames=True)
        kept = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([own]).traces)
    finally:
        tracemalloc.stop()
    assert 500 < kept / 30 < 8000  # bytes a minute; dictionaries took 30 000
    losses = history.report("1h", 1801.0).losses
    assert len(losses) == 16 * len(Cause) and all(loss.dropped == loss.failed == 30 for loss in losses)
