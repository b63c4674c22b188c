"""The log of claims and events of a site, and the checker of what it must be.

`python -m support.cluster_log CONFIG` prints it, where the server can only be reached from another namespace.
"""

import asyncio
import json
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

from pipeline.cluster.jetstream import HOST, REVIEWS, TOKEN
from pipeline.config.file import load
from pipeline.config.hosts import login_of, place_of
from pipeline.config.models import Config
from pipeline.types import Event


class Message(NamedTuple):
    """A claim, or events."""

    sequence: int
    camera: str
    host: str
    token: int
    events: list[str]  # ids; empty: a claim


@dataclass
class Log:
    """All messages, in the server's order."""

    messages: list[Message]

    @classmethod
    def read(cls, config: Config) -> "Log":
        return cls(asyncio.run(_read(config)))


async def _read(config: Config) -> list[Message]:
    assert config.nats is not None
    server = config.nats.servers[0]
    user, password = login_of(server)
    client = await nats.connect(place_of(server), user=user, password=password)
    try:
        stream = client.jetstream()
        name = f"{config.nats.name}-events"
        count = (await stream.stream_info(name)).state.messages
        wanted = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        reader = await stream.pull_subscribe(f"{config.nats.name}.events.*", stream=name, config=wanted)
        messages: list[Message] = []
        while count > 0:
            for each in await reader.fetch(500, timeout=5):
                await each.ack()
                count -= 1
                headers = each.headers or {}
                events = [event.id for event in msgspec.json.decode(each.data, type=list[Event])]
                camera = each.subject.rpartition(".")[2]
                if camera == REVIEWS:
                    continue
                sequence = each.metadata.sequence.stream
                messages.append(Message(sequence, camera, headers[HOST], int(headers[TOKEN]), events))
        return messages
    finally:
        await client.close()


def check_one_owner(log: Log, expected: Collection[str]) -> None:
    """Check that every camera had one owner at a time, and the log holds each expected event once.

    A camera's messages must be, in the server's order, a sequence of ownerships: each begins with its owner's claim,
    whose token is higher than all before, and holds only that owner's events, with its token.  So the writes of each
    camera are those of one writer at a time: there is an order, that of the log, in which owners follow each other.
    """
    current: dict[str, Message] = {}
    for message in log.messages:
        owner = current.get(message.camera)
        if not message.events:
            assert owner is None or message.token > owner.token, f"{message} claimed after {owner}"
            current[message.camera] = message
        else:
            assert owner is not None, f"{message} without a claim"
            assert (message.host, message.token) == (owner.host, owner.token), f"{message} while {owner} owned it"
    written = [identity for message in log.messages for identity in message.events]
    assert len(written) == len(set(written)), "an event twice"
    missing = set(expected) - set(written)
    assert not missing, f"{len(missing)} events of {len(expected)} are missing"


def messages_of(printed: str) -> Log:
    return Log([Message(*line) for line in json.loads(printed)])


if __name__ == "__main__":
    print(json.dumps(Log.read(load(Path(sys.argv[1]))).messages))
