"""Retention: old and excess data is deleted, snapshots first; alerts that are not acknowledged are kept."""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.disks import fill, needs_mount, small_disk
from support.events import CONFIRMED, ENDED, LOST, OPENED, event, gone, kinds, raised, track

from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.config.storage import RecordingConfig
from pipeline.diagnostics.doctor import describe
from pipeline.sinks.outbox import Outbox
from pipeline.store import reviews
from pipeline.store.cleanup import Retention
from pipeline.store.daily_cost import describe_cost
from pipeline.store.reader import StoreReader
from pipeline.store.retention import DAY_NS, GB, Disk, Inventory, Limits, Rows, StoredFile, plan
from pipeline.store.schema import live_bytes, open_readonly
from pipeline.store.store import Store
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.types import Event, EventKind

NOW_NS = time.time_ns()
PLENTY = Disk(1, 500 * GB, 1000 * GB)
OFF = Limits(days=36500, max_bytes=10**15, min_free_bytes=0)


# Plan


def snapshot(age_days: float, size_bytes: int = 100) -> StoredFile:
    return StoredFile(f"{age_days}.jpg", size_bytes, round(NOW_NS - age_days * DAY_NS))


def rows(age_days: float, size_bytes: int = 100) -> Rows:
    return Rows(round(NOW_NS - age_days * DAY_NS), size_bytes)


def inventory(used_bytes: int = 0, disk: Disk = PLENTY, store_disk: Disk | None = None) -> Inventory:
    snapshots = [snapshot(age) for age in (50, 40, 20, 10)]
    return Inventory(
        NOW_NS, used_bytes, snapshots, [], [rows(age) for age in (60, 45, 15, 5)], disk, store_disk or disk
    )


def chosen(limits: Limits, stock: Inventory) -> tuple[list[str], float, int]:
    made = plan(stock, limits)
    return [each.name for each in made.files], (NOW_NS - made.before_ns) / DAY_NS, made.excess_bytes


def test_by_age_all_that_is_older() -> None:
    assert chosen(Limits(30, 10**15, 0), inventory()) == (["50.jpg", "40.jpg"], pytest.approx(30), 0)
    assert chosen(OFF, inventory())[0] == []


def test_by_bytes_the_oldest_snapshots_first_then_rows_then_no_more() -> None:
    def limits(max_bytes: int) -> Limits:
        return Limits(36500, max_bytes, 0)

    assert chosen(limits(900), inventory(1000)) == (["50.jpg"], pytest.approx(36500), 0)
    assert chosen(limits(600), inventory(1000)) == (
        ["50.jpg", "40.jpg", "20.jpg", "10.jpg"], pytest.approx(36500), 0,
    )  # fmt: skip
    assert chosen(limits(450), inventory(1000))[1:] == (pytest.approx(45), 0)
    assert chosen(limits(100), inventory(1000))[1:] == (pytest.approx(5), 100)


def test_by_free_space_of_each_disk() -> None:
    short = Disk(1, 850, 10_000)
    assert chosen(Limits(36500, 10**15, 1000), inventory(disk=short))[0] == ["50.jpg", "40.jpg"]
    other = Disk(2, 850, 10_000)
    deleted, days, excess = chosen(Limits(36500, 10**15, 1000), inventory(store_disk=other))
    assert (deleted, days, excess) == ([], pytest.approx(45), 0), "snapshots on another disk would not help"
    assert chosen(Limits(36500, 10**15, 2000), inventory(disk=short))[2] == 1150 - 800


