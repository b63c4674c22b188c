"""What a socket may meet: random bytes, and real messages that were changed at random.  Seeded, hence repeatable."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

EXTREMES = (
    None,
    True,
    -1,
    0,
    2**63,
    2**64 - 1,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 300,
    b"\xff",
    [],
    {},
    [[]],
)


def garbage(seed: int, real: list[list[bytes]], count: int) -> Iterator[list[bytes]]:
    """`real`: multipart messages that the socket understands; half of what comes is made from them."""
    random_ = random.Random(seed)
    ways = (_random_parts, _random_body, _flipped, _cut, _extreme, _extreme, _extreme, _nested)
    for number in range(count):
        yield ways[number % len(ways)](random_, random_.choice(real))


def _random_parts(random_: random.Random, _: list[bytes]) -> list[bytes]:
    return [random_.randbytes(random_.randrange(60)) for _ in range(random_.randint(1, 5))]


def _random_body(random_: random.Random, real: list[bytes]) -> list[bytes]:
    return [real[0], random_.randbytes(random_.randrange(200)), *real[2:]]


def _flipped(random_: random.Random, real: list[bytes]) -> list[bytes]:
    changed = bytearray(real[1])
    changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return [real[0], bytes(changed), *real[2:]]


def _cut(random_: random.Random, real: list[bytes]) -> list[bytes]:
    part = random_.randrange(len(real))
    return [*real[:part], real[part][: random_.randrange(len(real[part]) + 1)], *real[part + 1 :]]


def _extreme(random_: random.Random, real: list[bytes]) -> list[bytes]:
    """One value of the message, anywhere in it, is of another type or impossibly large."""
    tree = msgspec.msgpack.decode(real[1])
    found: list[Callable[[Any], None]] = []
    places(tree, found)
    random_.choice(found)(random_.choice(EXTREMES))
    return [real[0], msgspec.msgpack.encode(tree), *real[2:]]


def _nested(random_: random.Random, real: list[bytes]) -> list[bytes]:
    """Lists in lists, deeper than a stack may be."""
    return [real[0], b"\x82\xa4type\xa5hello\xa1x" + b"\x91" * random_.choice((10, 5000)) + b"\xc0", *real[2:]]


def places(tree: Any, found: list[Callable[[Any], None]]) -> None:
    """Append, for each value anywhere in the tree, what replaces it."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if key != "type":  # the message's own kind: another is refused at once
            found.append(lambda changed, key=key: tree.__setitem__(key, changed))
        if isinstance(value, dict | list):
            places(value, found)


def as_bytes(message: list[Any]) -> list[bytes]:
    return [bytes(part) for part in message]
