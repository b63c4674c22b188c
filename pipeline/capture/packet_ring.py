"""The newest packets of one camera, with the session's times, for clips of what was before an alert.  Pure.

In: packets as they are read, and of each decoded frame its stamp and its presentation time in the session.  Out: the
packets from a keyframe on, to any number of clips, each of which keeps its own place.  The ring is also their queue: it
never waits for a clip, and a clip whose disk is too slow misses what was overwritten.

The ring is bounded in bytes, and in seconds except that it holds at least one keyframe with all that follows: it drops
whole groups of pictures, the oldest first.  A group that alone exceeds the bytes is dropped, too, and the ring is empty
until the next keyframe.
"""

import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from pipeline.capture.source import CodedPacket

PACKET_BYTES = 500  # of the objects around a packet's data
TOLERANCE_S = 1e-3  # frames are at least as far apart


class TimedPacket(NamedTuple):
    """A packet with its times in the session, s: that of its frame (`FrameRef.pts_s`), and when it is to be decoded."""

    packet: CodedPacket
    pts_s: float
    decode_s: float | None


class Reading(NamedTuple):
    """Packets after a place in the ring, the next place, and how many were overwritten in between."""

    packets: Sequence[TimedPacket]
    place: int
    missed: int


class PacketRing:
    """Thread-safe; the thread that reads the camera appends, others read."""

    def __init__(self, max_s: float, max_bytes: int) -> None:
        self._max_s, self._max_bytes = max_s, max_bytes
        self._packets: deque[TimedPacket] = deque()
        self._pending: list[CodedPacket] = []  # whose times are not known yet
        self._keyframes: deque[int] = deque()  # their places
        self._first = 0  # place of the oldest packet
        self._bytes = 0
        self._is_open = False  # a keyframe came since packets were last lost
        self._lock = threading.Lock()

    def append(self, packet: CodedPacket) -> None:
        """Append a packet; those before the first keyframe are left out."""
        with self._lock:
            self._is_open = self._is_open or packet.is_keyframe
            if not self._is_open:
                return
            self._pending.append(packet)
            self._bytes += len(packet.data) + PACKET_BYTES
            self._drop_excess()

    def locate(self, stamp_s: float | None, pts_s: float) -> None:
        """Give the packets that were appended last their times, from a frame's stamp and its time in the session."""
        offset_s = None if stamp_s is None else pts_s - stamp_s
        with self._lock:
            for packet in self._pending:
                if packet.is_keyframe:
                    self._keyframes.append(self._end)
                self._packets.append(_timed(packet, stamp_s, pts_s, offset_s))
            self._pending.clear()
            self._drop_excess()

    def disconnected(self) -> None:
        """Forget the packets whose times are unknown: their stream has ended."""
        with self._lock:
            self._forget_pending()

    def place(self, first_pts_s: float, pre_s: float) -> int | None:
        """Return the place of the newest keyframe `pre_s` before the frame of a first detection, in its stream.

        Without one so old, return the oldest keyframe of that stream; None: there is no keyframe.
        """
        with self._lock:
            if not self._keyframes:
                return None
            until_s = first_pts_s + TOLERANCE_S
            newest = next((timed for timed in reversed(self._packets) if timed.pts_s <= until_s), self._packets[0])
            stream = newest.packet.stream
            keyframes = [(place, self._packets[place - self._first]) for place in self._keyframes]
            places = [(place, timed.pts_s) for place, timed in keyframes if timed.packet.stream is stream]
            before = [place for place, pts_s in places if pts_s <= first_pts_s - pre_s]
            return before[-1] if before else places[0][0]

    def since(self, place: int) -> Reading:
        """Return the packets from a place on, or from the oldest one where that was overwritten."""
        with self._lock:
            start = max(place, self._first)
            packets = tuple(islice(self._packets, start - self._first, None))
            return Reading(packets, self._end, start - place)

    @property
    def length_s(self) -> float:
        """Return the time between the oldest and the newest packet."""
        with self._lock:
            return self._packets[-1].pts_s - self._packets[0].pts_s if self._packets else 0.0

    @property
    def size_bytes(self) -> int:
        """Return the memory in use."""
        with self._lock:
            return self._bytes

    @property
    def _end(self) -> int:
        return self._first + len(self._packets)

    def _drop_excess(self) -> None:
        while len(self._keyframes) > 1 and (self._bytes > self._max_bytes or self._is_old_enough(self._keyframes[1])):
            self._drop_to(self._keyframes[1])
        if self._bytes > self._max_bytes:
            self._drop_to(self._end)
            self._forget_pending()

    def _is_old_enough(self, place: int) -> bool:
        return self._packets[-1].pts_s - self._packets[place - self._first].pts_s >= self._max_s

    def _drop_to(self, place: int) -> None:
        while self._first < place:
            self._bytes -= len(self._packets.popleft().packet.data) + PACKET_BYTES
            self._first += 1
        while self._keyframes and self._keyframes[0] < place:
            self._keyframes.popleft()

    def _forget_pending(self) -> None:
        self._bytes -= sum(len(packet.data) + PACKET_BYTES for packet in self._pending)
        self._pending.clear()
        self._is_open = False


def _timed(packet: CodedPacket, stamp_s: float | None, pts_s: float, offset_s: float | None) -> TimedPacket:
    if packet.stamp_s is None or offset_s is None:
        return TimedPacket(packet, pts_s, None)
    decode_s = None if packet.decode_stamp_s is None else packet.decode_stamp_s + offset_s
    return TimedPacket(packet, pts_s if packet.stamp_s == stamp_s else packet.stamp_s + offset_s, decode_s)