def test_the_default_leaves_two_gb_or_a_tenth_of_a_smaller_disk() -> None:
    limits = Limits(30, 10**15, None)
    assert (limits.free_bytes(1000 * GB), limits.free_bytes(5 * GB)) == (2 * GB, GB // 2)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1000)), max_size=20),
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1000)), max_size=20),
    st.integers(0, 20_000), st.integers(1, 20_000), st.floats(0.1, 100),
)  # fmt: skip
def test_never_more_than_needed_and_never_less_than_possible(
    images: list[tuple[float, int]], times: list[tuple[float, int]], used: int, most: int, days: float
) -> None:
    snapshots = sorted((snapshot(*each) for each in images), key=lambda each: each.time_ns)
    stock = Inventory(NOW_NS, used, snapshots, [], sorted(rows(*each) for each in times), PLENTY, PLENTY)
    made = plan(stock, Limits(days, most, 0))
    assert list(made.files) == snapshots[: len(made.files)], "the oldest ones"
    deleted_bytes = sum(each.size_bytes for each in made.files)
    deleted_bytes += sum(each.size_bytes for each in stock.rows if each.end_ns <= made.before_ns)
    assert used - deleted_bytes <= most or made.excess_bytes == used - deleted_bytes - most
    if made.excess_bytes:
        assert len(made.files) == len(snapshots) and all(each.end_ns <= made.before_ns for each in stock.rows)


# Deletion


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def site(run_dir: Path, **limits: float) -> Config:
    camera = {"id": "north", "uri": "demo:scene"}
    return Config.model_validate({"cameras": [camera], "run_dir": run_dir, "retention": limits})


def alert(number: int, age_days: float, ended: bool = True) -> list[Event]:
    time_ns = round(NOW_NS - age_days * DAY_NS)
    seen = track(number)
    first, last = (
        seen.first_seen.__class__("north", "s1", seq, 0.0, 0, time_ns) for seq in (0, 1)
    )  # fmt: skip
    seen = track(number, first_seen=first, last_seen=last)
    opened = raised(seen, time_utc_ns=time_ns)
    opened = [msgspec.structs.replace(each, snapshot=f"{opened[0].id}.jpg") for each in opened]
    return [*opened, *(gone(seen, opened[0].id, time_utc_ns=time_ns + 1) if ended else ())]


