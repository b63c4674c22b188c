"""The connection of one SAPIENT node: registered, acknowledged, and its replies read.

In: protobuf messages.  Out: the same, each after its length as 4 bytes, little-endian, over TCP; the texts of Error
replies.  Tasks are answered that none is taken.
"""

import struct
import time
from collections.abc import Iterator
from contextlib import suppress

from google.protobuf.message import DecodeError
from sapient_msg.bsi_flex_335_v2_0.sapient_message_pb2 import SapientMessage

from pipeline.config.tactical import SapientSinkConfig
from pipeline.sinks.camera_states import camera_state
from pipeline.sinks.connection import connected
from pipeline.sinks.sapient_messages import Node
from pipeline.sinks.sink import SinkError
from pipeline.types import Event

ACKNOWLEDGE_TIMEOUT_S = 10.0  # of a registration
MAX_MESSAGE_BYTES = 1 << 20
_LENGTH = struct.Struct("<I")


class NodeLink:
    """A registered node.  Raise SinkError where the other end is not there or refuses the registration."""

    def __init__(self, entry: SapientSinkConfig, node: Node) -> None:
        self.node = node
        self.reported_s = float("-inf")  # when its status was sent last, of the monotonic clock
        self._state = ""  # of its camera, as it was reported last
        self.seen_ns = 0  # time of the newest frame whose detections were sent
        self._received = b""
        self._errors: list[str] = []
        self._is_accepted: bool | None = None
        self._stream = connected(entry)
        try:
            self._register()
        except BaseException:
            self._stream.close()
            raise

    @property
    def place(self) -> str:
        """The other end and the node, for errors."""
        return f"{self._stream.place}, node of camera {self.node.camera}"

    def status(self, camera_event: Event | None, time_ns: int) -> bytes:
        """Return the next status: a new one where it differs from the last, which a middleware compares."""
        before, self._state = self._state, camera_state(camera_event)
        return self.node.status(camera_event, self._state != before, time_ns)

    def send(self, content: bytes) -> None:
        """Send a message.  Raise SinkError."""
        self._stream.send(_LENGTH.pack(len(content)) + content)

    def flush(self) -> None:
        """Wait until the other host has everything.  Raise SinkError."""
        self._stream.flush()

    def errors(self, wait_s: float = 0.0) -> list[str]:
        """Return the texts of the Error replies that came since.  Raise SinkError where the connection is closed."""
        self._read(wait_s)
        errors, self._errors = self._errors, []
        return errors

    def close(self) -> None:
        """Say goodbye, and disconnect."""
        with suppress(SinkError):
            self.send(self.node.goodbye(time.time_ns()))
        self._stream.close()

    def _register(self) -> None:
        self.send(self.node.registration(time.time_ns()))
        end_s = time.monotonic() + ACKNOWLEDGE_TIMEOUT_S
        while self._is_accepted is None and not self._errors:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise SinkError(f"{self.place}: registration not acknowledged within {ACKNOWLEDGE_TIMEOUT_S:g} s")
            self._read(left_s)
        if not self._is_accepted:
            raise SinkError(f"{self.place}: registration refused ({'; '.join(self._errors) or 'no reason given'})")

    def _read(self, wait_s: float) -> None:
        self._received += self._stream.receive(wait_s)
        for message in self._messages():
            match message.WhichOneof("content"):
                case "registration_ack":
                    self._is_accepted = message.registration_ack.acceptance
                    if not self._is_accepted:
                        self._errors += message.registration_ack.ack_response_reason
                case "error":
                    self._errors += message.error.error_message or ["error without a text"]
                case "task":
                    self.send(self.node.task_rejected(message.task.task_id, time.time_ns()))

    def _messages(self) -> Iterator[SapientMessage]:
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            if length > MAX_MESSAGE_BYTES:
                raise SinkError(f"{self.place}: reply of {length} bytes; expected at most {MAX_MESSAGE_BYTES}")
            end = _LENGTH.size + length
            if len(self._received) < end:
                return
            content, self._received = self._received[_LENGTH.size : end], self._received[end:]
            try:
                yield SapientMessage.FromString(content)
            except DecodeError as error:
                raise SinkError(f"{self.place}: reply is no SAPIENT message ({error})") from None
