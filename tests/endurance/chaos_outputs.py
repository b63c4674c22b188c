"""What must have come out whatever `endurance.chaos` broke: events in the file and with sinks, and clips.

`events.jsonl` has every event of the store once, in order; a webhook's receiver has them all, in order, and
so has a mail server; a broker acknowledges them all, and what its listener hears is in order; a SAPIENT middleware has
all of alerts, each camera's in order, and a TAK server has shown every alert.  Duplicates with sinks are allowed: they
carry one id.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
from support.mosquitto import MOSQUITTO, Broker, Listener
from support.receiver import Receiver
from support.sapient import Middleware
from support.tak import Taky

from endurance.chaos_installed import has_mail, has_middleware, has_tak
from pipeline.store.clips import read_record
from pipeline.store.reader import StoreReader
from pipeline.types import EventKind

if TYPE_CHECKING:
    from support.mail_server import MailServer

EVENT_ID = re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")
TIME_FAULT = re.compile(r": time | after the one before")
TOPIC = "dasnet/events"
FILE_S = 15.0  # for the file to catch up with the store
SYNC_S = 60.0  # until sinks have everything: they wait longer and longer for a receiver that was gone


@dataclass
class Receivers:
    """What the program delivers to, beside its file."""

    webhook: Receiver
    broker: Broker | None = None
    listener: Listener | None = None
    mail: "MailServer | None" = None
    tak: Taky | None = None
    middleware: Middleware | None = None

    def settings(self) -> list[dict[str, object]]:
        """Return the site's `sinks`."""
        sinks: list[dict[str, object]] = [{"type": "jsonl"}, {"type": "webhook", "url": self.webhook.url}]
        if self.broker is not None:
            sinks.append({"type": "mqtt", "url": f"mqtt://127.0.0.1:{self.broker.port}"})
        if self.mail is not None:
            sinks.append({"type": "notify", "url": self.mail.url, "kinds": None, "min_severity": None})
        if self.tak is not None:
            sinks.append({"type": "cot", "url": f"tcp://127.0.0.1:{self.tak.port}"})
        if self.middleware is not None:
            sinks.append({"type": "sapient", "url": f"tcp://127.0.0.1:{self.middleware.port}"})
        return sinks

    def violations(self, store: Path) -> list[str]:
        """Wait until every sink has all of the store; return what is missing or out of order then."""
        deadline_s = time.monotonic() + SYNC_S
        while (wrong := list(self._wrong(store))) and time.monotonic() < deadline_s:
            time.sleep(0.3)
        return wrong

    def _wrong(self, store: Path) -> Iterator[str]:
        with StoreReader(store) as reader:
            events = [each.event for each in reader.events(1_000_000, after=0)]
            names = [str(sink["type"]) for sink in self.settings()[1:]]
            waiting = {sink: reader.backlog(sink) for sink in names}
        stored = [event.id for event in events]
        yield from _missing("webhook", stored, self.webhook.accepted)
        if self.mail is not None:
            yield from _missing("notify", stored, self.mail.mailbox.event_ids())
        if self.middleware is not None:
            told = [EVENT_ID.findall(each.alert.additional_information)[0] for each in self.middleware.of("alert")]
            alerts = [event for event in events if event.alert and event.is_alert]
            for camera in sorted({event.camera for event in alerts}):  # each has a connection of its own
                yield from _missing(f"sapient {camera}", [each.id for each in alerts if each.camera == camera], told)
            # The program's clock is one of the things that are broken.
            yield from (f"sapient: {fault}" for fault in self.middleware.faults if not TIME_FAULT.search(fault))
        if self.tak is not None and not any(waiting.values()):
            shown = {each.get("uid") for each in self.tak.received()}
            opened = [event for event in events if event.kind is EventKind.ALERT_OPENED]
            lost = sum(f"dasnet.{event.alert}" not in shown for event in opened if event.track and event.track.bearing)
            if lost:
                yield f"cot: {lost} of {len(opened)} alerts never shown"
        yield from (f"{sink}: {count} events not delivered" for sink, count in waiting.items() if count)
        if self.listener is not None:
            heard = list(dict.fromkeys(json.loads(payload)["id"] for payload in self.listener.heard(TOPIC)))
            places = {event: place for place, event in enumerate(stored)}
            order = [places[event] for event in heard if event in places]
            if order != sorted(order):
                yield "mqtt: events out of order"


def _missing(sink: str, wanted: Sequence[str], received: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong unless all events came, in their order; each maybe several times."""
    known = set(wanted)
    came = list(dict.fromkeys(each for each in received if each in known))
    if came != list(wanted):
        lost = len(wanted) - len(came)
        yield f"{sink}: {len(wanted)} stored, {len(came)} received, {lost} lost" + ("" if lost else ", disorder")


@contextmanager
def receivers(folder: Path) -> Iterator[Receivers]:
    """Yield a webhook's receiver and, where they are installed, servers of mail, MQTT, TAK and SAPIENT."""
    with ExitStack() as stack:
        found = Receivers(stack.enter_context(Receiver()))
        if MOSQUITTO is not None:
            found.broker = stack.enter_context(Broker(folder))
            found.listener = stack.enter_context(Listener(found.broker))
        if has_mail():
            from support.mail_server import MailServer

            found.mail = stack.enter_context(MailServer())
        if has_tak():
            found.tak = stack.enter_context(Taky(folder))
        if has_middleware():
            found.middleware = stack.enter_context(Middleware())
        yield found


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
