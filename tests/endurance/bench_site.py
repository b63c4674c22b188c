"""How many live cameras this machine holds: real RTSP, the real program, no frame dropped, p99 within the objective.

    python3 scripts/bench_site.py --seconds 30 --json site.json
    python3 scripts/bench_site.py --quick --json site.json

For each kind of camera the number is doubled while it holds, then found by bisection; with the network's share of
pixels as the load allows (`scan`), and with whole frames (`whole`, model.share: 1), one after the other for each
number.  The cameras, which run on the same machine, send test clips in a loop; those of 1280 pixels and more are
visible ones.  `--quick` watches one camera of each kind, for a few seconds.

Beside it, in the same run, what a frame costs on one core, and what a YOLO11n-sized detector at 640x640 costs there, in
ONNX Runtime and OpenVINO, float32 and int8: the network alone, without decoding, boxes and tracking.  The times are
those from which `scripts/simulate_site.py` predicts.  Prints tables.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from endurance.bench_live import watched
from endurance.fleet import CLIPS, RtspCameras, Running, encoded, write_site
from endurance.service_times import frames_of, nano_detectors, network_times
from endurance.usage import Usage
from pipeline.bench.results import machine
from pipeline.simulation.service import ServiceTimes
from pipeline.types import Band

KINDS = ("320x256@25", "640x512@25", "1920x1080@25", "3840x2160@12")
MODES: dict[str, str | float] = {"scan": "auto", "whole": 1.0}
MOST = 64
ROUNDS = 15  # of the service times
VISIBLE_WIDTH_PX = 1280

Figures = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of camera: `WxH@FPS`."""

    width_px: int
    height_px: int
    fps: int

    @classmethod
    def parse(cls, text: str) -> "Kind":
        found = re.fullmatch(r"(\d+)x(\d+)@(\d+)", text)
        if not found:
            raise argparse.ArgumentTypeError(f"{text!r}; must be WIDTHxHEIGHT@FPS, e.g. 640x512@25")
        return cls(*(int(number) for number in found.groups()))

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}@{self.fps}"

    @property
    def band(self) -> Band:
        return Band.VISIBLE if self.width_px >= VISIBLE_WIDTH_PX else Band.INFRARED