class Filled:
    """A store with alerts, their snapshots, and which of them are acknowledged."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.path = run_dir / "store.sqlite"
        self.store = Store(self.path)
        self.seen = sqlite3.connect(self.path, isolation_level=None)
        self.metrics = TrackingMetrics(["north"], 0.5)

    def add(self, number: int, age_days: float, ended: bool = True, seen: bool = True, size_kb: int = 100) -> str:
        events = alert(number, age_days, ended)
        self.store.append(events)
        if seen:
            self.seen.execute("UPDATE alerts SET acknowledged_utc_ns = 1 WHERE id = ?", (events[0].id,))
        file = self.run_dir / "snapshots" / f"{events[0].id}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(os.urandom(size_kb << 10))
        os.utime(file, ns=(events[0].time_utc_ns, events[0].time_utc_ns))
        return events[0].id

    def run(self, config: Config, sinks: tuple[str, ...] = ()) -> None:
        retention = Retention(config, self.metrics.store, sinks)
        while not retention.run_once(NOW_NS):
            pass

    def left(self) -> tuple[set[str], set[str], int, int]:
        """Alerts, those with a snapshot, events, tracks."""
        with StoreReader(self.path) as reader:
            alerts = reader.alerts(10**6)
            files = {path.stem for path in (self.run_dir / "snapshots").iterdir()}
            assert {each.id for each in alerts if each.snapshot} >= files & {each.id for each in alerts}
            return {each.id for each in alerts}, files, len(reader.events(10**6)), len(reader.tracks(10**6))

    def close(self) -> None:
        self.seen.close()
        self.store.close()

    @property
    def deleted_bytes(self) -> int:
        return int(self.metrics.store.deleted_bytes._value.get())


@pytest.fixture
def filled(run_dir: Path) -> Iterator[Filled]:
    filled = Filled(run_dir)
    yield filled
    filled.close()


def test_expired_data_is_deleted_except_open_alerts(filled: Filled) -> None:
    old, young = filled.add(1, 40), filled.add(2, 20)
    active, unseen = filled.add(3, 40, ended=False), filled.add(4, 40, seen=False)
    filled.store.append([event(EventKind.CAMERA_UP, time_utc_ns=NOW_NS - 50 * DAY_NS)])
    orphan = filled.run_dir / "snapshots" / "orphan.jpg"
    orphan.write_bytes(b"x")
    os.utime(orphan, ns=(0, 0))
    filled.run(site(filled.run_dir))
    kept = {young, active, unseen}
    assert filled.left() == (kept, kept, 10, 3)
    assert old not in kept and filled.deleted_bytes > 100_000
    assert filled.metrics.store.retention_run._value.get() == NOW_NS / 1e9


def test_the_other_images_of_an_alert_are_kept_and_deleted_with_it(filled: Filled) -> None:
    old, unseen = filled.add(1, 40), filled.add(2, 40, seen=False)
    for alert_id in (old, unseen):
        for name in (f"{alert_id}.crop.jpg", f"{alert_id}-77.jpg"):
            (filled.run_dir / "snapshots" / name).write_bytes(b"x")
            os.utime(filled.run_dir / "snapshots" / name, ns=(0, 0))
    filled.run(site(filled.run_dir))
    names = {path.name for path in (filled.run_dir / "snapshots").iterdir()}
    assert names == {f"{unseen}.jpg", f"{unseen}.crop.jpg", f"{unseen}-77.jpg"}


def test_by_bytes_snapshots_go_first_and_then_the_store_s_file_shrinks(filled: Filled) -> None:
    numbers = [filled.add(number, 20 - number / 100, size_kb=10) for number in range(1, 400)]
    with closing(sqlite3.connect(filled.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size_bytes = filled.path.stat().st_size
    filled.run(site(filled.run_dir, max_gb=(size_bytes + 1_500_000) / GB))
    alerts, files, *_ = filled.left()
    assert alerts == set(numbers) and files == set(numbers[-len(files) :]) and 0 < len(files) < 180
    filled.run(site(filled.run_dir, max_gb=size_bytes / 2 / GB))
    alerts, files, events, tracks = filled.left()
    assert files == set() and alerts == set(numbers[-len(alerts) :]) and 110 < len(alerts) < 220
    assert (events, tracks) == (4 * len(alerts), len(alerts))
    with closing(sqlite3.connect(filled.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert filled.path.stat().st_size < 0.65 * size_bytes
    assert filled.metrics.store.excess_bytes._value.get() == 0


def test_limits_that_cannot_be_kept_are_reported(filled: Filled) -> None:
    unseen = filled.add(1, 50, seen=False)
    filled.run(site(filled.run_dir, max_gb=50_000 / GB))
    assert filled.left()[1] == {unseen} and filled.metrics.store.excess_bytes._value.get() > 50_000


def clip(run_dir: Path, alert: str, age_days: float, size_kb: int) -> None:
    (run_dir / "clips").mkdir(exist_ok=True)
    for suffix, content in ((".mp4", os.urandom(size_kb << 10)), (".json", b"{}")):
        path = run_dir / "clips" / (alert + suffix)
        path.write_bytes(content)
        os.utime(path, ns=(NOW_NS - round(age_days * DAY_NS),) * 2)


def clips(run_dir: Path) -> set[str]:
    return {path.name for path in (run_dir / "clips").iterdir()}


def both(*alerts: str) -> set[str]:
    return {alert + suffix for alert in alerts for suffix in (".mp4", ".json")}


def test_clips_expire_with_their_alerts(filled: Filled) -> None:
    old, young, active = filled.add(1, 40), filled.add(2, 20), filled.add(3, 40, ended=False)
    unseen = filled.add(4, 40, seen=False)
    for alert, age_days in ((old, 40), (young, 20), (active, 40), (unseen, 40), ("unknown", 33), ("new", 0.1)):
        clip(filled.run_dir, alert, age_days, 1)
    (filled.run_dir / "clips" / "left.partial.mp4").write_bytes(b"x")
    os.utime(filled.run_dir / "clips" / "left.partial.mp4", ns=(0, 0))
    filled.run(site(filled.run_dir))
    assert clips(filled.run_dir) == both(young, active, unseen, "new")


def test_clips_go_the_oldest_first_with_the_snapshots_and_unseen_ones_before_rows(filled: Filled) -> None:
    closed = [filled.add(number, 20 - number, size_kb=10) for number in range(1, 6)]
    unseen = [filled.add(number, 40 - number, seen=False, size_kb=10) for number in range(6, 10)]
    active = filled.add(10, 35, ended=False)
    for number, alert in enumerate(closed):
        clip(filled.run_dir, alert, 19 - number, 200)
    for number, alert in enumerate((*unseen, active)):
        clip(filled.run_dir, alert, 34 - number, 200)

    def run(clips_to_free: float) -> None:
        """Clips are much larger than snapshots."""
        with closing(open_readonly(filled.path)) as connection:
            used = live_bytes(connection) + sum(path.stat().st_blocks * 512 for path in filled.run_dir.glob("*/*.*"))
        filled.run(site(filled.run_dir, days=365, max_gb=(used - clips_to_free * 208_896) / GB))

    run(1.5)
    assert clips(filled.run_dir) == both(*closed[2:], *unseen, active), "closed ones first"
    assert {closed[0], closed[1]}.isdisjoint(filled.left()[1]), "and their snapshots"
    run(5.5)
    assert clips(filled.run_dir) == both(unseen[-1], active)
    filled.run(site(filled.run_dir, days=365, max_gb=1e-9))
    assert clips(filled.run_dir) == both(active)
    alerts, files, *_ = filled.left()
    assert {*unseen, active} <= alerts and {*unseen, active} == files, "open alerts keep rows and snapshots"
    assert filled.metrics.store.excess_bytes._value.get() > 200_000


def test_undelivered_events_are_kept_until_they_expire(filled: Filled) -> None:
    filled.add(1, 40), filled.add(2, 20), filled.add(3, 10)
    with closing(sqlite3.connect(filled.path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO cursors VALUES ('here', 12), ('away', 2), ('removed', 0)")
    filled.run(site(filled.run_dir, max_gb=1000 / GB), ("here", "away"))
    with StoreReader(filled.path) as reader:
        assert [stored.row for stored in reader.events(10)] == list(range(5, 13)), "3 and 4 were not sent"
    assert filled.metrics.store.lost.labels("expired")._value.get() == 2


@needs_mount
def test_space_on_a_full_disk_is_freed_though_the_store_cannot_be_written(run_dir: Path) -> None:
    with small_disk(run_dir, 8):
        filled = Filled(run_dir)
        numbers = [filled.add(number, 20 - number / 10) for number in range(1, 40)]
        fill(run_dir)
        assert shutil.disk_usage(run_dir).free < 10_000
        filled.run(site(run_dir, min_free_gb=0.002))
        alerts, files, *_ = filled.left()
        assert shutil.disk_usage(run_dir).free >= 1_500_000
        assert alerts == set(numbers) and files == set(numbers[-len(files) :]) and len(files) > 10
        filled.close()


def test_incremental_vacuum_is_enabled_without_loss_of_content(run_dir: Path) -> None:
    with Store(run_dir / "store.sqlite") as store:
        store.append(alert(1, 3))
    with closing(sqlite3.connect(run_dir / "store.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    with Store(run_dir / "store.sqlite") as store, StoreReader(run_dir / "store.sqlite") as reader:
        store.enable_incremental_vacuum()
        assert kinds(stored.event for stored in reader.events(10)) == [CONFIRMED, OPENED, LOST, ENDED]
    with closing(sqlite3.connect(run_dir / "store.sqlite")) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_retention_runs_beside_the_writer_and_sinks_keep_their_cursors(filled: Filled) -> None:
    old = filled.add(1, 40)
    outbox = Outbox(filled.path, [])
    with Retention(site(filled.run_dir), filled.metrics.store, []):
        deadline_s = time.monotonic() + 10
        while (filled.run_dir / "snapshots" / f"{old}.jpg").exists() or filled.left()[0]:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        filled.store.append([event(EventKind.CAMERA_UP)])
    assert outbox.stop() == {}
    with StoreReader(filled.path) as reader:
        assert [stored.row for stored in reader.events(10)] == [5]


# What `dasnet check` prints


def test_daily_disk_space_is_estimated_and_later_measured(filled: Filled) -> None:
    config = site(filled.run_dir, days=10)
    assert describe_cost(config) == (
        "about 505.4 MB per day, 5.1 GB in 10 days "
        "(estimate: 50 alerts per camera, each 100 kB of snapshot and 8 kB of events and tracks, "
        "and 10.0 MB of clip at 4 Mbit/s)"
    )
    unrecorded = config.model_copy(update={"recording": RecordingConfig(enabled=False)})
    assert describe_cost(unrecorded) == (
        "about 5.4 MB per day, 54.0 MB in 10 days "
        "(estimate: 50 alerts per camera, each 100 kB of snapshot and 8 kB of events and tracks)"
    )
    for number in range(1, 31):
        filled.add(number, number / 10, size_kb=200)
        clip(filled.run_dir, f"A{number}", number / 10, 1000)
    text = describe_cost(config)
    assert 12.0 < float(text.split()[1]) < 13.0
    text = describe_cost(unrecorded)
    assert "measured in" in text and "30 alerts in the last 3.0 days" in text
    daily_mb = float(text.split()[1])
    assert 2.0 < daily_mb < 2.4  # ten alerts of 200 KiB a day, with their rows


def test_check_prints_retention_and_daily_disk_space(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(f"cameras: [{{id: a, uri: 'demo:scene'}}]\nrun_dir: {tmp_path / 'run'}\n")
    text = describe(tmp_path / "site.yaml", load(tmp_path / "site.yaml"))
    assert "retention: 30 days, at most 20 GB, at least 2 GB (a tenth of a smaller disk) of the disk free" in text
    assert "storage: about 505.4 MB per day" in text
    assert "recording: a clip of each alert, from 5 s before to 5 s after it, at most 120 s; up to 32 MB" in text
    assert not (tmp_path / "run").exists()


class Deletions:
    """Keeps what retention says, and that the files were still there."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.names: set[str] = set()
        self.before_ns = 0

    def deleting(self, names: Sequence[str]) -> None:
        assert all((self.run_dir / name).exists() for name in names)
        self.names.update(names)

    def deleting_events(self, before_ns: int) -> None:
        self.before_ns = before_ns


