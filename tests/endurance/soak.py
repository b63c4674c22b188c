"""Soak test: many cameras for a long time, then an overload of ten times the frame rate.

    make soak MINUTES=10 SEED=1

Real RTSP servers, the real program.  Two thirds of the time every camera sends `--rate` frames/s; the rest ten times as
many, more than can be processed (not with `--steady`).  The resident memory of each worker is printed every minute and
as a table.  The last line is one JSON object; the exit code is 1 where a limit is missed, named in the line before.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from endurance.fleet import RtspCameras, Running, accounts, cameras, descriptors, processes, resident_bytes, write_site
from pipeline.config.model import Objective
from pipeline.store.ledger import Account
from pipeline.telemetry.metrics import STAGES

OVERLOAD = 10  # times the frame rate
LEDGER_READS = 200  # spread over a phase
SAMPLE_S = 2.0  # interval of memory and descriptor samples
PRINT_S = 60.0  # interval of printed memory
MEMORY_ROWS = 60  # of the table in the report
WARM_UP_S = 900.0  # until histories, allocators and caches have reached their size
GROWTH_MB = 10.0  # limit for all workers together after the warm-up, in runs of at least twice its length
START_S = 180.0  # for every camera to be segmented
FAIRNESS = 1.1
ENDED_S = 60.0


@dataclass
class Phase:
    """Measurements of one run of the program."""

    seconds: float = 0.0
    before: dict[str, Account] = field(default_factory=dict)
    after: dict[str, Account] = field(default_factory=dict)
    violations: int = 0  # ledgers that did not balance
    contended_s: float = 0.0  # time in which something on this machine waited for a CPU
    samples: dict[str, float] = field(default_factory=dict)  # growth of each metric
    memory: list[tuple[float, dict[str, float]]] = field(default_factory=list)  # s, resident MB by worker
    opened: dict[str, list[int]] = field(default_factory=dict)  # descriptors of each process, by sample

    def grown(self, name: str) -> dict[str, float]:
        return {labels: value for labels, value in self.samples.items() if labels.startswith(name + "{")}

    def frames(self, name: str) -> dict[str, int]:
        """Return the growth of `captured` or `segmented` by camera."""
        return {cam: getattr(self.after[cam], name) - getattr(self.before[cam], name) for cam in self.after}

    def dropped(self) -> int:
        return sum(sum(self.after[c].dropped.values()) - sum(self.before[c].dropped.values()) for c in self.after)

    def resident_mb(self) -> list[tuple[float, float]]:
        """Return the total of all workers over time."""
        return [(elapsed_s, sum(by_worker.values())) for elapsed_s, by_worker in self.memory]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.5, help="frames/s per camera, before the overload")
    parser.add_argument("--steady", action="store_true", help="no overload")
    options = parser.parse_args()
    seconds = options.minutes * 60
    busy_s = 0.0 if options.steady else seconds / 3
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder, rng = Path(name), random.Random(options.seed)
        clips = cameras(options.cameras, round(OVERLOAD * options.rate), rng, folder / "clips")
        with RtspCameras(clips) as servers:
            calm = watch(folder / "calm", servers, list(clips), options.rate, seconds - busy_s)
            busy = watch(folder / "busy", servers, list(clips), options.rate * OVERLOAD, busy_s) if busy_s else Phase()
    report = summary(calm, busy, options.minutes)
    missed = missed_limits(report, calm, busy)
    for name, opened in (*calm.opened.items(), *busy.opened.items()):
        if growth(opened) > 0:
            print(f"{name} keeps {growth(opened)} more descriptors open")
    print("missed: " + "; ".join(missed) if missed else "all limits met")
    print(json.dumps(report), flush=True)
    return int(bool(missed))


def watch(folder: Path, servers: RtspCameras, names: Sequence[str], rate_fps: float, seconds: float) -> Phase:
    """Run the program until every camera is segmented, then for `seconds`, and return the measurements."""
    config = write_site(folder, [{"id": name, "uri": servers.uri(name), "rate_fps": rate_fps} for name in names])
    phase, run_dir = Phase(seconds), folder / "run"
    with Running("run", config) as program:
        wait_until_segmented(program, run_dir, names)
        start_s, began = time.monotonic(), program.metrics()
        phase.before, contended_s = accounts(run_dir), cpu_contended_s()
        next_sample_s = next_print_s = 0.0
        while (elapsed_s := time.monotonic() - start_s) < seconds:
            phase.violations += sum(not account.balanced for account in accounts(run_dir).values())
            if elapsed_s >= next_sample_s:
                sample(phase, program, elapsed_s)
                next_sample_s = elapsed_s + SAMPLE_S
            if elapsed_s >= next_print_s:
                latest = {kind: values[-1] for kind, values in memory_table(phase.memory[-1:]).items()}
                print(f"resident MB: {latest}, total {phase.resident_mb()[-1][1]:.1f}", flush=True)
                next_print_s = elapsed_s + PRINT_S
            time.sleep(min(SAMPLE_S, seconds / LEDGER_READS))
        sample(phase, program, seconds)
        phase.after, phase.contended_s = accounts(run_dir), cpu_contended_s() - contended_s
        ended = program.metrics()
        phase.samples = {name: value - began.get(name, 0.0) for name, value in ended.items()}
        code = program.stop(timeout_s=ENDED_S)
    phase.violations += sum(not account.balanced or account.in_flight > 0 for account in accounts(run_dir).values())
    if code:
        raise SystemExit(f"dasnet ended with {code}:\n" + "\n".join(program.lines[-20:]))
    return phase


def wait_until_segmented(program: Running, run_dir: Path, names: Sequence[str]) -> None:
    deadline_s = time.monotonic() + START_S
    while {name for name, account in accounts(run_dir).items() if account.segmented} < set(names):
        if program.process.poll() is not None or time.monotonic() > deadline_s:
            raise SystemExit(f"not every camera was segmented within {START_S:g} s:\n" + "\n".join(program.lines[-20:]))
        time.sleep(0.5)


def sample(phase: Phase, program: Running, elapsed_s: float) -> None:
    """Sample memory and descriptors of every process."""
    pids = {name: pids[0] for name, pids in processes(program).items()}
    phase.memory.append((elapsed_s, {name: resident_bytes(pid) / 1e6 for name, pid in pids.items()}))
    for name, pid in pids.items():
        phase.opened.setdefault(name, []).append(descriptors(pid))


def cpu_contended_s() -> float:
    """Return the CPU contention since boot: where it grows, latencies are affected by other programs."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:  # a kernel without pressure stall information
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6