@dataclass(frozen=True)
class Watch:
    """How long each site is watched, and what must hold."""

    seconds: float
    warm_up_s: float  # connections, and the share of pixels finding its level
    objective_ms: float
    most: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", type=Kind.parse, default=[Kind.parse(kind) for kind in KINDS])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--objective-ms", type=float, default=500.0)
    parser.add_argument("--clip", default="IR_DRONE_015")
    parser.add_argument("--quick", action="store_true", help="one camera of each kind, for five seconds")
    parser.add_argument("--no-nano", action="store_true", help="leave the other detector out: nothing is installed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    watch = Watch(options.seconds, 20.0, options.objective_ms, MOST)
    if options.quick:
        watch = Watch(5.0, 5.0, options.objective_ms, 1)
    result: Figures = {"machine": machine(), "objective_ms": watch.objective_ms, "seconds": watch.seconds}
    result |= {"rows": [], "service": {}, "nano": {}}
    with ExitStack() as stack:
        others = {} if options.no_nano else stack.enter_context(nano_detectors())
        for kind in options.kinds:
            add_kind(result, kind, options.clip, options.modes, watch, others)
            if options.json:
                options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(report(result))
    return 0


def add_kind(
    result: Figures, kind: Kind, name: str, modes: list[str], watch: Watch, others: dict[str, Callable[[], float]]
) -> None:
    """Measure a kind of camera; add its rows and service times to the result."""
    with tempfile.TemporaryDirectory(prefix="site-") as folder:
        size_px = kind.width_px, kind.height_px
        clip = encoded(CLIPS / f"{name}.mp4", Path(folder) / "clip.mp4", kind.fps, size_px=size_px)
        fields, nano_s = network_times(frames_of(clip, kind.band, kind.fps), ROUNDS, others)
        rows: list[Figures] = []
        for mode in modes:
            site = partial(site_figures, clip, kind, MODES[mode], watch)
            found = [{"kind": str(kind), "mode": mode} | figures for figures in bisected(site, watch.most)]
            print(f"{kind} {mode}: {held(found)} cameras", flush=True)
            rows += found
    cpu_ms = rows[0]["cpu_ms_per_frame"]  # of one camera
    times = ServiceTimes(capture_s=(cpu_ms["capture"] / 1e3,), track_s=(cpu_ms["tracking"] / 1e3,), **fields)
    result["rows"] += rows
    result["service"][str(kind)] = times.model_dump()
    result["nano"][str(kind)] = {one: round(1e3 * seconds, 2) for one, seconds in nano_s.items()}


def held(rows: list[Figures]) -> int:
    """Return the largest number of cameras that held."""
    return max((row["cameras"] for row in rows if row["holds"]), default=0)


def bisected(site: Callable[[int], Figures], most: int) -> list[Figures]:
    """Return the figures of each number of cameras that was tried to find the largest that holds."""
    tried: list[Figures] = []

    def does_hold(count: int) -> bool:
        tried.append(site(count))
        print(json.dumps(tried[-1]), file=sys.stderr, flush=True)
        return bool(tried[-1]["holds"])

    holds, fails = 0, 1
    while fails <= most and does_hold(fails):
        holds, fails = fails, 2 * fails
    while min(fails, most + 1) - holds > 1:
        middle = (holds + min(fails, most + 1)) // 2
        holds, fails = (middle, fails) if does_hold(middle) else (holds, middle)
    return tried


def site_figures(clip: Path, kind: Kind, share: str | float, watch: Watch, count: int) -> Figures:
    """Run the program with so many cameras; return what it did with their frames, and what that took."""
    names = [f"cam{number:02}" for number in range(count)]
    with (
        tempfile.TemporaryDirectory(prefix="site-") as name,
        RtspCameras({camera: {"file": str(clip), "fps": kind.fps} for camera in names}) as servers,
    ):
        folder = Path(name)
        cameras = [{"id": camera, "uri": servers.uri(camera), "band": kind.band.value} for camera in names]
        sections = {"model": {"share": share}, "objective": {"capture_to_track_ms": watch.objective_ms}}
        config = write_site(folder / "site", cameras, **sections)
        with Running("run", config) as program:
            for camera in names:
                program.wait_for_metric(f'dasnet_frames_segmented_total{{camera="{camera}"}}', 3, timeout_s=180)
            time.sleep(watch.warm_up_s)
            usage = Usage(program, servers.pid)
            figures = watched(program, folder / "site" / "run", names, watch.seconds)
            used = usage.since_start(figures["captured"], count)
            now = program.metrics()
    waits_s = [value for key, value in now.items() if key.startswith("dasnet_scan_revisit_seconds")]
    return figures | {
        "cameras": count,
        "holds": not figures["dropped"] and figures["capture_to_track_p99_ms"] <= watch.objective_ms,
        "dropped": sum(figures["dropped"].values()),
        "share": round(now["dasnet_network_share{}"], 3),
        "longest_wait_s": round(max(waits_s, default=0.0), 1),
        **used,
    }


def report(result: Figures) -> str:
    """Return the result as Markdown."""
    latencies = ("capture_to_track_p50_ms", "capture_to_track_p99_ms")
    load = ("cpu_percent_per_camera", "memory_mb_per_camera", "watts_per_camera")
    columns = ("kind", "mode", "cameras", "holds", "captured", "dropped", *latencies, "share", "longest_wait_s", *load)
    parts = [f"{result['machine']['processor']}, {result['machine']['cores_usable']} cores"]
    parts.append(table(columns, [[row[column] for column in columns] for row in result["rows"]]))
    costs = []
    for kind, times in result["service"].items():
        for one in ("whole_s", "tile_s", "reduced_s"):
            costs.append([kind, f"DAS-Net, {one.removesuffix('_s')}", round(1e3 * times[one], 2)])
        costs += [[kind, one, ms] for one, ms in result["nano"][kind].items()]
    parts.append(table(("beside", "network", "ms of one core"), costs))
    return "\n\n".join(parts)


def table(columns: tuple[str, ...], rows: list[list[Any]]) -> str:
    """Return rows as a Markdown table."""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join("-" if value is None else str(value) for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
