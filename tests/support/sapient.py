"""A SAPIENT middleware that checks what the reference one does, and can be killed, deaf or unwilling."""

import importlib
import importlib.util
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import pytest

from support.program import free_port

needs_sapient = pytest.mark.skipif(
    importlib.util.find_spec("sapient_msg_pydantic") is None, reason="needs dasnet[sapient]"
)

UUID_4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
WINDOW_S = (-0.9, 0.1)
GAP_S = 0.08


class Middleware:
    """`with Middleware() as middleware:`.

    Attributes:
        messages: all that came, decoded.
        faults: what the reference middleware would have complained of.
        refuse: called with each message but registrations; the text of an Error, or None.
        acceptance: of registrations; None: no answer.
    """

    def __init__(self) -> None:
        importlib.import_module("sapient_msg_pydantic.bsi_flex_335_v2_0.sapient_message")  # not while a message waits
        self.port = free_port()
        self.messages: list[Any] = []
        self.faults: list[str] = []
        self.refuse: Callable[[Any], str | None] = lambda _: None
        self.acceptance: bool | None = True
        self._server: socketserver.ThreadingTCPServer | None = None
        self._sockets: list[socket.socket] = []
        self._detected_s: dict[str, float] = {}

    def of(self, content: str) -> list[Any]:
        return [message for message in list(self.messages) if message.WhichOneof("content") == content]

    def goodbyes(self) -> int:
        reports = [message.status_report for message in self.of("status_report")]
        return sum(each.system == each.SYSTEM_GOODBYE for each in reports)

    def tell(self, **content: Any) -> None:
        """Send a message to every node."""
        from sapient_msg.bsi_flex_335_v2_0.sapient_message_pb2 import SapientMessage

        for each in self._sockets:
            _send(each, SapientMessage(node_id="6a24a9c1-8214-415a-8927-50099e086ad4", **content))

    def start(self) -> None:
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._sockets.append(self.request)
                outer._serve(self.request)

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        server = socketserver.ThreadingTCPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self._server = server

    def kill(self) -> None:
        """As a killed process: what was not read is lost, and the connections are reset."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        for each in self._sockets:
            try:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RD)
                each.close()
            except OSError:
                pass
        self._sockets.clear()

    def _serve(self, connection: socket.socket) -> None:
        from sapient_msg.bsi_flex_335_v2_0.sapient_message_pb2 import SapientMessage

        try:
            while header := _receive(connection, 4):
                received_s = time.time()
                message = SapientMessage.FromString(_receive(connection, struct.unpack("<I", header)[0]))
                self._check(message, received_s)
                self.messages.append(message)
                self._answer(connection, message)
        except OSError:
            pass

    def _answer(self, connection: socket.socket, message: Any) -> None:
        from sapient_msg.bsi_flex_335_v2_0.error_pb2 import Error
        from sapient_msg.bsi_flex_335_v2_0.registration_ack_pb2 import RegistrationAck
        from sapient_msg.bsi_flex_335_v2_0.sapient_message_pb2 import SapientMessage

        own = {"node_id": "6a24a9c1-8214-415a-8927-50099e086ad4"}
        if message.WhichOneof("content") == "registration":
            if self.acceptance is not None:
                reason = [] if self.acceptance else ["no nodes of this kind"]
                ack = RegistrationAck(acceptance=self.acceptance, ack_response_reason=reason)
                _send(connection, SapientMessage(registration_ack=ack, **own))
        elif (text := self.refuse(message)) is not None:
            error = Error(packet=message.SerializeToString(), error_message=[text])
            _send(connection, SapientMessage(error=error, **own))

    def _check(self, message: Any, received_s: float) -> None:
        """The reference middleware's rules, in its own default configuration."""
        from sapient_msg_pydantic.bsi_flex_335_v2_0.sapient_message import SapientMessage as Model

        content = message.WhichOneof("content")
        try:
            Model.from_pb2(message)  # mandatory fields, ids
        except ValueError as error:
            self.faults.append(f"{content}: {error}")
        if not UUID_4.fullmatch(message.node_id):
            self.faults.append(f"{content}: node_id {message.node_id}")
        sent_s = message.timestamp.ToNanoseconds() / 1e9
        if not WINDOW_S[0] <= sent_s - received_s <= WINDOW_S[1]:
            self.faults.append(f"{content}: time {sent_s - received_s:+.2f} s")
        if content == "detection_report":
            before_s = self._detected_s.get(message.node_id, 0.0)
            self._detected_s[message.node_id] = sent_s
            if before_s != sent_s and sent_s - before_s < GAP_S:
                self.faults.append(f"detection {sent_s - before_s:.3f} s after the one before")
            if not ULID.fullmatch(message.detection_report.object_id):
                self.faults.append(f"object_id {message.detection_report.object_id}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _send(connection: socket.socket, message: Any) -> None:
    message.timestamp.GetCurrentTime()
    content = message.SerializeToString()
    connection.sendall(struct.pack("<I", len(content)) + content)


def _receive(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            return b""
        content += part
    return content
