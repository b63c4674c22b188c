"""The control channel: a socket pair between the supervisor and each worker, which inherits it as standard input.

    supervisor -> worker: Handover   the configuration as the supervisor read, expanded and validated it: before the
                                     worker starts, and again at each reload
    worker -> supervisor: Applied    that configuration is in use
                          Finished   a recording was read to its end, or as far as it can be
    end of file:          the supervisor is gone

A worker reads no configuration file: one that is being edited cannot keep it from coming back, nor give it another
site than its neighbours'.  The configuration travels in an anonymous file, whose descriptor is passed: its secrets are
on no command line, in no environment and in no file that has a name, and handing it over never blocks.
"""

import os
import pickle
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

import msgspec

from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.redaction import remember

MAX_MESSAGE_BYTES = 1024
FROM_SUPERVISOR = "-"  # in place of the configuration's path: on standard input

Changes = Callable[[], Iterable[Config]]  # see `Control.changes`; `tuple` where there are none


class Handover(msgspec.Struct, tag="handover"):
    run: str  # the supervisor's, new at each of its starts
    number: int  # of the configuration; rises


class Applied(msgspec.Struct, tag="applied"):
    number: int


class Finished(msgspec.Struct, tag="finished"):
    broken: bool


_encoder = msgspec.msgpack.Encoder()
_handover = msgspec.msgpack.Decoder(Handover)
_answer = msgspec.msgpack.Decoder(Applied | Finished)


class SupervisorEnd:
    """`worker_end` becomes the standard input of the worker, and is closed here then."""

    def __init__(self) -> None:
        self._socket, self.worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)

    def hand_over(self, run: str, number: int, config: Config) -> None:
        """Raises OSError where the worker is gone."""
        with os.fdopen(os.memfd_create("configuration"), "wb") as file:
            pickle.dump(config, file)
            file.flush()
            socket.send_fds(self._socket, [_encoder.encode(Handover(run, number))], [file.fileno()])

    def received(self) -> Iterator[Applied | Finished]:
        """What the worker has said since; also after it ended."""
        while True:
            try:
                data = self._socket.recv(MAX_MESSAGE_BYTES)
            except OSError:  # nothing more, or the worker is gone
                return
            if not data:
                return
            yield _answer.decode(data)

    def close(self) -> None:
        self._socket.close()


class Control:
    """The worker's end.  A worker that was started alone has the configuration, and nobody at the other end."""

    def __init__(self, config: Config, run: str = "", end: socket.socket | None = None) -> None:
        self.config = config
        self.run = run
        self._end = end
        self._waiting: deque[tuple[int, Config]] = deque()

    @classmethod
    def inherited(cls) -> Self:
        """From standard input, which is empty from then on.  Raises ConfigError."""
        try:
            end = socket.socket(fileno=os.dup(0))
            handover, config = _receive(end)
        except (OSError, EOFError, msgspec.DecodeError):
            raise ConfigError(
                f"CONFIG {FROM_SUPERVISOR!r}: is for the supervisor, which hands the configuration over on standard "
                "input; expected the site's YAML file"
            ) from None
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        return cls(config, handover.run, end)

    def follow(self, supervisor_gone: Callable[[], None]) -> None:
        """From now on, in a thread of its own."""
        if self._end is not None:
            threading.Thread(
                target=self._follow, args=(self._end, supervisor_gone), name="control", daemon=True
            ).start()

    def _follow(self, end: socket.socket, supervisor_gone: Callable[[], None]) -> None:
        try:
            while True:
                handover, config = _receive(end)
                self._waiting.append((handover.number, config))
        except (OSError, EOFError):
            supervisor_gone()

    def changes(self) -> Iterator[Config]:
        """Configurations that were handed over since.  One counts as applied when the next is asked for."""
        while self._waiting:
            number, self.config = self._waiting.popleft()
            remember(self.config.secrets)
            yield self.config
            self._say(Applied(number))

    def finished(self, *, broken: bool) -> None:
        """The worker is about to end, for its recording has ended: it shall not be replaced."""
        self._say(Finished(broken))

    def _say(self, message: Applied | Finished) -> None:
        if self._end is not None:
            try:
                self._end.send(_encoder.encode(message))
            except OSError:  # the supervisor is gone, which `follow` notices
                return


def _receive(end: socket.socket) -> tuple[Handover, Config]:
    """Blocks.  Raises EOFError where the supervisor is gone."""
    data, descriptors, _, _ = socket.recv_fds(end, MAX_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    if not data or not descriptors:
        raise EOFError
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)  # the writer's position is ours
        config: Config = pickle.load(file)
    return _handover.decode(data), config
