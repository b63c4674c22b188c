"""A SAPIENT middleware that checks what the reference one does, and can be killed, deaf or unwilling."""

import importlib
import importlib.util
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import pytest

from support.program import free_port
from support.sapient_rules import Rules

needs_sapient = pytest.mark.skipif(
    importlib.util.find_spec("sapient_msg_pydantic") is None, reason="needs dasnet[sapient]"
)


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
        self.is_deaf = False  # reads nothing
        self._server: socketserver.ThreadingTCPServer | None = None
        self._sockets: list[socket.socket] = []
        self._rules = Rules()

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
                while self.is_deaf:
                    time.sleep(0.05)
                received_s = time.time()
                message = SapientMessage.FromString(_receive(connection, struct.unpack("<I", header)[0]))
                self.faults += self._rules.faults(message, received_s)
                self.messages.append(message)
                self._answer(connection, message)
        except OSError:
            pass

    def _answer(self, connection: socket.socket, message: Any) -> None:
        from sapient_msg.bsi_flex_335_v2_0.error_pb2 import Error
        from sapient_msg.bsi_flex_335_v2_0.registration_ack_pb2 import RegistrationAck
        from sapient_msg.bsi_flex_335_v2_0.sapient_message_pb2 import SapientMessage

        own: dict[str, Any] = {"node_id": "6a24a9c1-8214-415a-8927-50099e086ad4"}
        if message.WhichOneof("content") == "registration":
            if self.acceptance is not None:
                reason = [] if self.acceptance else ["no nodes of this kind"]
                ack = RegistrationAck(acceptance=self.acceptance, ack_response_reason=reason)
                _send(connection, SapientMessage(registration_ack=ack, **own))
        elif (text := self.refuse(message)) is not None:
            error = Error(packet=message.SerializeToString(), error_message=[text])
            _send(connection, SapientMessage(error=error, **own))

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
