"""How many live cameras this machine holds: real RTSP, the real program, no frame dropped, p99 within the objective.

    python3 scripts/bench_site.py --kinds 320x256@25 640x512@25 --seconds 30 --json site.json

For each kind of camera the number is doubled while it holds, then found by bisection; with the network's share of
pixels as the load allows (`scan`), and with whole frames (`whole`, model.share: 1), one after the other for each
number.  The cameras, which run on the same machine, send test clips in a loop.  Prints a table.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from endurance.bench_live import watched
from endurance.fleet import CLIPS, RtspCameras, Running, encoded, write_site
from pipeline.bench.results import machine

WARM_UP_S = 20.0  # connections, and the share of pixels finding its level
MODES: dict[str, str | float] = {"scan": "auto", "whole": 1.0}
MOST = 64

Figures = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["320x256@25", "640x512@25"], metavar="WxH@FPS")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--objective-ms", type=float, default=500.0)
    parser.add_argument("--clip", default="IR_DRONE_015")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Figures] = []
    for kind in options.kinds:
        width, height, fps = (int(part) for part in re.split("[x@]", kind))
        with tempfile.TemporaryDirectory(prefix="site-") as name:
            clip = encoded(CLIPS / f"{options.clip}.mp4", Path(name) / "clip.mp4", fps, size_px=(width, height))
            for mode in options.modes:
                site = partial(watch, clip, fps, MODES[mode], options.seconds, options.objective_ms)
                found = [{"kind": kind, "mode": mode} | figures for figures in bisected(site)]
                print(f"{kind} {mode}: {max((row['cameras'] for row in found if row['holds']), default=0)} cameras")
                rows += found
    result = {"machine": machine(), "objective_ms": options.objective_ms, "seconds": options.seconds, "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    return 0


def bisected(site: Callable[[int], Figures]) -> list[Figures]:
    """Return the figures of each number of cameras that was tried to find the largest that holds."""
    tried: list[Figures] = []

    def does_hold(count: int) -> bool:
        tried.append(site(count))
        print(json.dumps(tried[-1]), file=sys.stderr, flush=True)
        return bool(tried[-1]["holds"])

    holds, fails = 0, 1
    while fails <= MOST and does_hold(fails):
        holds, fails = fails, 2 * fails
    while fails - holds > 1:
        middle = (holds + fails) // 2
        holds, fails = (middle, fails) if does_hold(middle) else (holds, middle)
    return tried


def watch(clip: Path, fps: int, share: str | float, seconds: float, objective_ms: float, count: int) -> Figures:
    """Run the program with so many cameras; return what it did with their frames."""
    names = [f"cam{number:02}" for number in range(count)]
    with (
        tempfile.TemporaryDirectory(prefix="site-") as name,
        RtspCameras({camera: {"file": str(clip), "fps": fps} for camera in names}) as servers,
    ):
        folder = Path(name)
        cameras = [{"id": camera, "uri": servers.uri(camera)} for camera in names]
        sections = {"model": {"share": share}, "objective": {"capture_to_track_ms": objective_ms}}
        config = write_site(folder / "site", cameras, **sections)
        with Running("run", config) as program:
            for camera in names:
                program.wait_for_metric(f'dasnet_frames_segmented_total{{camera="{camera}"}}', 10, timeout_s=180)
            time.sleep(WARM_UP_S)
            figures = watched(program, folder / "site" / "run", names, seconds)
            now = program.metrics()
    waits_s = [value for key, value in now.items() if key.startswith("dasnet_scan_revisit_seconds")]
    return figures | {
        "cameras": count,
        "holds": not figures["dropped"] and figures["capture_to_track_p99_ms"] <= objective_ms,
        "dropped": sum(figures["dropped"].values()),
        "share": round(now["dasnet_network_share{}"], 3),
        "longest_wait_s": round(max(waits_s, default=0.0), 1),
    }


def table(rows: list[Figures]) -> str:
    """Return the rows as Markdown."""
    latencies = ("capture_to_track_p50_ms", "capture_to_track_p99_ms")
    columns = ("kind", "mode", "cameras", "holds", "captured", "dropped", *latencies, "share", "longest_wait_s")
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(row[column]) for column in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
