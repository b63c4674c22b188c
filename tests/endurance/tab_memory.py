"""Whether a tab's memory stays flat: the wall with a playing camera, the video wall, and the latency page.

    PYTHONPATH=tests python3 -m endurance.tab_memory --minutes 60

A console with live video, images, and a new track and alert every two seconds; real Chromium.  Memory is read after
garbage collections.  The last line is one JSON object; the exit code is 1 where a tab grows from the second third of
the time to the last, by more than 5% and 0.5 MB, or by nodes or listeners that are kept.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, expect, sync_playwright
from support.clips import FPS
from support.coded_camera import CAMERA, CodedCamera, watched_camera
from support.console_site import CHROMIUM_FLAGS, Process, site_config
from support.events import gone, raised, track

from pipeline.store.reviews import acknowledge
from pipeline.store.store import Store

TABS = {"wall": f"/#{CAMERA}", "video wall": "/?wall", "latency": "/latency"}
OTHERS = ("south", "east", "west")
TRACK_S = 2
SAMPLES = 30
LIMITS = {"heap_mb": 0.5, "nodes": 60.0, "listeners": 20.0}  # of growth that is none
GROWTH = 0.05


class Alerts(threading.Thread):
    """Writes an alert for each track of the camera into the store; it is acknowledged and ended with the next."""

    def __init__(self, path: Path, camera: CodedCamera) -> None:
        super().__init__()
        self._path, self._camera = path, camera
        self.stop = threading.Event()

    def run(self) -> None:
        before = None
        with Store(self._path) as store:
            while not self.stop.wait(TRACK_S):
                subject = track(self._camera.number // (TRACK_S * FPS))
                opened = raised(subject, time_utc_ns=time.time_ns())
                store.append(opened)
                if before is not None:
                    acknowledge(self._path, before[1], time.time_ns())
                    store.append(gone(*before, time_utc_ns=time.time_ns()))
                before = subject, opened[0].id


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tab-") as folder:
        report = watched(Path(folder), options.minutes * 60)
    grown = {
        f"{tab}: {name}": values
        for tab, kinds in report.items()
        for name, values in kinds.items()
        if grows(name, values)
    }
    print("grows: " + ", ".join(grown) if grown else "flat")
    print(json.dumps({"minutes": options.minutes, "tabs": report}))
    return int(bool(grown))


def watched(folder: Path, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Return what each tab holds over time."""
    config = site_config(folder / "run", CAMERA, *OTHERS)
    config.run_dir.mkdir()
    found: dict[str, dict[str, list[float]]] = {tab: {name: [] for name in LIMITS} for tab in TABS}
    with watched_camera(config.run_dir, OTHERS, TRACK_S * FPS) as camera, sync_playwright() as playwright:
        console = Process(config, camera.endpoint)
        alerts = Alerts(config.store_path, camera)
        alerts.start()
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_FLAGS.split())
        pages = {tab: browser.new_context().new_page() for tab in TABS}  # contexts of their own: none is in the back
        sessions = {tab: opened(page, console.url(TABS[tab])) for tab, page in pages.items()}
        expect(pages["wall"].locator(".large .source")).to_have_text("Live video", timeout=20_000)
        for _ in range(SAMPLES):
            pages["wall"].wait_for_timeout(1000 * seconds / SAMPLES)
            for tab, session in sessions.items():
                for name, value in held(session).items():
                    found[tab][name].append(value)
        expect(pages["wall"].locator(".large .source")).to_have_text("Live video")
        expect(pages["wall"].locator("#ended li").first).to_be_visible()
        browser.close()
        alerts.stop.set()
        alerts.join()
        console.stop()
    return found


def opened(page: Page, url: str) -> CDPSession:
    page.goto(url)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    return session


def held(session: CDPSession) -> dict[str, float]:
    """Return what a tab holds after a garbage collection."""
    session.send("HeapProfiler.collectGarbage")
    metrics: dict[str, Any] = {
        each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]
    }
    return {
        "heap_mb": round(metrics["JSHeapUsedSize"] / 1e6, 2),
        "nodes": metrics["Nodes"],
        "listeners": metrics["JSEventListeners"],
    }


def grows(name: str, values: list[float]) -> bool:
    """Return whether the last third is above the second, beyond what goes up and down."""
    third = len(values) // 3
    before, after = statistics.median(values[third:-third]), statistics.median(values[-third:])
    return after - before > max(LIMITS[name], GROWTH * before)


if __name__ == "__main__":
    sys.exit(main())