def summary(calm: Phase, busy: Phase, minutes: float) -> dict[str, object]:
    tracked = calm.grown("dasnet_capture_to_track_seconds_bucket")
    track = [1e3 * quantile_s(tracked, share) for share in (0.5, 0.95, 0.99)]
    stages = calm.grown("dasnet_stage_latency_seconds_bucket")
    stage_p99_ms = {
        stage: round(1e3 * quantile_s({n: v for n, v in stages.items() if f'stage="{stage}"' in n}, 0.99), 2)
        for stage in STAGES
    }
    cpu_s = [
        value for name, value in calm.grown("dasnet_process_cpu_seconds_total").items() if 'worker="capture-' in name
    ]
    served = (busy if busy.after else calm).frames("segmented").values()
    overloaded = busy.grown("dasnet_capture_to_track_seconds_bucket")
    return {
        "minutes": minutes,
        "cameras": len(calm.after),
        "captured": sum(calm.frames("captured").values()) + sum(busy.frames("captured").values()),
        "accounting_violations": calm.violations + busy.violations,
        "age_p99_ms": round(1e3 * quantile_s(overloaded, 0.99), 1),
        "capture_to_track_p50_ms": round(track[0], 1),
        "p95": round(track[1], 1),
        "p99": round(track[2], 1),
        "transport_p99_ms": stage_p99_ms["transport"],
        "fairness": round(max(served) / max(1, min(served)), 3),
        "rss_slope_mb_per_hour": round(slope(calm.resident_mb()) * 3600, 1),
        "fd_growth": max(growth(opened) for opened in (*calm.opened.values(), *busy.opened.values())),
        "cpu_percent_per_camera": round(100 * statistics.mean(cpu_s) / calm.seconds, 2),
        "stage_p99_ms": stage_p99_ms,
        "dropped_at_rate": calm.dropped(),
        "cpu_contended": round(calm.contended_s / calm.seconds, 3),
        "rss_growth_mb": round(settled_growth_mb(calm.resident_mb()), 1),
        "rss_mb": memory_table(calm.memory),
    }


