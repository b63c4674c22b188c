"""Benchmark of the history: how long a page of alerts takes in a store of 100,000 alerts.

    python3 scripts/bench_history.py --alerts 100000

In: nothing; it writes a store in a temporary folder.  Out: milliseconds of each query, the median of five.
"""

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
from ulid import ULID

from pipeline.store.history_reader import AlertFilter, HistoryReader
from pipeline.store.store import Store
from pipeline.types import Event, EventKind, FrameRef, Severity, Track, TrackState, Verdict

START_NS = 1_790_000_000_000_000_000
PERIOD_NS = 26_000_000_000  # between alerts: 100,000 in 30 days
CAMERAS = ("north", "south", "east", "west", "gate", "roof", "yard", "rare")
WEIGHTS = (20, 20, 20, 20, 10, 5, 5, 0.01)
LABELS = ("uav", "unknown", "bird")
REPEATS = 5
PAGE = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alerts", type=int, default=100_000)
    alerts = parser.parse_args().alerts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sqlite"
        fill(path, alerts)
        print(f"store of {alerts} alerts: {path.stat().st_size / 1e6:.0f} MB")
        with HistoryReader(path) as reader:
            for name, query in queries(reader, START_NS + alerts * PERIOD_NS).items():
                median_s = statistics.median(timed(query) for _ in range(REPEATS))
                print(f"{name:44} {1e3 * median_s:7.1f} ms")


def queries(reader: HistoryReader, end_ns: int) -> dict[str, Callable[[], object]]:
    """Return the queries by name."""
    filters = {
        "no filter": AlertFilter(),
        "unacknowledged": AlertFilter(is_unacknowledged=True),
        "rare camera": AlertFilter(camera="rare"),
        "a user of one camera": AlertFilter(cameras=frozenset({"north"})),
        "a user of the rare camera": AlertFilter(cameras=frozenset({"rare"})),
        "no such label": AlertFilter(label="airplane"),
        "rare camera, label, severity, verdict": AlertFilter(
            camera="rare", label="uav", severity=Severity.ALARM, verdict=Verdict.UAV
        ),
        "an old day": AlertFilter(since_utc_ns=START_NS, before_utc_ns=START_NS + 86_400_000_000_000),
    }
    middle = reader.search(AlertFilter(before_utc_ns=(START_NS + end_ns) // 2), 1)[0]
    first = {
        f"first page, {name}": lambda wanted=wanted: reader.search(wanted, PAGE) for name, wanted in filters.items()
    }
    later = {
        f"middle page, {name}": lambda wanted=wanted: reader.search(wanted, PAGE, middle)
        for name, wanted in filters.items()
    }
    day = (end_ns - 86_400_000_000_000, end_ns, 300_000_000_000)
    return first | later | {"time line of a day": lambda: reader.alert_counts(*day)}


def timed(query: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    query()
    return time.perf_counter() - began_s


def fill(path: Path, alerts: int) -> None:
    """Write a store with alerts of one track each."""
    chance = random.Random(1)
    with Store(path) as store:
        for first in range(0, alerts, 1000):
            store.append(event for number in range(first, min(first + 1000, alerts)) for event in life(number, chance))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alerts SET acknowledged_utc_ns = opened_utc_ns WHERE abs(random()) % 10 > 0")
        connection.execute("UPDATE alerts SET verdict = 'bird' WHERE abs(random()) % 3 = 0")


def life(number: int, chance: random.Random) -> list[Event]:
    """Return an alert that is opened and ends."""
    camera, label = chance.choices(CAMERAS, WEIGHTS)[0], chance.choice(LABELS[:2])
    ref = FrameRef(camera, "s1", number, number / 25, number, START_NS + number * PERIOD_NS)
    track = Track(
        id=number,
        ulid=str(ULID()),
        camera=camera,
        session="s1",
        state=TrackState.CONFIRMED,
        label=label,
        evidence={"uav": 2.5, "bird": -1.0, "airplane": -3.0, "helicopter": -2.0},
        xyxy=(10.0, 20.0, 30.0, 40.0),
        velocity_px_s=(25.0, 0.0),
        score=0.9,
        hits=20,
        first_seen=ref,
        last_seen=ref,
    )
    severity = Severity.ALARM if label == "uav" else Severity.WARNING
    alert = str(ULID())
    opened = Event(
        alert, EventKind.ALERT_OPENED, severity, camera, ref.received_utc_ns, ref.pts_s, number, "s1", track, alert
    )
    return [opened, msgspec.structs.replace(opened, id=str(ULID()), kind=EventKind.ALERT_ENDED)]


if __name__ == "__main__":
    main()
