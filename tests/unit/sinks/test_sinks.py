"""The outbox and the JSONL sink: every event is delivered in order, and written once, whichever process crashes."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.events import CONFIRMED, event, ids, track, until

from pipeline.config.models import Config
from pipeline.sinks.configured import configured_sinks
from pipeline.sinks.jsonl import KEPT, JsonlSink, rotated
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.sink import Sink, SinkError
from pipeline.store.reader import StoreReader
from pipeline.store.store import Store
from pipeline.types import Event

FAST_S = (0.01, 0.05)
ROOT = Path(__file__).parents[3]


class Recorder(Sink):
    """A sink in memory that fails on demand."""

    from_now_on = False

    def __init__(self, name: str = "recorder") -> None:
        super().__init__(name)
        self.got: list[str] = []
        self.opened = 0
        self.failing: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def open(self) -> str | None:
        self.opened += 1
        return None

    def send(self, events: Sequence[Event]) -> None:
        self.gate.wait(10)
        if self.failing is not None:
            raise self.failing
        self.got += [item.id for item in events]

    def close(self) -> None:
        pass


def made(count: int, first: int = 0) -> list[Event]:
    return [event(CONFIRMED, track(first + number)) for number in range(count)]


def lines(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_every_sink_gets_every_event_in_order_at_once_after_a_wake(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "poll_s", 60.0)  # not by the slow poll
    first, second = Recorder("a"), Recorder("b")
    events = made(450)
    store.append(events[:10])
    outbox = Outbox(path, [first, second])
    until(lambda: len(first.got) == len(second.got) == 10)
    store.append(events[10:])
    outbox.wake()
    until(lambda: len(first.got) == len(second.got) == 450)
    assert first.got == second.got == ids(events)
    until(lambda: outbox.backlog() == {"a": 0, "b": 0})
    assert outbox.stop() == {"a": 0, "b": 0}


def test_a_restart_goes_on_after_the_cursor(path: Path, store: Store) -> None:
    events = made(30)
    store.append(events[:20])
    first, again = Recorder(), Recorder()
    Outbox(path, [first]).stop()
    store.append(events[20:])
    Outbox(path, [again]).stop()
    assert (first.got, again.got) == (ids(events[:20]), ids(events[20:]))


def test_a_failing_sink_is_retried_and_delays_no_other(path: Path, store: Store) -> None:
    bad, good = Recorder("bad"), Recorder("good")
    bad.failing = SinkError("destination unreachable")
    events = made(5)
    outbox = Outbox(path, [bad, good], FAST_S)
    store.append(events)
    outbox.wake()
    until(lambda: good.got == ids(events))
    until(lambda: bad.opened > 2)
    assert outbox.backlog() == {"bad": 5, "good": 0}
    assert outbox.failures() == {"bad": "SinkError: destination unreachable"}
    bad.failing = ZeroDivisionError("a fault in the sink itself")
    until(lambda: "ZeroDivisionError" in outbox.failures()["bad"])
    bad.failing = None
    until(lambda: bad.got == ids(events))
    until(lambda: outbox.failures() == {})
    outbox.stop()


def test_a_stop_drains_but_keeps_to_its_deadline(path: Path, store: Store) -> None:
    stuck, dead, good = Recorder("stuck"), Recorder("dead"), Recorder("good")
    stuck.gate.clear()
    dead.failing = SinkError("away")
    outbox = Outbox(path, [stuck, dead, good])
    store.append(made(1000))
    started = time.monotonic()
    backlog = outbox.stop(deadline_s=0.7)
    assert 0.6 < time.monotonic() - started < 1.5
    assert backlog == {"stuck": 1000, "dead": 1000, "good": 0}
    stuck.gate.set()


def test_a_sink_that_fails_does_not_delay_the_stop(path: Path, store: Store) -> None:
    dead = Recorder()
    dead.failing = SinkError("away")
    store.append(made(1))
    outbox = Outbox(path, [dead])
    until(lambda: bool(outbox.failures()))
    started = time.monotonic()
    assert outbox.stop(deadline_s=10) == {"recorder": 1}
    assert time.monotonic() - started < 1


def test_two_sinks_of_one_name_are_refused(path: Path, store: Store) -> None:
    with pytest.raises(ValueError, match="must be unique"):
        Outbox(path, [Recorder(), Recorder()])


def test_the_configured_sinks(tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "cameras": [{"id": "north", "uri": "demo:day"}],
            "run_dir": tmp_path,
            "sinks": [{"type": "jsonl"}, {"type": "jsonl", "path": "/elsewhere/e.jsonl"}],
        }
    )
    assert [sink.name for sink in configured_sinks(config)] == [
        f"jsonl:{tmp_path}/events.jsonl",
        "jsonl:/elsewhere/e.jsonl",
    ]


def test_jsonl_holds_the_whole_events(path: Path, store: Store, tmp_path: Path) -> None:
    events = made(3)
    store.append(events)
    Outbox(path, [JsonlSink(tmp_path / "out" / "events.jsonl")]).stop()
    (first, *_) = (tmp_path / "out" / "events.jsonl").read_text().splitlines()
    assert json.loads(first)["track"]["label"] == "uav"
    assert json.loads(first)["kind"] == "track.confirmed"


def test_jsonl_is_not_doubled_when_a_crash_came_between_file_and_cursor(
    path: Path, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    events = made(500)
    store.append(events)
    sink = JsonlSink(file)
    sink.open()
    sink.send(events[:350])  # and no cursor: the process crashed here
    sink.close()
    Outbox(path, [JsonlSink(file)]).stop()
    assert lines(file) == ids(events)


@pytest.mark.parametrize("cut", [1, 30, 200_000])
def test_jsonl_truncates_a_partial_line(path: Path, store: Store, tmp_path: Path, cut: int) -> None:
    file = tmp_path / "events.jsonl"
    evidence = {f"class {number}": 1.0 for number in range(20_000)}  # a line longer than the chunks that are read
    events = [*made(2), event(CONFIRMED, track(9, evidence=evidence)), *made(1, 10)]
    store.append(events)
    sink = JsonlSink(file)
    sink.open()
    sink.send(events[:3])
    sink.close()
    os.truncate(file, file.stat().st_size - cut)
    Outbox(path, [JsonlSink(file)]).stop()
    assert lines(file) == ids(events)


def test_jsonl_truncates_the_zeros_that_a_power_cut_leaves(path: Path, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    events = made(3)
    store.append(events)
    sink = JsonlSink(file)
    sink.open()
    sink.send(events[:1])
    sink.close()
    with file.open("ab") as raw:
        raw.write(bytes(4096))
    Outbox(path, [JsonlSink(file)]).stop()
    assert lines(file) == ids(events)


@pytest.mark.parametrize("content", [b"cameras:\n  - {id: north}\n", b"precious, without a newline", b'{"id": 5}\n'])
def test_jsonl_leaves_a_foreign_file_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "site.yaml"
    file.write_bytes(content)
    sink = JsonlSink(file)
    with pytest.raises(SinkError, match=r"site\.yaml: .*configure another"):
        sink.open()
    sink.close()
    assert file.read_bytes() == content


def test_jsonl_after_a_failed_write_goes_on_without_loss_or_double(
    path: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "events.jsonl"
    write, tries = os.write, iter(range(1000))

    def disk_full_half_way(descriptor: int, data: memoryview) -> int:
        if next(tries) % 2:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) * 2 // 3])

    events = made(50)
    store.append(events)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", disk_full_half_way)
        outbox = Outbox(path, [JsonlSink(file)], FAST_S)
        until(lambda: "No space left" in str(outbox.failures()))
        until(lambda: next(tries) > 8)
    until(lambda: set(outbox.backlog().values()) == {0})
    outbox.stop()
    assert lines(file) == ids(events)


def test_jsonl_begins_a_new_file_after_log_rotation(path: Path, store: Store, tmp_path: Path) -> None:
    file, old = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    events = made(6)
    outbox = Outbox(path, [JsonlSink(file)])
    store.append(events[:4])
    outbox.wake()
    until(lambda: file.exists() and len(lines(file)) == 4)
    file.rename(old)
    store.append(events[4:])
    outbox.stop()
    assert (lines(old), lines(file)) == (ids(events[:4]), ids(events[4:]))


def test_jsonl_rotates_keeps_a_bounded_number_and_doubles_nothing(path: Path, store: Store, tmp_path: Path) -> None:
    file, events = tmp_path / "events.jsonl", made(2000)
    outbox = Outbox(path, [JsonlSink(file, rotate_bytes=100_000)])
    for start in range(0, 2000, 100):
        store.append(events[start : start + 100])
        outbox.wake()
        until(lambda: outbox.backlog() == {f"jsonl:{file}": 0})
    outbox.stop()
    files = [*(rotated(file, number) for number in range(KEPT, 0, -1)), file]
    assert sorted(files) == sorted(tmp_path.glob("events.jsonl*"))
    assert all(100_000 <= each.stat().st_size < 250_000 for each in files[:-1])
    kept = [event_id for each in files for event_id in lines(each)]
    assert kept == ids(events)[-len(kept) :] and len(kept) > 400


def test_jsonl_is_not_doubled_when_a_crash_came_just_after_the_rotation(
    path: Path, store: Store, tmp_path: Path
) -> None:
    file, events = tmp_path / "events.jsonl", made(20)
    store.append(events)
    sink = JsonlSink(file)
    sink.open()
    sink.send(events[:15])  # and no cursor
    sink.close()
    file.rename(rotated(file, 1))
    Outbox(path, [JsonlSink(file)]).stop()
    assert (lines(rotated(file, 1)), lines(file)) == (ids(events[:15]), ids(events[15:]))


WORKER = """
import sys
from pathlib import Path
from support.events import CONFIRMED, event, track
from pipeline.sinks.configured import configured_sinks
from pipeline.sinks.jsonl import KEPT, JsonlSink, rotated
from pipeline.sinks.outbox import Outbox
from pipeline.store.store import Store
folder = Path(sys.argv[1])
store = Store(folder / "store.sqlite")
outbox = Outbox(folder / "store.sqlite", [JsonlSink(folder / "events.jsonl")])
for number in range(10**6):
    made = [event(CONFIRMED, track(number)) for _ in range(1 + number % 4)]
    store.append(made)
    outbox.wake()
    print(*(item.id for item in made), sep="\\n", flush=True)
"""


def test_a_killed_worker_loses_and_doubles_no_event(tmp_path: Path) -> None:
    chance, printed = random.Random(7), list[str]()
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )
        assert process.stdout
        printed += [process.stdout.readline().strip() for _ in range(chance.randrange(50, 400))]
        process.kill()
        printed += process.stdout.read().split("\n")[:-1]
        process.stdout.close()
        process.wait()
    assert lines(tmp_path / "events.jsonl"), "the killed ones had delivered something themselves"
    Outbox(tmp_path / "store.sqlite", [JsonlSink(tmp_path / "events.jsonl")]).stop()
    with StoreReader(tmp_path / "store.sqlite") as reader:
        stored = [item.event.id for item in reader.events(10**6)]
    delivered = lines(tmp_path / "events.jsonl")
    assert delivered == stored
    assert len(set(delivered)) == len(delivered)
    assert set(printed) <= set(delivered), "what was committed is delivered"
