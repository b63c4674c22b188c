"""Receivers of the site's events for `endurance.chaos`: a webhook and an MQTT broker, which come and go.

A webhook's receiver must have every event that the store has, in the order of the store, whatever is killed; a broker
acknowledges them all, and what its listener hears is in order.  Duplicates are allowed: they carry one id.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.mosquitto import MOSQUITTO, Broker, Listener
from support.receiver import Receiver

from pipeline.store.store import StoreReader

TOPIC = "dasnet/events"
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
