"""Frames of a live camera that wait for credit: a moment's delay loses none, a lasting one leaves the newest."""

import numpy as np

from pipeline.transport.frame_queue import BRIDGED, CALM_NS, FrameQueue
from pipeline.transport.wire import Stamps
from pipeline.types import Band, Frame, FrameRef

PIXELS = np.zeros((2, 2), np.uint8)


def put(mailbox: FrameQueue, seq: int, at_ms: float) -> int:
    ref = FrameRef("north", "s1", seq, at_ms / 1e3, round(at_ms * 1e6), 0)
    return mailbox.put(Frame(ref, Band.INFRARED, PIXELS), Stamps())


def test_frames_wait_in_their_order():
    mailbox = FrameQueue(0.4)
    assert [put(mailbox, seq, 40 * seq) for seq in range(BRIDGED)] == [0] * BRIDGED
    assert [mailbox.take()[0].ref.seq for _ in range(BRIDGED)] == list(range(BRIDGED)) and not mailbox


def test_too_many_leave_the_newest():
    mailbox = FrameQueue(0.4)
    for seq in range(BRIDGED):
        put(mailbox, seq, seq)
    assert put(mailbox, BRIDGED, BRIDGED) == BRIDGED
    assert len(mailbox) == 1 and mailbox.take()[0].ref.seq == BRIDGED


def test_a_slow_cameras_frames_do_not_grow_old():
    mailbox = FrameQueue(0.1)
    assert [put(mailbox, seq, 200 * seq) for seq in range(3)] == [0, 1, 1]
    assert mailbox.take()[0].ref.seq == 2


def test_after_a_loss_only_the_newest_waits_until_all_is_calm():
    mailbox = FrameQueue(0.4)
    for seq in range(BRIDGED + 1):
        put(mailbox, seq, 40 * seq)
    mailbox.take()
    lost_ms, calm_ms = 40 * BRIDGED, CALM_NS / 1e6
    assert put(mailbox, 10, lost_ms + calm_ms / 2) == 0
    assert put(mailbox, 11, lost_ms + calm_ms / 2 + 40) == 1
    again_ms = lost_ms + calm_ms / 2 + 40 + calm_ms
    mailbox.take()
    assert put(mailbox, 12, again_ms - 1) == 0 and put(mailbox, 13, again_ms) == 0
    assert len(mailbox) == 2 and mailbox.clear() == 2 and not mailbox
