"""Take the README's screenshots of the console: the demo in a real browser, once both cameras have a UAV.

    python3 scripts/console_pictures.py docs/images

Needs Chromium and playwright, which `make test` installs.
"""

import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
from playwright.sync_api import ViewportSize, sync_playwright

from pipeline.config.file import load

CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"
VIEW: ViewportSize = {"width": 1366, "height": 768}
SHOWN_PX = 900  # wide, in the README
WATCHED_S = 60  # for the latency page to have data
START_S = 60


def main(folder: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "run", str(CONFIG)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        try:
            found: dict[str, str] = {}
            assert program.stdout is not None
            while len(found) < len(("console", "metrics")):
                if match := re.match(r"(console|metrics): (http\S+)", program.stdout.readline()):
                    found[match[1]] = match[2]
            began_s = wait_for_tracks(found["metrics"], len(load(CONFIG).cameras))
            take(found["console"], "", folder / "console.jpg", began_s)
            take(found["console"], "latency", folder / "latency.jpg", began_s + WATCHED_S)
        finally:
            program.send_signal(signal.SIGINT)


def wait_for_tracks(metrics: str, cameras: int) -> float:
    """Return the time at which all cameras have a confirmed track."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        with urllib.request.urlopen(metrics, timeout=5) as answer:
            text = answer.read().decode()
        counts = re.findall(r"^dasnet_tracks_confirmed_total\{.*\} (\S+)", text, re.MULTILINE)
        if sum(float(count) > 0 for count in counts) == cameras:
            return time.monotonic()
        time.sleep(0.5)
    raise SystemExit("not every camera has a track within a minute")


def take(console: str, page_name: str, path: Path, at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))
    taken = path.with_suffix(".png")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEW)
        page.goto(console + page_name)
        page.wait_for_timeout(4000)  # images of both cameras, metrics of the page
        page.screenshot(path=taken)
        browser.close()
    picture = cv2.imread(str(taken))
    assert picture is not None
    taken.unlink()
    height_px = round(SHOWN_PX * VIEW["height"] / VIEW["width"])
    small = cv2.resize(picture, (SHOWN_PX, height_px), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
