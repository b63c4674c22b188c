"""An HTTP server that takes webhooks and misbehaves on demand: it fails, hangs, refuses, goes away and comes back."""

import contextlib
import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

Answer = int | str  # a status; "hang": no answer; "drip": one without an end; "break": the connection is closed


class Request(NamedTuple):
    """What was posted."""

    headers: dict[str, str]
    body: bytes
    answer: Answer
    path: str

    @property
    def events(self) -> list[dict[str, Any]]:
        content = json.loads(self.body)
        return content if isinstance(content, list) else [content]


class Receiver:
    """`with Receiver() as receiver:`; `answers` are given first, then what `judge` says of a request's events."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.answers: deque[Answer] = deque()
        self.judge: Callable[[Any], Answer] = lambda _: 204
        self.read: Callable[[bytes], Any] = json.loads  # what `judge` is told
        self.extra_headers: dict[str, str] = {}  # of answers
        self._tls = tls
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._connections: set[socket.socket] = set()
        self._port = 0

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}/in/s3cr3tT0ken"

    @property
    def accepted(self) -> list[str]:
        """The ids of the events that were accepted, in order, each time."""
        taken = [request for request in self.requests if request.answer in (200, 204)]
        return [event["id"] for request in taken for event in request.events]

    def go(self) -> None:
        self._released.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def come(self) -> None:
        self._released.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._server.daemon_threads = True
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                receiver._connections.add(self.connection)

            def finish(self) -> None:
                receiver._connections.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:  # the sender was killed
                    return
                answer = receiver.answers.popleft() if receiver.answers else receiver.judge(receiver.read(body))
                receiver.requests.append(Request(dict(self.headers), body, answer, self.path))
                if answer == "hang":
                    receiver._released.wait(30)
                if not isinstance(answer, int):
                    self.close_connection = True
                if answer == "drip":
                    self.send_response(200)
                    self.send_header("Content-Length", str(10**9))
                    self.end_headers()
                    while not receiver._released.wait(0.05):
                        self.wfile.write(b"x")
                if isinstance(answer, int):
                    self.send_response(answer)
                    self.send_header("Content-Length", "2")
                    self.send_header("Location", receiver.url)
                    for name, value in receiver.extra_headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    if answer != 204:
                        self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def __enter__(self) -> Self:
        self.come()
        return self

    def __exit__(self, *_: object) -> None:
        self.go()
