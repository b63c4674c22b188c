"""The ring of packets: bounded, always from a keyframe on, with the session's times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clips import FPS, MJPEG, packet

from pipeline.capture.packet_ring import PACKET_BYTES, PacketRing
from pipeline.capture.source import CodedPacket, CodedStream

KB = 1000


def filled(count: int, group: int, max_s: float = 1e9, max_bytes: int = 10**9, size: int = KB) -> PacketRing:
    ring = PacketRing(max_s, max_bytes)
    for number in range(count):
        ring.append(packet(number, bytes(size), number % group == 0))
        ring.locate(number / FPS, 100 + number / FPS)
    return ring


def times(ring: PacketRing) -> list[float]:
    return [round((timed.pts_s - 100) * FPS) for timed in ring.since(0).packets]


def test_packets_get_the_session_s_times() -> None:
    ring = filled(3, 1)
    assert [timed.pts_s for timed in ring.since(0).packets] == [100 + number / FPS for number in range(3)]
    assert [timed.decode_s for timed in ring.since(0).packets] == [100 + number / FPS for number in range(3)]


def test_a_decoder_that_reorders_gives_all_their_times_at_its_first_frame() -> None:
    ring = PacketRing(10, 10**6)
    for shown, sent in ((0, -2), (3, -1), (1, 0), (2, 1)):
        ring.append(CodedPacket(MJPEG, b"x", shown / FPS, sent / FPS, shown == 0))
    assert ring.since(0).packets == () and ring.place(0, 0) is None
    ring.locate(0.0, 50.0)
    assert [round(timed.pts_s * FPS) for timed in ring.since(0).packets] == [1250, 1253, 1251, 1252]
    assert [round((timed.decode_s or 0) * FPS) for timed in ring.since(0).packets] == [1248, 1249, 1250, 1251]


def test_a_packet_without_a_stamp_has_the_time_of_its_frame() -> None:
    ring = PacketRing(10, 10**6)
    ring.append(CodedPacket(MJPEG, b"x", None, None, True))
    ring.locate(None, 7.5)
    assert ring.since(0).packets[0][1:] == (7.5, None)


def test_nothing_before_a_keyframe() -> None:
    ring = PacketRing(10, 10**6)
    ring.append(packet(0, key=False))
    ring.append(packet(1))
    ring.locate(1 / FPS, 1 / FPS)
    ring.append(packet(2, key=False))
    ring.disconnected()
    ring.append(packet(3, key=False))
    ring.locate(3 / FPS, 3 / FPS)
    assert len(ring.since(0).packets) == 1 and ring.size_bytes == KB + PACKET_BYTES


def test_whole_groups_are_dropped_by_time() -> None:
    ring = filled(100, 10, max_s=1.0)
    assert times(ring) == list(range(70, 100)), "one second, from the keyframe before it"
    assert ring.length_s == pytest.approx(29 / FPS)


def test_a_long_group_is_kept_as_long_as_it_fits() -> None:
    assert times(filled(100, 1000, max_s=1.0)) == list(range(100))
    ring = filled(100, 1000, max_bytes=50 * (KB + PACKET_BYTES))
    assert times(ring) == [] and ring.size_bytes == 0, "and only a keyframe opens it again"
    ring.append(packet(0))
    ring.locate(0.0, 0.0)
    assert len(ring.since(0).packets) == 1


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.booleans(), st.booleans()), max_size=80),
    st.integers(2000, 20_000), st.floats(0.1, 3),
)  # fmt: skip
def test_never_more_bytes_than_allowed_and_never_without_a_keyframe(
    packets: list[tuple[int, bool, bool]], max_bytes: int, max_s: float
) -> None:
    ring = PacketRing(max_s, max_bytes)
    place, seen = 0, 0
    for number, (size, key, is_shown) in enumerate(packets):
        ring.append(packet(number, bytes(size), key))
        assert 0 <= ring.size_bytes <= max_bytes
        if is_shown:
            ring.locate(number / FPS, number / FPS)
        held = ring.since(0).packets
        assert not held or held[0].packet.is_keyframe
        reading = ring.since(place)
        assert reading.place - place == len(reading.packets) + reading.missed
        assert not reading.missed or not reading.packets or reading.packets[0].packet.is_keyframe
        place, seen = reading.place, seen + len(reading.packets)
    assert seen <= len(packets)


def test_the_place_of_a_clip_is_a_keyframe_before_the_first_detection() -> None:
    ring = filled(100, 10)

    def start(frame: int, pre_s: float) -> float:
        place = ring.place(100 + frame / FPS, pre_s)
        assert place is not None
        return round((ring.since(place).packets[0].pts_s - 100) * FPS)

    assert [start(55, 0), start(55, 0.2), start(55, 0.4), start(50, 0), start(55, 60)] == [50, 50, 40, 50, 0]
    assert PacketRing(1, KB).place(0, 0) is None


def test_a_clip_starts_in_the_connection_of_its_first_detection() -> None:
    ring = filled(100, 10)
    second = CodedStream("mjpeg", (160, 128))
    ring.disconnected()
    for number in range(50):
        ring.append(packet(number, bytes(KB), number % 10 == 0, second))
        ring.locate(number / FPS, 110 + number / FPS)
    place = ring.place(110 + 15 / FPS, 5)
    assert place is not None and ring.since(place).packets[0].pts_s == 110.0
    place = ring.place(105.0, 0)
    assert place is not None and ring.since(place).packets[0].pts_s == 100 + 90 / FPS


def test_what_a_reader_missed_is_told() -> None:
    ring = filled(100, 10, max_s=1.0)
    reading = ring.since(5)
    assert reading.missed == 65 and reading.place == 100 and len(reading.packets) == 30
    assert ring.since(reading.place) == ((), 100, 0)