def missed_limits(report: Mapping[str, object], calm: Phase, busy: Phase) -> list[str]:
    objective_ms = Objective().capture_to_track_ms
    numbers = {name: value for name, value in report.items() if isinstance(value, int | float)}
    limits = {
        "accounting_violations is not 0": numbers["accounting_violations"] == 0,
        f"fairness is above {FAIRNESS}": numbers["fairness"] <= FAIRNESS,
        f"age_p99_ms is above the objective, {objective_ms:g}": numbers["age_p99_ms"] <= objective_ms,
        "overload neither cost a frame nor lowered the network's share": bool(busy.dropped())
        or busy.samples.get("dasnet_network_share", -1) < 0,
        "fd_growth is not 0": numbers["fd_growth"] <= 0,
        f"rss_growth_mb is above {GROWTH_MB:g}": calm.seconds < 2 * WARM_UP_S or numbers["rss_growth_mb"] <= GROWTH_MB,
    }
    return [text for text, met in limits.items() if not met]


def memory_table(memory: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, list[float]]:
    """Return resident MB over time by worker, captures summed; `s` is the time."""
    rows = memory[:: max(1, -(-len(memory) // MEMORY_ROWS))]
    table: dict[str, list[float]] = {"s": [round(elapsed_s) for elapsed_s, _ in rows]}
    for _, by_worker in rows:
        together: dict[str, float] = {}
        for name, megabytes in by_worker.items():
            kind = name.partition("-")[0]
            together[kind] = together.get(kind, 0.0) + megabytes
        for kind, megabytes in together.items():
            table.setdefault(kind, []).append(round(megabytes, 1))
    return table


def settled_growth_mb(resident_mb: Sequence[tuple[float, float]]) -> float:
    """Return the growth from the first to the last tenth after the warm-up, medians; 0 for short runs."""
    settled = [megabytes for elapsed_s, megabytes in resident_mb if elapsed_s >= WARM_UP_S]
    tenth = len(settled) // 10
    return statistics.median(settled[-tenth:]) - statistics.median(settled[:tenth]) if tenth else 0.0


def quantile_s(buckets: Mapping[str, float], share: float) -> float:
    """Return a quantile, interpolated within its bucket, of cumulative counts by `name{...le="BOUND"...}`."""
    counts: dict[float, float] = {}
    for name, count in buckets.items():
        bound = float(name.partition('le="')[2].partition('"')[0])
        counts[bound] = counts.get(bound, 0.0) + count
    wanted, lower, below = share * max(counts.values(), default=0.0), 0.0, 0.0
    for bound, count in sorted(counts.items()):
        if count >= wanted and count > below:
            return lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return 0.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the Theil-Sen slope (median slope of pairs of points) of the second half, after loading."""
    settled = points[len(points) // 2 :]
    slopes = [(b - a) / (t - s) for i, (s, a) in enumerate(settled) for t, b in settled[i + 1 :] if t > s]
    return statistics.median(slopes) if slopes else 0.0


def growth(opened: Sequence[int]) -> int:
    """Return the growth from the first third's minimum to the last third's; brief peaks do not count."""
    third = max(1, len(opened) // 3)
    return min(opened[-third:]) - min(opened[:third])


if __name__ == "__main__":
    sys.exit(main())
