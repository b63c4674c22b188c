"""Glass to glass: how old what a browser shows of a camera is, by a clock within the frames.

    PYTHONPATH=tests python3 -m endurance.glass_to_glass --codec h264 --seconds 30

A real RTSP camera, the real program, real Chromium with the camera enlarged.  Each frame of the camera holds its number
as black and white cells; the page's canvas is read at each refresh of the screen.  From the moment at which the camera
sends a frame until it is first on the canvas: a camera's own exposure and encoding are not in it.  The last line is one
JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page, expect, sync_playwright
from support.console_site import CHROMIUM_FLAGS

from endurance.fleet import RtspCameras, Running, percentile, write_site

CAMERA = "clock"
SIZE_PX = (640, 512)
FPS = 25
BITS = 8
FRAMES = 1 << BITS  # of the clip: the number that a frame shows is its own for ten seconds
CELL_PX, LEFT_PX, TOP_PX = 64, 64, 160
ENCODERS = {
    "h264": ("libx264", ".mp4", {"bf": "0", "g": str(FPS), "preset": "veryfast"}),
    "h265": ("libx265", ".mp4", {"preset": "ultrafast", "x265-params": f"bframes=0:keyint={FPS}:log-level=0"}),
    "mjpeg": ("mjpeg", ".mkv", {}),
}
START_S = 60.0
SETTLE_MS = 8000  # until the player is near the newest frame
# Writes [number, UTC in ms] of each frame that is first on the canvas; the second row of cells is the first, inverted.
READER = """(canvas, {size, bits, cell, left, top}) => {
  window.seen = [];
  const read = () => {
    requestAnimationFrame(read);
    const scale = Math.min(canvas.width / size[0], canvas.height / size[1]);
    const x0 = (canvas.width - size[0] * scale) / 2 + left * scale;
    const y0 = (canvas.height - size[1] * scale) / 2 + top * scale;
    const [width, height] = [Math.ceil(bits * cell * scale), Math.ceil(2 * cell * scale)];
    const {data} = canvas.getContext("2d").getImageData(x0, y0, width, height);
    const middle = (number) => Math.floor((number + 0.5) * cell * scale);
    const isBright = (column, row) => data[4 * (middle(row) * width + middle(column))] > 127;
    let number = 0;
    for (let i = 0; i < bits; i++) {
      if (isBright(i, 0) === isBright(i, 1)) return; // something is drawn over it
      number = 2 * number + isBright(i, 0);
    }
    if (window.seen.at(-1)?.[0] !== number) window.seen.push([number, performance.timeOrigin + performance.now()]);
  };
  read();
}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", choices=ENCODERS, default="h264")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="glass-") as folder:
        print(json.dumps(measured(Path(folder), options.codec, options.seconds)))
    return 0


def measured(folder: Path, codec: str, seconds: float) -> dict[str, Any]:
    """Return how old the frames are that the enlarged camera shows, and what the page says that they are."""
    settings: dict[str, str | int] = {"file": str(clock_clip(folder, codec)), "fps": FPS, "times": str(folder / "sent")}
    with RtspCameras({CAMERA: settings}) as servers, sync_playwright() as playwright:
        config = write_site(folder / "site", [{"id": CAMERA, "uri": servers.uri(CAMERA)}])
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_FLAGS.split())
        with Running("run", config) as program:
            program.wait_for_metric(f'dasnet_frames_segmented_total{{camera="{CAMERA}"}}', 1, START_S)
            page = browser.new_page(viewport={"width": 1366, "height": 768})
            page.goto(program.wait_for_line(r"console: (http\S+)")[1] + f"#{CAMERA}")
            shown = watched(page, seconds)
            source = page.locator(".large .source").inner_text()
            page.screenshot(path=folder / "page.png")
        browser.close()
    ages_ms = ages(sent_ms((folder / "sent").read_text()), shown)
    return {
        "codec": codec,
        "source": source,
        "frames_per_s": round(len(ages_ms) / seconds, 1),
        "median_ms": round(statistics.median(ages_ms)),
        "p95_ms": round(percentile(ages_ms, 0.95)),
        "most_ms": round(max(ages_ms)),
    }


def clock_clip(folder: Path, codec: str) -> Path:
    """Encode a clip whose frames show their numbers."""
    name, extension, options = ENCODERS[codec]
    path = folder / f"clock{extension}"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(name, rate=FPS, options=options)
        stream.width, stream.height = SIZE_PX
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(FRAMES):
            out.mux(
                stream.encode(av.VideoFrame.from_ndarray(clock_image(number), "gray").reformat(format=stream.pix_fmt))
            )
        out.mux(stream.encode(None))
    return path


def clock_image(number: int) -> NDArray[np.uint8]:
    """Return a frame that shows a number."""
    image = np.full((SIZE_PX[1], SIZE_PX[0]), 90, np.uint8)
    for bit in range(BITS):
        is_set = bool(number >> (BITS - 1 - bit) & 1)
        for row, is_bright in enumerate((is_set, not is_set)):
            top, left = TOP_PX + row * CELL_PX, LEFT_PX + bit * CELL_PX
            image[top : top + CELL_PX, left : left + CELL_PX] = 230 if is_bright else 20
    return image


def watched(page: Page, seconds: float) -> list[tuple[int, float]]:
    """Return the numbers that the canvas shows, each with when it is first there, UTC in ms."""
    canvas = page.locator(".card.large .view canvas")
    expect(canvas).to_have_attribute("data-picture", "true", timeout=20_000)
    page.wait_for_timeout(SETTLE_MS)
    place = {"size": SIZE_PX, "bits": BITS, "cell": CELL_PX, "left": LEFT_PX, "top": TOP_PX}
    canvas.evaluate(READER, place)
    page.wait_for_timeout(1000 * seconds)
    return [(number, at_ms) for number, at_ms in page.evaluate("window.seen")]


def sent_ms(lines: str) -> dict[int, list[float]]:
    """Return when each frame of the clip was sent, UTC in ms, rising."""
    times: dict[int, list[float]] = {}
    for line in lines.splitlines():
        number, at_ns = line.split()
        times.setdefault(int(number), []).append(int(at_ns) / 1e6)
    return times


def ages(sent: dict[int, list[float]], shown: Sequence[tuple[int, float]]) -> list[float]:
    """Return how long after it was sent last each shown frame was shown, ms."""
    return [at_ms - sent[number][bisect_right(sent[number], at_ms) - 1] for number, at_ms in shown]


if __name__ == "__main__":
    sys.exit(main())