def add_evidence(filled: Filled, alert_id: str) -> set[str]:
    """The other files of an alert; return the names of all."""
    names = {f"clips/{alert_id}.mp4", f"clips/{alert_id}.json", f"evidence/{alert_id}.json"}
    for name in names:
        (filled.run_dir / name).parent.mkdir(exist_ok=True)
        (filled.run_dir / name).write_bytes(b"x")
        os.utime(filled.run_dir / name, ns=(0, 0))
    return names | {f"snapshots/{alert_id}.jpg"}


def test_pinned_alerts_are_kept_with_all_their_files(filled: Filled) -> None:
    pinned, old = filled.add(1, 40), filled.add(2, 40)
    kept, deleted = (add_evidence(filled, each) for each in (pinned, old))
    assert reviews.pin(filled.path, pinned, NOW_NS) and not reviews.pin(filled.path, "none", NOW_NS)
    config, deletions = site(filled.run_dir, max_gb=1e-6), Deletions(filled.run_dir)
    retention = Retention(config, filled.metrics.store, [], deletions)
    assert retention.run_once(NOW_NS)
    assert filled.left()[0] == {pinned} and deletions.names == deleted and deletions.before_ns > 0
    assert all((filled.run_dir / name).exists() for name in kept)
    assert not any((filled.run_dir / name).exists() for name in deleted)
    assert reviews.pin(filled.path, pinned, None)
    assert retention.run_once(NOW_NS)
    assert not filled.left()[0] and deletions.names == deleted | kept


def test_configurations_and_the_log_of_evidence_are_kept(filled: Filled) -> None:
    for name in ("evidence/log.jsonl", "evidence/heads.jsonl", "evidence/configurations/0123456789abcdef.json"):
        (filled.run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (filled.run_dir / name).write_bytes(b"x")
        os.utime(filled.run_dir / name, ns=(0, 0))
    filled.run(site(filled.run_dir, max_gb=1e-6))
    assert len([path for path in (filled.run_dir / "evidence").rglob("*") if path.is_file()]) == 3
