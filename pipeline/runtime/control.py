"""The control channel: a socket pair between the supervisor and each worker, which inherits it as standard input.

    supervisor -> worker: Handover   the configuration as the supervisor read, expanded and validated it: before the
                                     worker starts, and again at each reload
    worker -> supervisor: Applied    that configuration is in use
                          Finished   a recording was read to its end, or as far as possible
                          Captures   the cameras that this host owns, of those that several hosts share
    end of file:          the supervisor is gone

A worker reads no configuration file: a file that is being edited can neither prevent its restart nor give it another
configuration than the other workers have.  The configuration is written to an anonymous file, whose descriptor is
passed: its secrets are on no command line, in no environment and in no named file, and handing it over never blocks.
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

MAX_MESSAGE_BYTES = 1 << 17  # the names of a thousand cameras
FROM_SUPERVISOR = "-"  # in place of the configuration's path: read it from standard input

Changes = Callable[[], Iterable[Config]]  # see `Control.changes`; `tuple` where there are none


class Handover(msgspec.Struct, tag="handover"):
    """supervisor -> worker: the configuration, whose file descriptor is passed along."""

    run: str  # id, new at each start of the supervisor
    number: int  # of the configuration; increases


class Applied(msgspec.Struct, tag="applied"):
    """worker -> supervisor: the configuration of this number is in use."""

    number: int


class Finished(msgspec.Struct, tag="finished"):
    """worker -> supervisor: the recording was read to its end, or as far as possible where it is broken."""

    broken: bool


class Captures(msgspec.Struct, tag="captures"):
    """worker -> supervisor: the cameras that this host owns; no other is captured here."""

    cameras: list[str]


Reply = Applied | Finished | Captures

_encoder = msgspec.msgpack.Encoder()
_handover_decoder = msgspec.msgpack.Decoder(Handover)
_reply_decoder = msgspec.msgpack.Decoder(Reply)


class SupervisorEnd:
    """The supervisor's end; `worker_end` becomes the standard input of the worker, and is closed here then."""

    def __init__(self) -> None:
        self._socket, self.worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)

    def hand_over(self, run: str, number: int, config: Config) -> None:
        """Send a configuration to the worker.  Raise OSError where it is gone."""
        with os.fdopen(os.memfd_create("configuration"), "wb") as file:
            pickle.dump(config, file)
            file.flush()
            socket.send_fds(self._socket, [_encoder.encode(Handover(run, number))], [file.fileno()])

    def received(self) -> Iterator[Reply]:
        """Yield what the worker has sent since the last call; also after it ended."""
        while True:
            try:
                data = self._socket.recv(MAX_MESSAGE_BYTES)
            except OSError:  # nothing more, or the worker is gone
                return
            if not data:
                return
            yield _reply_decoder.decode(data)

    def close(self) -> None:
        """Close the supervisor's end."""
        self._socket.close()


class Control:
    """The worker's end.  A worker that was started alone has the configuration, and no other end."""

    def __init__(self, config: Config, run: str = "", end: socket.socket | None = None) -> None:
        self.config = config
        self.run = run
        self._end = end
        self._waiting: deque[tuple[int, Config]] = deque()

    @classmethod
    def inherited(cls) -> Self:
        """Take the worker's end from standard input, which is empty from then on.  Raise ConfigError."""
        try:
            end = socket.socket(fileno=os.dup(0))
            handover, config = _receive(end)
        except (OSError, EOFError, msgspec.DecodeError):
            raise ConfigError(
                f"CONFIG {FROM_SUPERVISOR!r}: is reserved for the supervisor, which hands the configuration over on "
                "standard input; expected the site's YAML file"
            ) from None
        with Path(os.devnull).open("rb") as empty:
            os.dup2(empty.fileno(), 0)
        return cls(config, handover.run, end)

    def follow(self, supervisor_gone: Callable[[], None]) -> None:
        """Start a thread that receives configurations; it calls `supervisor_gone` at the end of the channel."""
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
        """Yield the configurations handed over since the last call; each is reported as applied after its iteration."""
        while self._waiting:
            number, self.config = self._waiting.popleft()
            remember(self.config.secrets)
            yield self.config
            self._send(Applied(number))

    def finished(self, *, broken: bool) -> None:
        """Report that the recording has ended: the worker is about to end, and must not be replaced."""
        self._send(Finished(broken))

    def captures(self, cameras: Iterable[str]) -> None:
        """Report the cameras that this host owns, of those that several hosts share."""
        self._send(Captures(list(cameras)))

    def _send(self, message: Reply) -> None:
        if self._end is not None:
            try:
                self._end.send(_encoder.encode(message))
            except OSError:  # the supervisor is gone, which `follow` detects
                return


def _receive(end: socket.socket) -> tuple[Handover, Config]:
    """Wait for the next configuration.  Raise EOFError where the supervisor is gone."""
    data, descriptors, _, _ = socket.recv_fds(end, MAX_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    if not data or not descriptors:
        raise EOFError
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)  # both ends share the file's position
        config: Config = pickle.load(file)
    return _handover_decoder.decode(data), config
