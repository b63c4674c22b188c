"""Short soak, chaos and live runs: invariants that hold at any speed; and that their checks detect violations."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import REPOSITORY

from endurance import chaos, chaos_outputs, soak
from endurance.chaos_faults import FAULTS
from pipeline.sinks.jsonl import JsonlSink
from pipeline.store.ledger import Ledger
from pipeline.store.store import Store
from pipeline.types import Cause, Event, EventKind, Severity

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", ""))),
}


def report(*command: str) -> tuple[dict[str, object], str]:
    ended = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=250, cwd=REPOSITORY, env=ENVIRONMENT
    )
    assert ended.returncode in (0, 1), ended.stderr  # 1 too: a slow machine misses the bars on time
    assert "Traceback" not in ended.stderr, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), ended.stdout


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.alone
def test_a_short_soak_loses_no_frame_in_its_accounts_and_opens_nothing_that_it_does_not_close():
    told, output = report("-m", "endurance.soak", "--minutes", "0.2", "--cameras", "3", "--rate", "1", "--seed", "5")
    assert list(told) == [
        "minutes", "cameras", "captured", "accounting_violations", "age_p99_ms", "capture_to_track_p50_ms", "p95",
        "p99", "transport_p99_ms", "fairness", "rss_slope_mb_per_hour", "fd_growth", "cpu_percent_per_camera",
        "stage_p99_ms", "dropped_at_rate", "cpu_contended", "rss_growth_mb", "rss_mb",
    ]  # fmt: skip
    workers = ["supervisor", "segmentation", "tracking", "console", "capture"]
    assert list(told["rss_mb"]) == ["s", *workers] and all(min(told["rss_mb"][worker]) > 10 for worker in workers)
    assert told["accounting_violations"] == 0 and told["fd_growth"] <= 2, output
    assert told["captured"] > 50 and 0 < told["cpu_percent_per_camera"] < 50
    assert 0 < told["capture_to_track_p50_ms"] <= told["p95"] <= told["p99"]
    assert "overload neither" not in output or told["age_p99_ms"] < 500  # a fast machine has no overload here
    assert 1 <= told["fairness"] < 1.5


@pytest.mark.slow
@pytest.mark.live
def test_a_live_camera_s_frames_are_all_accounted_for():
    told, output = report("scripts/bench_live.py", "--fps", "4", "--seconds", "4")
    assert told["captured"] >= 10 and told["engine"], output
    lost = sum(told["dropped"].values())
    assert abs(told["captured"] - told["segmented"] - lost) <= 2  # one may be under way at each end
    assert 0 < told["capture_to_track_p50_ms"] <= told["capture_to_track_p99_ms"]


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.alone
def test_short_chaos_recovers_from_every_fault_without_a_violation():
    kinds = ["kill_segmentation", "garbage", "store_locked", "supervisor_killed"]
    told, output = report("-m", "endurance.chaos", "--faults", "4", "--seed", "4", "--kinds", ",".join(kinds))
    assert told["violations"] == 0, output
    assert (told["seed"], told["faults"]) == (4, 4) and 0 < told["recovery_p95_s"] < chaos.LIMIT_S
    assert {kind: each["faults"] for kind, each in told["by_kind"].items()} == dict.fromkeys(kinds, 1)


def test_an_unknown_fault_is_refused_with_those_there_are():
    command = [sys.executable, "-m", "endurance.chaos", "--kinds", "flood"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert refused.returncode == 2 and "'flood'; must be of kill_capture" in refused.stderr


def test_the_seed_chooses_and_every_kind_comes_equally_often():
    drawn = [list(chaos.sequence(list(FAULTS), 3 * len(FAULTS), chaos.random.Random(seed))) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(drawn[0].count(kind) == 3 for kind in FAULTS)


def test_events_lost_or_doubled_and_frames_unaccounted_for_are_seen(tmp_path: Path):
    events = [
        Event(f"0000000000000000000000000{i}", EventKind.CAMERA_UP, Severity.INFO, "cam", i, 0.0, 0, "s")
        for i in range(4)
    ]
    with Store(tmp_path / "store.sqlite") as store:
        store.append(events)
    sink = JsonlSink(tmp_path / "events.jsonl")
    sink.open()
    sink.send(events[:3])
    assert chaos_outputs.events(tmp_path, sync_s=0) == ["events: 4 stored, 3 sent, 1 lost, 0 doubled"]
    sink.send(events[3:])
    assert chaos_outputs.events(tmp_path, sync_s=0) == []
    sink.send(events[3:])
    assert chaos_outputs.events(tmp_path, sync_s=0) == ["events: 4 stored, 5 sent, 0 lost, 1 doubled"]
    sink.close()
    with Ledger(tmp_path / "ledgers" / "cam.ledger", credits=1) as account:
        account.dropped(Cause.OVERLOAD)
        assert chaos.unbalanced(tmp_path) == []
        account.sent()
        account.sent()  # more than there are credits
        assert chaos.unbalanced(tmp_path) == ["cam: ledger not balanced"]


def test_quantiles_slopes_and_growth_of_a_soak():
    buckets = {f'x_bucket{{camera="{cam}",le="{le}"}}': count for cam in "ab" for le, count in
               {"0.1": 0.0, "0.2": 50.0, "0.4": 50.0, "0.8": 100.0, "+Inf": 100.0}.items()}  # fmt: skip
    assert soak.quantile_s(buckets, 0.25) == pytest.approx(0.15)
    assert soak.quantile_s(buckets, 0.75) == pytest.approx(0.6)
    assert soak.quantile_s({}, 0.5) == 0
    leak = [(float(second), 100 + 0.5 * second + (50 if second == 70 else 0)) for second in range(100)]
    assert soak.slope(leak) == pytest.approx(0.5, abs=0.01)  # one odd look changes nothing
    assert soak.settled_growth_mb([(second, megabytes) for second, megabytes in leak]) == 0  # too short for a warm-up
    late = [(soak.WARM_UP_S + second, megabytes) for second, megabytes in leak]
    assert soak.settled_growth_mb([(0.0, 0.0), *late]) == pytest.approx(45, abs=1)
    assert soak.growth([10, 12, 11, 12, 12, 10]) == 0 and soak.growth([10, 11, 12, 13, 14, 15]) == 4
