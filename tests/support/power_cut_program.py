"""A program for a power cut: alerts, their files, reviews and pins, each noted once it was acknowledged."""

import os
import random
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import cv2
import msgspec
import numpy as np

from pipeline.alerting.snapshots import write_snapshot
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.sink import Sink
from pipeline.store.reviews import acknowledge, pin, review
from pipeline.types import Event, Verdict
from support.events import CONFIRMED, event, ids, track
from support.evidence import Run, alert
from support.scenes import frame

NOTES = "notes"
JPEG = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()


class Note(msgspec.Struct, frozen=True):
    """What was acknowledged: ids of events that a caller stored or a sink was given, or of alerts."""

    kind: str  # stored | given | acknowledged | confirmed | pinned
    ids: list[str]


class NotingSink(Sink):
    """A sink that notes what it was given."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__("noting")
        self._run_dir = run_dir

    def open(self) -> None:
        return None

    def send(self, events: Sequence[Event]) -> None:
        note(self._run_dir, "given", ids(events))

    def close(self) -> None:
        return None


def note(run_dir: Path, kind: str, of: list[str]) -> None:
    """Note it in the journal of system calls; what the disk keeps of this file does not matter."""
    descriptor = os.open(run_dir / NOTES, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, msgspec.json.encode(Note(kind, of)) + b"\n")
    os.close(descriptor)


def new_run(run_dir: Path) -> Run:
    return Run(run_dir, [NotingSink(run_dir), JsonlSink(run_dir / "events.jsonl")])


def main(run_dir: Path, steps: int) -> None:
    run, choose = new_run(run_dir), random.Random(7)
    path = run.config.store_path
    for number in range(1, steps + 1):
        *opening, lost, ended = alert(number)
        name = opening[0].id
        write_snapshot(run.config.snapshots_path / f"{name}.jpg", JPEG, frame(1, []), [track(number)])
        for events in (opening, [event(CONFIRMED, track(10_000 + number))], [lost, ended]):
            run.store.append(events)
            note(run_dir, "stored", ids(events))
            run.outbox.wake()
            run.store.update_tracks([track(number, 7)])
        review_alert(path, name, choose)
        if choose.random() < 0.2:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(f"PRAGMA wal_checkpoint({choose.choice(('PASSIVE', 'TRUNCATE'))})")
    run.stop()


def review_alert(path: Path, name: str, choose: random.Random) -> None:
    if choose.random() < 0.5:
        acknowledge(path, name, 1)
        note(path.parent, "acknowledged", [name])
    if choose.random() < 0.5:
        review(path, name, Verdict.UAV, "seen from the gate", 2)
        note(path.parent, "confirmed", [name])
    if choose.random() < 0.5:
        pin(path, name, 3)
        note(path.parent, "pinned", [name])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
