"""Sockets with their bounds: none is opened without a limit on what may wait in it."""

import zmq

from pipeline.transport.wire import MAX_PIXELS

Socket = zmq.Socket[bytes]
MAX_PART_BYTES = MAX_PIXELS + (1 << 20)  # a peer that sends more is cut off
FRAME_BUFFER_BYTES = 2 << 20  # of the kernel, which may allow less: a frame then crosses in fewer turns of two threads


def bound(kind: int, endpoint: str, high_water: int, linger_ms: int = 0) -> Socket:
    """`high_water`: messages that may wait for each peer; `linger_ms`: how long closing waits for them to leave."""
    socket = made(kind, high_water, linger_ms)
    socket.bind(endpoint)
    return socket


def connected(kind: int, endpoint: str, high_water: int, linger_ms: int = 0, *, patient: bool = False) -> Socket:
    """Nothing waits in it for a peer that is not there, but in a `patient` one, up to its high water."""
    socket = made(kind, high_water, linger_ms)
    socket.setsockopt(zmq.IMMEDIATE, int(not patient))
    socket.connect(endpoint)
    return socket


def made(kind: int, high_water: int, linger_ms: int) -> Socket:
    """Neither bound nor connected yet."""
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
