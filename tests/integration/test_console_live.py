"""The console of the real program in real Chromium: the demo as an operator sees it, and a network that is slow."""

import time
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect
from support.console_site import browser, faultless_page, until
from support.program import CLIPS, REPOSITORY, Running, free_port

from pipeline.store.reader import StoreReader

__all__ = ["browser"]  # a fixture
pytestmark = pytest.mark.live

PICTURES = REPOSITORY / ".screens"  # of every page, to look at
PAGES = {"wall": "", "latency": "latency", "try": "try", "status": "status"}
TRACKS_S = 15.0
CAMERAS = ("scene", "thermal")


def demo_site(folder: Path, port: int) -> Path:
    """`configs/demo.yaml`, at a place of its own and a rate that a busy machine can follow."""
    content = yaml.safe_load((REPOSITORY / "configs" / "demo.yaml").read_text())
    assert tuple(camera["id"] for camera in content["cameras"]) == CAMERAS
    content["cameras"][0] |= {"rate_fps": 4}
    content["cameras"][1] |= {"rate_fps": 6, "uri": f"demo:clips/{CLIPS}?first=IR_DRONE_015"}
    content |= {"run_dir": str(folder / "run"), "metrics": {"port": 0}, "console": {"port": port}}
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def segmented(program: Running) -> None:
    for camera in CAMERAS:
        program.wait_for_metric(f'dasnet_frames_segmented_total{{camera="{camera}"}}', 1, timeout_s=100)


def marked(page: Page, timeout_s: float) -> None:
    """Pictures of both cameras, with a target in each."""
    for camera in CAMERAS:
        card = page.locator(f'[data-camera="{camera}"]')
        expect(card.locator(".view canvas")).to_have_attribute("data-picture", "true", timeout=1e3 * timeout_s)
        expect(card.locator(".chips")).to_contain_text("#", timeout=1e3 * timeout_s)


def test_the_demo_is_watched_an_alert_acknowledged_and_a_restart_survived(browser: Browser, tmp_path: Path) -> None:
    config = demo_site(tmp_path, free_port())
    with faultless_page(browser) as page:
        with Running("run", config) as program:
            segmented(program)
            console = program.wait_for_line(r"console: (http\S+)")[1]
            page.goto(console)
            marked(page, TRACKS_S)
            alert = page.locator("#active li").first
            key = alert.get_attribute("data-key")
            assert key is not None
            before_ns = time.time_ns()
            page.locator(f'[data-key="{key}"]').get_by_role("button", name="Acknowledge").click()
            expect(page.locator(f'[data-key="{key}"] .severity')).to_contain_text("acknowledged")
            with StoreReader(tmp_path / "run" / "store.sqlite") as reader:
                stored = reader.alert(key)
            assert stored is not None and stored.acknowledged_utc_ns is not None
            assert before_ns <= stored.acknowledged_utc_ns <= time.time_ns()
            acknowledged = 'dasnet_alert_events_total{kind="alert.acknowledged"}'
            program.wait_for_metric(acknowledged, 1)
            photograph(page, console)
            page.goto(console)
            assert program.stop() == 0
        expect(page.locator("#banner")).to_contain_text("Connection to dasnet lost")
        with Running("run", config) as program:
            segmented(program)
            expect(page.locator("#link")).to_have_text("Live", timeout=1e3 * TRACKS_S)
            marked(page, TRACKS_S)


def photograph(page: Page, console: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, path in PAGES.items():
        page.goto(console + path)
        expect(page.locator("#link")).to_have_text("Live")
        page.screenshot(path=PICTURES / f"{name}.png")


@pytest.mark.slow
@pytest.mark.alone
def test_the_latency_page_of_a_running_program_whose_network_is_slow(browser: Browser, tmp_path: Path) -> None:
    """The readable module is many times slower than the engines: the page says so, as /metrics does."""
    config = tmp_path / "site.yaml"
    camera = "{id: north, uri: 'demo:scene?fps=2', scale: 0.5}"
    config.write_text(
        f"cameras: [{camera}]\nrun_dir: {tmp_path / 'run'}\nmodel: {{engine: reference}}\n"
        "metrics: {port: 0}\nconsole: {port: 0}\n"
    )
    inference = 'dasnet_stage_latency_seconds_%s{stage="inference"}'
    with Running("run", config) as program, faultless_page(browser) as page:
        program.wait_for_metric(inference % "count", 8)
        page.goto(program.wait_for_line(r"console: (http\S+)")[1] + "latency")
        row = page.locator('[data-stage="inference"] td')
        until(lambda: float(row.nth(1).inner_text() or 0) >= 8)
        shown_ms = float(row.nth(3).inner_text().removesuffix(" ms"))
        metrics = program.metrics()
        mean_ms = 1e3 * metrics[inference % "sum"] / metrics[inference % "count"]
        assert 0.6 * mean_ms < shown_ms < 1.6 * mean_ms
        others_ms = [
            float(page.locator(f'[data-stage="{stage}"] td').nth(3).inner_text().removesuffix(" ms"))
            for stage in ("decode", "transport", "track")  # the mask stage includes the judge
        ]
        assert shown_ms > 5 * max(others_ms)
