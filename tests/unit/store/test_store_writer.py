"""The store's writer: whatever happens to the store, the frame loop never blocks and every lost event is counted."""

import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from support.disks import fill, needs_mount, remount, small_disk
from support.events import CONFIRMED, ENDED, ESCALATED, event, gone, ids, raised, track, until

from pipeline.errors import StoreError
from pipeline.sinks import current_store
from pipeline.sinks import store_writer as writer
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.store_writer import StoreWriter
from pipeline.store import integrity
from pipeline.store.alert import Alert
from pipeline.store.integrity import IntegrityCheck
from pipeline.store.metrics import EVENT_LOSSES
from pipeline.store.reader import StoreReader
from pipeline.store.reviews import acknowledge
from pipeline.store.spill import SpillFile
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.types import Event, Severity

AT_ONCE_S = 0.1
numbers = count(1)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_store, "BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(current_store, "VERIFY_S", 0.2)
    monkeypatch.setattr(integrity, "PERIOD_S", 0.2)
    monkeypatch.setattr(writer, "RETRY_S", 0.1)
    monkeypatch.setattr(writer, "PERIOD_S", 0.1)


@dataclass
class Site:
    path: Path
    run_dir: Path
    writer: StoreWriter
    outbox: Outbox
    metrics: TrackingMetrics

    @property
    def failing(self) -> bool:
        return bool(self.metrics.store.failing._value.get())

    @property
    def waiting(self) -> int:
        return int(self.metrics.store.waiting._value.get())

    @property
    def lost(self) -> dict[str, int]:
        counts = {cause: int(self.metrics.store.lost.labels(cause)._value.get()) for cause in EVENT_LOSSES}
        return {cause: number for cause, number in counts.items() if number}

    @property
    def sent(self) -> list[str]:
        file = self.run_dir / "events.jsonl"
        text = file.read_bytes() if file.exists() else b""
        return [json.loads(line)["id"] for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def stored(self) -> list[Event]:
        with suppress(StoreError), StoreReader(self.path) as reader:
            return [item.event for item in reader.events(10**6)]
        return []

    def alerts(self) -> list[Alert]:
        with suppress(StoreError), StoreReader(self.path) as reader:
            return reader.alerts(1000)
        return []

    def append(self, events: Sequence[Event]) -> list[Event]:
        started_s = time.monotonic()
        self.writer.append(events)
        assert time.monotonic() - started_s < AT_ONCE_S
        return list(events)


@contextmanager
def running(path: Path, run_dir: Path) -> Iterator[Site]:
    metrics = TrackingMetrics(["north"], 0.5)
    outbox = Outbox(path, [JsonlSink(run_dir / "events.jsonl")], (0.01, 0.1), store_is_open=False)
    site = Site(path, run_dir, StoreWriter(path, run_dir / "spill.jsonl", outbox, metrics), outbox, metrics)
    try:
        with IntegrityCheck(path, outbox.report_damage):
            yield site
    finally:
        site.writer.stop(5)
        outbox.stop(2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "disk" / "store.sqlite"


@pytest.fixture
def site(path: Path, tmp_path: Path) -> Iterator[Site]:
    with running(path, tmp_path / "run") as site:
        yield site


def some(number: int = 5) -> list[Event]:
    return [event(CONFIRMED, track(next(numbers))) for _ in range(number)]


def last_row(path: Path) -> int:
    with StoreReader(path) as reader:
        return reader.last_row()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


def holds(site: Site, events: Sequence[Event]) -> Callable[[], bool]:
    return lambda: site.stored() == list(events) and not site.failing


def test_events_and_tracks_are_stored_and_delivered(site: Site) -> None:
    events = site.append(some())
    site.writer.update_tracks([track(1_000_000, 7)])
    until(holds(site, events))
    until(lambda: site.sent == ids(events))
    with StoreReader(site.path) as reader:
        until(lambda: track(1_000_000, 7) in reader.tracks(10))
    assert site.waiting == 0 and site.lost == {} and not site.metrics.store.failing._value.get()


def test_while_the_store_is_locked_events_are_spilled_and_stored_in_order_afterwards(site: Site) -> None:
    events = site.append(some())
    until(holds(site, events))
    with locked(site.path):
        events += site.append(some())
        until(lambda: site.failing and site.waiting == 5)
        events += site.append(some())
        until(lambda: (site.run_dir / "spill.jsonl").read_bytes().count(b"\n") == 10)
        until(lambda: "store: write failing, 10 events queued; see the log for the reason" in site.metrics.not_ready())
    until(holds(site, events))
    until(lambda: site.sent == ids(events))
    assert not (site.run_dir / "spill.jsonl").exists() and site.lost == {}


def test_an_alert_stays_active_with_its_track_whatever_happens_to_the_store(site: Site) -> None:
    opened, other = raised(track(1, label="unknown"), severity=Severity.WARNING), raised(track(2))
    events = site.append(opened + other)
    until(holds(site, events))
    acknowledge(site.path, opened[0].id, 7)
    with locked(site.path):
        events += site.append(gone(track(2, 9), other[0].id))
        until(lambda: site.failing)
    until(lambda: all(each in site.stored() for each in events) and not site.failing)
    assert {alert.id: alert.state for alert in site.alerts()} == {opened[0].id: "active", other[0].id: "ended"}
    assert {alert.id: alert.acknowledged_utc_ns for alert in site.alerts()}[opened[0].id] == 7
    assert len(site.stored()) == len(events) + 1, "one end each, and the acknowledgement"
    site.append([event(ESCALATED, track(1, 9), was="unknown", alert=opened[0].id)])
    until(lambda: site.alerts()[-1].label == "uav")
    site.path.unlink()
    until(lambda: site.path.exists() and not site.failing)
    until(lambda: [(alert.id, alert.state) for alert in site.alerts()] == [(opened[0].id, "active")])
    (alert,) = site.alerts()
    assert (alert.label, alert.opened_as, alert.severity) == ("uav", "unknown", "alarm")


def unlinked(path: Path) -> None:
    path.unlink()


def unlinked_with_its_log(path: Path) -> None:
    for file in path.parent.glob("store.sqlite*"):
        file.unlink()


def folder_removed(path: Path) -> None:
    shutil.rmtree(path.parent)


def replaced_by_an_older_copy(path: Path) -> None:
    (path.parent / "backup").replace(path)


def replaced_by_garbage(path: Path) -> None:
    (path.parent / "new").write_bytes(os.urandom(9000))
    (path.parent / "new").replace(path)


def overwritten_by_garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)


def overwritten_at_the_start(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(4096))


def overwritten_where_nothing_reads(path: Path) -> None:
    """The second page, which tells where the others belong, and one of old events."""
    with path.open("r+b") as file:
        for page in (1, 1 + path.stat().st_size // 4096 // 2):
            file.seek(page * 4096)
            file.write(os.urandom(4096))


def truncated_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def truncated_to_a_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


GONE = (unlinked, unlinked_with_its_log, folder_removed, replaced_by_an_older_copy)
DAMAGED = (
    replaced_by_garbage, overwritten_by_garbage, overwritten_at_the_start,
    overwritten_where_nothing_reads, truncated_to_nothing, truncated_to_a_half,
)  # fmt: skip


def checkpoint(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize("fault", GONE + DAMAGED, ids=lambda fault: fault.__name__)
def test_a_store_that_is_lost_while_running_is_noticed_and_a_new_one_takes_all_that_follows(
    site: Site, fault: Callable[[Path], None]
) -> None:
    first = site.append(some(1))
    until(holds(site, first))
    checkpoint(site.path)
    shutil.copy(site.path, site.path.parent / "backup")
    before = site.append(some(400))
    until(lambda: site.sent == ids(first + before))
    time.sleep(0.5)  # what is stored by now was read back, and is not kept in memory any more
    checkpoint(site.path)
    fault(site.path)
    after = []
    for _ in range(10):  # also before it is noticed
        after += site.append(some())
        time.sleep(0.05)
    until(lambda: [item for item in site.stored() if item in after] == after and not site.failing, timeout_s=10)
    until(lambda: [each for each in site.sent if each in ids(after)] == ids(after))
    assert site.lost == {}
    if fault is replaced_by_an_older_copy:
        assert site.stored()[0] == first[0]  # and delivered again, where the copy's cursor says so
    else:
        assert site.sent == ids(first + before + after), "and nothing twice"
    if fault in DAMAGED:
        mended = (truncated_to_nothing, overwritten_at_the_start)  # SQLite may write the first page anew in time
        assert damaged(site.path) or fault in mended
    with closing(sqlite3.connect(site.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def damaged(path: Path) -> list[Path]:
    return list(path.parent.glob("store.sqlite.damaged-*Z"))


def test_what_can_be_read_of_a_damaged_store_is_taken_over(site: Site, path: Path) -> None:
    alerts = [raised(track(next(numbers))) for _ in range(40)]
    ended = [each for events in alerts[1:] for each in (*events, *gone(events[0].track, events[0].id))]
    events = site.append(alerts[0] + ended)
    until(lambda: site.sent == ids(events))
    for opened, *_ in alerts[:20]:
        acknowledge(path, opened.id, 7)
    until(lambda: len(site.sent) == len(events) + 20)
    time.sleep(0.5)  # as above
    before, row = site.alerts(), last_row(path)
    checkpoint(path)
    overwritten_where_nothing_reads(path)
    until(lambda: bool(damaged(path)) and bool(site.alerts()) and not site.failing)
    assert len(site.alerts()) >= 0.8 * len(before), "all but those on the damaged page"
    was = {alert.id: (alert.state, alert.acknowledged_utc_ns) for alert in before}
    assert all(was[alert.id] == (alert.state, alert.acknowledged_utc_ns) for alert in site.alerts())
    assert before[-1].id in {alert.id for alert in site.alerts()}, "the active one"
    assert len(site.stored()) >= 0.8 * row
    later = site.append(some())
    until(lambda: site.sent[-5:] == ids(later))
    assert len(site.sent) == row + 5 and last_row(path) == row + 5 and site.lost == {}


def test_an_event_that_was_overwritten_is_left_behind_and_the_others_are_delivered(
    site: Site, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = site.append(some())
    until(lambda: site.sent == ids(events))
    (site.run_dir / "events.jsonl").unlink()
    (site.run_dir / "events.jsonl").mkdir()  # so that the sink fails
    late = site.append(some())
    until(lambda: site.stored() == events + late)
    time.sleep(0.5)  # as above
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE events SET payload = x'7bff' WHERE id = ?", (late[1].id,))
    (site.run_dir / "events.jsonl").rmdir()
    until(lambda: site.sent == ids([late[0], *late[2:]]))
    assert len(damaged(path)) == 1 and site.lost == {"damaged": 1}


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 8000], ids=["text", "header"])
def test_a_store_that_is_damaged_at_the_start_is_moved_aside_and_never_deleted(
    path: Path, tmp_path: Path, content: bytes
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with running(path, tmp_path / "run") as site:
        events = site.append(some())
        until(holds(site, events))
        until(lambda: site.sent == ids(events))
    (aside,) = path.parent.glob("store.sqlite.damaged-*")
    assert aside.read_bytes() == content


def test_a_foreign_database_is_left_alone_and_events_are_queued(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (name)")
    content = path.read_bytes()
    with running(path, tmp_path / "run") as site:
        events = site.append(some())
        until(lambda: site.failing and site.waiting == 5)
        assert path.read_bytes() == content
        path.rename(path.with_name("photos.sqlite"))
        until(holds(site, events))


def test_events_that_were_spilled_go_in_first_at_the_next_start(path: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with running(path, run_dir) as site:
        stored = site.append(raised(track(next(numbers))))
        until(holds(site, stored))
        with locked(path):
            spilled = site.append(some(448) + raised(track(next(numbers))))
            until(lambda: site.waiting == 450)
            site.writer.stop(5)
            assert site.lost == {}
    with locked(path), running(path, run_dir) as site:
        later = site.append(some())
        until(lambda: site.failing and site.waiting == 455)
        site.writer.stop(5)
    SpillFile(run_dir / "spill.jsonl").append(spilled[:3])  # as after a crash before the file was removed
    with running(path, run_dir) as site:
        last = site.append(raised(track(next(numbers))))
        until(lambda: [each for each in site.stored() if each.kind is not ENDED] == stored + spilled + later + last)
        until(lambda: site.sent == ids(site.stored()))
        active = {alert.id for alert in site.alerts() if alert.state == "active"}
        assert active == {last[0].id}, "the alerts of an earlier process have ended"
        ended = [each.alert for each in site.stored() if each.kind is ENDED]
        assert ended == [stored[0].id, spilled[-2].id] and site.metrics.alerts._events.labels(ENDED)._value.get() == 2
        assert not (run_dir / "spill.jsonl").exists()


def test_unreadable_lines_of_a_spill_file_are_counted_as_lost(path: Path, tmp_path: Path) -> None:
    spill = tmp_path / "run" / "spill.jsonl"
    events = some(3)
    for each in events:
        SpillFile(spill).append([each])
    whole = spill.read_bytes().splitlines(keepends=True)
    spill.write_bytes(whole[0] + b"garbage\n\xff\xfe\n" + whole[1] + whole[2][:40])
    with running(path, tmp_path / "run") as site:
        after = site.append(some())
        until(holds(site, [*events[:2], *after]))
        assert site.lost == {"unreadable": 2}


def test_without_any_disk_events_are_kept_in_memory_up_to_a_counted_limit(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = site.append(some())
    until(holds(site, events))
    monkeypatch.setattr(writer, "MAX_QUEUED", 300)
    (site.run_dir / "spill.jsonl").mkdir(parents=True)  # no file can be created there
    with locked(site.path):
        late = site.append(some(200))
        until(lambda: site.failing)
        late += site.append(some(400))
        until(lambda: site.lost == {"memory": 100} and site.waiting == 500)
    until(holds(site, events + late[:200] + late[300:]))
    until(lambda: site.sent == ids(site.stored()))


def test_who_waits_for_events_that_are_lost_waits_no_longer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    until(holds(site, site.append(some())))
    monkeypatch.setattr(writer, "MAX_QUEUED", 5)
    (site.run_dir / "spill.jsonl").mkdir(parents=True)  # no file can be created there
    decided = threading.Event()
    with locked(site.path):
        site.append(some(1))
        until(lambda: site.failing)
        site.writer.append(some(1), decided.set)
        assert not decided.wait(0.1)
        site.append(some(5))
        until(lambda: site.lost == {"memory": 1})
        assert decided.is_set()


def test_what_cannot_be_stored_is_counted_and_delays_nothing(site: Site) -> None:
    bad = event(CONFIRMED, track(next(numbers), evidence={"uav": float("nan")}))
    good = some()
    site.append([*good[:2], bad, *good[2:]])
    site.writer.update_tracks([track(5, evidence={"uav": float("inf")}), track(6)])
    until(holds(site, good))
    with StoreReader(site.path) as reader:
        until(lambda: 6 in {item.id for item in reader.tracks(100)})
    assert site.lost == {"invalid": 1}


@needs_mount
@pytest.mark.parametrize("is_shared", [True, False], ids=["one-disk", "own-disk"])
def test_a_full_disk_costs_no_event(path: Path, tmp_path: Path, is_shared: bool) -> None:
    run_dir = path.parent / "run" if is_shared else tmp_path / "run"
    with small_disk(path.parent), running(path, run_dir) as site:
        events = site.append(some())
        until(lambda: site.sent == ids(events))
        filler = fill(path.parent)
        for _ in range(20):
            events += site.append(some(50))
        until(lambda: site.failing and site.waiting > 0)
        filler.unlink()
        until(holds(site, events))
        until(lambda: site.sent == ids(events))
        assert site.lost == {}


@needs_mount
def test_a_read_only_disk_at_the_start_and_its_return(path: Path, tmp_path: Path) -> None:
    with small_disk(path.parent, options="ro"), running(path, tmp_path / "run") as site:
        events = site.append(some())
        until(lambda: site.failing and site.waiting == 5)
        remount(path.parent, "rw")
        until(holds(site, events))
        until(lambda: site.sent == ids(events))


@needs_mount
def test_a_disk_that_goes_away_and_comes_back(path: Path, tmp_path: Path) -> None:
    with running(path, tmp_path / "run") as site:
        events = site.append(some())
        until(lambda: site.sent == ids(events))
        with small_disk(path.parent, options="ro"):
            until(lambda: site.failing)
            events += site.append(some())
            until(lambda: site.waiting == 5)
        until(holds(site, events))
        until(lambda: site.sent == ids(events))
        assert site.lost == {}


def test_a_stop_with_a_store_that_fails_ends_in_time_and_spills(path: Path, tmp_path: Path) -> None:
    with running(path, tmp_path / "run") as site:
        until(lambda: path.exists())
        until(holds(site, []))
        with locked(path):
            site.append(some(50))
            started_s = time.monotonic()
            site.writer.stop(3)
            assert time.monotonic() - started_s < 2
        assert SpillFile(tmp_path / "run" / "spill.jsonl").count == 50 and site.lost == {}
