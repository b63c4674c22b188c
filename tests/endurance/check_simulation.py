"""The simulated site beside the real program: `python3 -m endurance.check_simulation --cameras 4 8 16`.

What frames cost is measured first, then each number of cameras is run and simulated.  The cores that the cameras and
the rest of the program use are taken from those of the simulation.  Prints a table; exit code 1 where the median
latency or the share of frames that were not dropped differs by more than `--tolerance`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from endurance.bench_site import Kind, Watch, site_figures, table
from endurance.fleet import CLIPS, encoded
from endurance.service_times import frames_of, network_times
from pipeline.simulation.service import ServiceTimes
from pipeline.simulation.site import Site, simulate

OTHERS = ("supervisor", "console", "cameras")  # processes that are not simulated
ROUNDS = 9
COMPARED = ("capture_to_track_p50_ms", "kept")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", type=Kind.parse, default=Kind(320, 256, 2))
    parser.add_argument("--cameras", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--clip", default="IR_DRONE_015")
    parser.add_argument("--tolerance", type=float, default=0.15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kind, rows, worst = options.kind, [], 0.0
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        clip = encoded(
            CLIPS / f"{options.clip}.mp4", Path(name) / "clip.mp4", kind.fps, (kind.width_px, kind.height_px)
        )
        fields, _ = network_times(frames_of(clip, kind.band, kind.fps), ROUNDS, {})
        for count in options.cameras:
            real = site_figures(clip, kind, "auto", Watch(options.seconds, 20.0, 500.0, count), count)
            cpu_s = {role: ms / 1e3 for role, ms in real["cpu_ms_per_frame"].items()}
            times = ServiceTimes(capture_s=(cpu_s["capture"],), track_s=(cpu_s["tracking"],), **fields)
            rate = real["captured"] / real["seconds"]
            cores = len(os.sched_getaffinity(0)) - rate * sum(cpu_s.get(role, 0.0) for role in OTHERS)
            foreseen = simulate(Site(count, kind.fps, cores=cores, seconds=options.seconds), times)
            pairs = {
                "capture_to_track_p50_ms": (real["capture_to_track_p50_ms"], foreseen.capture_to_track_p50_ms),
                "capture_to_track_p99_ms": (real["capture_to_track_p99_ms"], foreseen.capture_to_track_p99_ms),
                "kept": (1 - real["dropped"] / real["captured"], 1 - foreseen.dropped / foreseen.captured),
                "share": (real["share"], foreseen.share),
                "longest_wait_s": (real["longest_wait_s"], foreseen.longest_wait_s),
            }
            worst = max(worst, *(abs(pairs[one][1] / pairs[one][0] - 1) for one in COMPARED))
            rows += [[count, one, *(round(value, 3) for value in pair)] for one, pair in pairs.items()]
    print(table(("cameras", "what", "program", "simulated"), rows))
    print(json.dumps({"worst": round(worst, 3), "rows": rows}))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(worst > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
