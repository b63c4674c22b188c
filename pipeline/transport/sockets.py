"""ZeroMQ sockets, none without a limit on the messages that may wait in it."""

import zmq

from pipeline.transport.payloads import MAX_FRAME_BYTES

Socket = zmq.Socket[bytes]
MAX_PART_BYTES = MAX_FRAME_BYTES + (1 << 20)  # a peer that sends more is disconnected
FRAME_BUFFER_BYTES = 2 << 20  # of the kernel, which may allow less; a frame crosses with fewer thread switches


def bound(kind: int, endpoint: str, high_water: int, linger_ms: int = 0) -> Socket:
    """Return a bound socket.

    Args:
        kind: of ZeroMQ.
        endpoint: address.
        high_water: messages that may wait for each peer.
        linger_ms: how long closing waits for them to leave.
    """
    socket = unconnected(kind, high_water, linger_ms)
    socket.bind(endpoint)
    return socket


def connected(kind: int, endpoint: str, high_water: int, linger_ms: int = 0, *, patient: bool = False) -> Socket:
    """Return a connected socket; arguments as for `bound`.

    Nothing waits in it for an absent peer, except in a `patient` one, up to its high water.
    """
    socket = unconnected(kind, high_water, linger_ms)
    socket.setsockopt(zmq.IMMEDIATE, int(not patient))
    socket.connect(endpoint)
    return socket


def unconnected(kind: int, high_water: int, linger_ms: int) -> Socket:
    """Return a socket that is neither bound nor connected yet."""
    context: zmq.Context[Socket] = zmq.Context.instance()
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, linger_ms)
    socket.setsockopt(zmq.SNDHWM, high_water)
    socket.setsockopt(zmq.RCVHWM, high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_PART_BYTES)
    if kind in (zmq.DEALER, zmq.ROUTER):  # frames
        socket.setsockopt(zmq.SNDBUF, FRAME_BUFFER_BYTES)
        socket.setsockopt(zmq.RCVBUF, FRAME_BUFFER_BYTES)
    return socket
