"""What to expect of a site: latency, drops and revisit times, simulated from what frames cost on a machine.

    python3 scripts/bench_site.py --quick --json site.json                                        # measures the costs
    python3 scripts/simulate_site.py site.json --kinds 640x512@25 --cameras 1 4 16 64 --workers 1 4
    python3 scripts/simulate_site.py site.json --size                                             # cameras a machine

Cameras are shared out evenly to the workers, machines like the measured one, each of which captures, segments and
tracks.  What is printed is of the machine with the most cameras.  `--size` finds by bisection how many cameras one
machine holds: no frame dropped, p99 from capture to track within the objective, every place processed within
`--revisit-s`.  A kind `WxH@FPS` may have another frame rate than the measured one of its size.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.simulation.service import ServiceTimes
from pipeline.simulation.site import Figures, Site, simulate

MOST = 4096


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="JSON of scripts/bench_site.py")
    parser.add_argument("--kinds", nargs="+", metavar="WxH@FPS", help="default: those in the file")
    parser.add_argument("--cameras", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--workers", nargs="+", type=int, default=[1])
    parser.add_argument("--cores", type=float, help="of each machine (default: as measured)")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--share", type=float, help="of pixels to process (default: as the load allows)")
    parser.add_argument("--size", action="store_true", help="find how many cameras one machine holds")
    parser.add_argument("--revisit-s", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    measured = json.loads(options.bench.read_text(encoding="utf-8"))
    cores = options.cores or measured["machine"]["cores_usable"]
    sizes = {kind.partition("@")[0]: times for kind, times in measured["service"].items()}
    rows = []
    for kind in options.kinds or measured["service"]:
        size, _, fps = kind.partition("@")
        if size not in sizes or not fps.isdecimal():
            parser.error(f"--kinds {kind}; must be {' or '.join(sizes)}, @ and a frame rate")
        times = ServiceTimes.model_validate(sizes[size])
        site = Site(0, float(fps), 1, cores, measured["objective_ms"] / 1e3, options.share, options.seconds)
        if options.size:
            found = [largest(site, times, options.revisit_s)]
        else:
            wanted = [(cameras, workers) for workers in options.workers for cameras in options.cameras]
            found = [simulate(replaced(site, *counts), times) for counts in wanted]
        rows += [{"kind": kind} | asdict(figures) for figures in found]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join(str(value) for value in row.values()) for row in rows]
    print("\n".join(f"| {line} |" for line in lines))
    return 0


def replaced(site: Site, cameras: int, workers: int = 1) -> Site:
    return Site(**{**asdict(site), "cameras": cameras, "workers": workers})


def largest(site: Site, times: ServiceTimes, revisit_s: float) -> Figures:
    """Return the figures of the most cameras that one machine holds; of one camera where it holds none."""
    tried: dict[int, Figures] = {}

    def does_hold(count: int) -> bool:
        tried[count] = simulate(replaced(site, count), times)
        return tried[count].holds and tried[count].longest_wait_s <= revisit_s

    holds, fails = 0, 1
    while fails <= MOST and does_hold(fails):
        holds, fails = fails, 2 * fails
    while fails - holds > 1:
        middle = (holds + fails) // 2
        holds, fails = (middle, fails) if does_hold(middle) else (holds, middle)
    return tried[max(holds, 1)]


if __name__ == "__main__":
    sys.exit(main())
