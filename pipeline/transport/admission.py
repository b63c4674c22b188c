"""Who may connect: answers what ZeroMQ asks of each key that comes to an encrypted socket (ZAP, ZeroMQ RFC 27).

pyzmq brings such a thread too, on an event loop of its own; it was seen not to end.
"""

import threading
from collections.abc import Callable

import zmq
from zmq.utils import z85

from pipeline.transport.sockets import made

ADDRESS = "inproc://zeromq.zap.01"  # where libzmq asks, one a process
LOOK_MS = 200
KEY_BYTES = 32


class Admission:
    """From now on until `close`.  `admit` is given a public key, Z85, in a thread of its own.

    The key of who is let in is the "User-Id" of its messages.
    """

    def __init__(self, admit: Callable[[bytes], bool]) -> None:
        self._admit = admit
        self._stop = threading.Event()
        self._socket = made(zmq.REP, 64, 0)
        self._socket.bind(ADDRESS)
        self._thread = threading.Thread(target=self._run, name="admission", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(LOOK_MS):
                version, request, _domain, _address, _identity, mechanism, *credentials = self._socket.recv_multipart()
                key = z85.encode(credentials[0]) if mechanism == b"CURVE" and len(credentials[0]) == KEY_BYTES else b""
                verdict = [b"200", b"OK", key] if key and self._admit(key) else [b"400", b"unknown key", b""]
                self._socket.send_multipart([version, request, *verdict, b""])
        self._socket.close()
