"""What must have come out whatever `endurance.chaos` broke: events in the file and with sinks, and clips.

`events.jsonl` has every event of the store once, in order; a webhook's receiver has them all, in order, and a broker
acknowledges them all, and what its listener hears is in order.  Duplicates with sinks are allowed: they carry one id.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from support.mosquitto import MOSQUITTO, Broker, Listener
from support.receiver import Receiver

from pipeline.store.clips import read_record
from pipeline.store.store import StoreReader

TOPIC = "dasnet/events"
FILE_S = 15.0  # for the file to catch up with the store
SYNC_S = 60.0  # until sinks have everything: they wait longer and longer for a receiver that was gone


@dataclass
class Receivers:
    """What the program delivers to, beside its file."""

    webhook: Receiver
    broker: Broker | None
    listener: Listener | None

    def settings(self) -> list[dict[str, str]]:
        """Return the site's `sinks`."""
        sinks = [{"type": "jsonl"}, {"type": "webhook", "url": self.webhook.url}]
        if self.broker is not None:
            sinks.append({"type": "mqtt", "url": f"mqtt://127.0.0.1:{self.broker.port}"})
        return sinks

    def violations(self, store: Path) -> list[str]:
        """Wait until every sink has all of the store; return what is missing or out of order then."""
        deadline_s = time.monotonic() + SYNC_S
        while (wrong := list(self._wrong(store))) and time.monotonic() < deadline_s:
            time.sleep(0.3)
        return wrong

    def _wrong(self, store: Path) -> Iterator[str]:
        with StoreReader(store) as reader:
            stored = [each.event.id for each in reader.events(1_000_000, after=0)]
            waiting = {sink: reader.backlog(sink) for sink in ("webhook", "mqtt") if sink == "webhook" or self.broker}
        accepted = list(dict.fromkeys(self.webhook.accepted))
        if accepted[: len(stored)] != stored:
            lost = len(set(stored) - set(accepted))
            yield f"webhook: {len(stored)} stored, {len(accepted)} received, {lost} lost" + (
                "" if lost else ", disorder"
            )
        yield from (f"{sink}: {count} events not delivered" for sink, count in waiting.items() if count)
        if self.listener is not None:
            heard = list(dict.fromkeys(json.loads(payload)["id"] for payload in self.listener.heard(TOPIC)))
            places = {event: place for place, event in enumerate(stored)}
            order = [places[event] for event in heard if event in places]
            if order != sorted(order):
                yield "mqtt: events out of order"


@contextmanager
def receivers(folder: Path) -> Iterator[Receivers]:
    """Yield a webhook's receiver and, where mosquitto is installed, a broker with a listener."""
    with Receiver() as webhook:
        if MOSQUITTO is None:
            yield Receivers(webhook, None, None)
            return
        with Broker(folder) as broker, Listener(broker) as listener:
            yield Receivers(webhook, broker, listener)


def broken_clips(run_dir: Path) -> Iterator[str]:
    """Yield the clips that are not what their record says: its packets, of which the first can be decoded."""
    for about in sorted((run_dir / "clips").glob("*.json")):
        record = read_record(about)
        video = about.with_suffix(".mp4")
        if video.exists() and hashlib.sha256(video.read_bytes()).hexdigest() != record.sha256:
            yield f"{video.name}: its checksum is another"
        elif video.exists():
            with av.open(str(video)) as container:
                packets = [packet for packet in container.demux(video=0) if packet.size]
            if len(packets) != record.packets or not packets[0].is_keyframe:
                yield f"{video.name}: {len(packets)} of {record.packets} packets"


def events(run_dir: Path, store: Path | None = None, sync_s: float = FILE_S) -> list[str]:
    """Return violations unless store and sink have the same events in the same order, each once."""
    deadline_s = time.monotonic() + sync_s
    while True:
        written = (run_dir / "events.jsonl").read_bytes()  # read first: the store is never behind it
        lines = written[: written.rfind(b"\n") + 1].splitlines()  # the last one may be incomplete
        with StoreReader(store or run_dir / "store.sqlite") as reader:
            stored = [each.event.id for each in reader.events(1_000_000, after=0)]
        sent = [json.loads(line)["id"] for line in lines]
        if sent == stored:
            return []
        if time.monotonic() > deadline_s:
            lost, doubled = len(set(stored) - set(sent)), len(sent) - len(set(sent))
            return [f"events: {len(stored)} stored, {len(sent)} sent, {lost} lost, {doubled} doubled"]
        time.sleep(0.3)
