"""A power cut at any moment takes nothing that was acknowledged to a caller or given to a sink."""

import random
import shutil
import sqlite3
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import pytest
from support.events import CONFIRMED, event, track, until
from support.power_cut import Call, Disk, journalled
from support.power_cut_program import NOTES, Note, new_run

from pipeline.evidence.leaves import EventLeaf
from pipeline.evidence.log import Draft, EvidenceLog
from pipeline.sinks.jsonl import JsonlSink
from pipeline.store.reader import StoreReader
from pipeline.types import Verdict

CUTS = 40


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: a disk that others keep busy takes seconds for each of the syncs."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="power-cut-", dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def calls(memory: Path) -> list[Call]:
    folder = memory / "program"
    folder.mkdir()
    return journalled(
        [sys.executable, "-m", "support.power_cut_program", str(folder / "run"), "30"], folder / "run", folder
    )


def cuts(calls: list[Call], root: Path, copy: Path, count: int, seed: int) -> Iterator[dict[str, list[str]]]:
    """Cut at random calls: yield what had been acknowledged by then, by kind, with what the disk may hold as `copy`."""
    choose = random.Random(seed)
    chosen = set(choose.sample(range(len(calls)), count))
    disk, noted = Disk(), defaultdict[str, list[str]](list)
    for number, call in enumerate(calls):
        if call.path == root / NOTES and call.data:
            note = msgspec.json.decode(call.data, type=Note)
            noted[note.kind] += note.ids
        else:
            disk.make(call)
        if number in chosen:
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            disk.write(root, copy, choose)
            yield {**noted, "given": list(noted["given"])}


def check_store(path: Path, noted: dict[str, list[str]]) -> set[str]:
    """Check that a recovered store holds what was acknowledged; return the ids of its events."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with StoreReader(path) as reader:
        stored = [each.event.id for each in reader.events(10**6)]
        alerts = {alert.id: alert for alert in reader.alerts(10**6)}
    wanted = noted.get("stored", [])
    assert [each for each in stored if each in set(wanted)] == wanted, "each once, in order"
    assert set(noted["given"]) <= set(stored), "no sink knows more than the store"
    assert all(alerts[each].acknowledged_utc_ns is not None for each in noted.get("acknowledged", []))
    assert all(alerts[each].verdict is Verdict.UAV for each in noted.get("confirmed", []))
    assert all(alerts[each].pinned_utc_ns == 3 for each in noted.get("pinned", []))
    return set(stored)


def check_recovery(run_dir: Path, noted: dict[str, list[str]]) -> None:
    """Start again: what was acknowledged is there, sinks get what they lack, and the evidence log fits the store."""
    run = new_run(run_dir)
    try:
        (run_dir / NOTES).touch()
        check_store(run.config.store_path, noted)
        until(lambda: not any(run.outbox.backlog().values()), 10)
    except AssertionError as error:
        raise AssertionError(f"{error}: {run.outbox.failures()} {run.outbox.backlog()}") from error
    finally:
        run.outbox.stop()
        run.sink.finish(5)
        run.store.close()
    stored = check_store(run.config.store_path, noted)
    again = [msgspec.json.decode(line, type=Note) for line in (run_dir / NOTES).read_bytes().splitlines()]
    assert stored == set(noted["given"]).union(*(note.ids for note in again)), "at least once"
    lines = (run_dir / "events.jsonl").read_bytes().splitlines()
    assert sorted(msgspec.json.decode(line)["id"] for line in lines) == sorted(stored), "each once"
    report = run.verify()
    assert not report.findings and not report.remarks


def test_what_was_acknowledged_outlives_a_power_cut(calls: list[Call], memory: Path) -> None:
    root = calls[0].path.parent
    assert root.name == "run"
    for number, noted in enumerate(cuts(calls, root, memory / "run", CUTS, seed=1)):
        try:
            check_recovery(memory / "run", noted)
        except AssertionError as error:
            raise AssertionError(f"cut {number}: {error}") from error


def test_a_disk_that_was_not_synced_would_lose_it(calls: list[Call], memory: Path) -> None:
    root = calls[0].path.parent
    unsynced = [call for call in calls if call.kind not in "sd"]
    lost = 0
    for noted in cuts(unsynced, root, memory / "run", 10, seed=2):
        try:
            check_recovery(memory / "run", noted)
        except Exception:  # noqa: BLE001  (whatever fails)
            lost += 1
    assert lost, "the simulation notices"


def test_a_private_file_is_the_older_or_the_newer_one(memory: Path) -> None:
    root, texts = memory / "private" / "run", (b"old" * 400, b"new" * 400)
    root.mkdir(parents=True)
    program = f"""
import sys
from pathlib import Path
from pipeline.store.folders import write_private
for text in {texts}:
    write_private(Path(sys.argv[1]), text)
"""
    calls = journalled([sys.executable, "-c", program, str(root / "key")], root, root.parent)
    found = set()
    for seed in range(20):
        for _ in cuts(calls, root, memory / "run", len(calls), seed):
            path = memory / "run" / "key"
            found.add(path.read_bytes() if path.exists() else None)
    assert found == {None, *texts}


def leaf(n: int) -> Draft:
    return partial(EventLeaf, id=f"E{n}", event="alert.opened", camera="north", event_utc_ns=n, sha256="0" * 64)


def zeroed(path: Path, start: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))


def test_a_torn_batch_of_the_evidence_log_is_cut_off_and_a_fault_of_old_leaves_stays(tmp_path: Path) -> None:
    log, path = EvidenceLog(tmp_path), tmp_path / "log.jsonl"
    log.append([leaf(1)])
    log.append([leaf(2)])
    whole = log.size_bytes
    log.append([leaf(number) for number in range(3, 20)])
    log.close()
    zeroed(path, whole + 700, 512)
    log = EvidenceLog(tmp_path)
    kept = log.size
    assert 2 < kept < 6 and log.state.last_event == f"E{kept}", "what precedes the hole is whole"
    log.append([leaf(kept + 1)])
    log.close()
    zeroed(path, 20, 50)
    log = EvidenceLog(tmp_path)
    assert (log.size, log.state.last_event) == (kept + 1, f"E{kept + 1}"), "it has leaves of several times"
    log.close()


def test_a_torn_batch_of_a_file_of_events_is_cut_off(tmp_path: Path) -> None:
    sink, path = JsonlSink(tmp_path / "events.jsonl"), tmp_path / "events.jsonl"
    sink.open()
    sink.send([event(CONFIRMED, track(1))])
    first = path.stat().st_size
    events = [event(CONFIRMED, track(number)) for number in range(2, 9)]
    sink.send(events)
    sink.close()
    whole = path.read_bytes()
    zeroed(path, first, 512)
    assert sink.open() is not None and path.read_bytes() == whole[:first]
    sink.send(events)
    sink.close()
    assert path.read_bytes() == whole
