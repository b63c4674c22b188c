"""A run folder with an evidence log: a store with alerts, their files, and the sink that logs them."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from pipeline.config.models import Config
from pipeline.evidence.files import file_digest
from pipeline.evidence.metrics import EvidenceMetrics
from pipeline.evidence.verify import Report, verify_run
from pipeline.sinks.evidence import EvidenceSink
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.sink import Sink
from pipeline.store.clips import ClipRecord, record_path, video_path, write_record
from pipeline.store.store import Store
from pipeline.types import Event
from support.events import gone, raised, track, until

FAST_S = (0.01, 0.05)
CHECKPOINT = "c" * 64


def site(run_dir: Path, **sections: object) -> Config:
    camera = {"id": "north", "uri": "demo:scene"}
    return Config.model_validate({"cameras": [camera], "run_dir": run_dir} | sections)


def alert(number: int, seq: int = 5) -> list[Event]:
    """The events of an alert that opens and ends, with a snapshot and a crop."""
    seen = track(number, seq)
    opened = raised(seen)
    name = opened[0].id
    return [
        *(msgspec.structs.replace(each, snapshot=f"{name}.jpg", crop=f"{name}.crop.jpg") for each in opened),
        *gone(track(number, seq + 100), name),
    ]


class Run:
    """A run folder whose store and log are written as by the track worker."""

    def __init__(self, run_dir: Path, others: Sequence[Sink] = (), **sections: object) -> None:
        self.config = site(run_dir, **sections)
        self.store = Store(self.config.store_path)
        self.metrics = EvidenceMetrics(CollectorRegistry())
        self.sink = EvidenceSink(self.config, CHECKPOINT, self.metrics)
        self.outbox = Outbox(self.config.store_path, [self.sink, *others], FAST_S)

    def add(self, events: Sequence[Event]) -> str:
        """Store events, and write the files of those that have any; return the alert of the last one."""
        for event in events:
            if event.snapshot is not None and event.crop is not None:
                self.write_file(f"snapshots/{event.snapshot}")
                self.write_file(f"snapshots/{event.crop}")
        self.store.append(events)
        self.outbox.wake()
        return events[-1].alert or ""

    def add_clip(self, alert_id: str) -> None:
        folder = self.config.clips_path
        self.write_file(f"clips/{alert_id}.mp4", 5000)
        digest = file_digest(video_path(folder, alert_id))
        record = ClipRecord(alert_id, "north", "s1", 0.2, "h264", (640, 512), 0.0, ended="post_s")
        record.sha256, record.size_bytes = digest
        write_record(record_path(folder, alert_id), record)

    def write_file(self, name: str, size_bytes: int = 500) -> None:
        path = self.config.run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.with_suffix(".partial").write_bytes(os.urandom(size_bytes))
            path.with_suffix(".partial").replace(path)

    def delivered(self) -> None:
        """Wait until the log holds all events."""
        until(lambda: self.outbox.backlog()[self.sink.name] == 0, 60)

    def stop(self) -> None:
        """Stop as the track worker does."""
        self.delivered()
        self.outbox.stop()
        self.sink.finish(5)
        self.store.close()

    def verify(self) -> Report:
        return verify_run(self.config.run_dir, self.config.store_path)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()
