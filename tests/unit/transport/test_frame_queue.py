"""FrameQueue: a short stall drops no frame, sustained overload keeps the newest.  See `test_credit_flow.py` too."""

import numpy as np

from pipeline.transport.frame_queue import MAX_FRAMES, RECOVERY_NS, FrameQueue
from pipeline.transport.wire import Stamps
from pipeline.types import Band, Frame, FrameRef

PIXELS = np.zeros((2, 2), np.uint8)


def put(queue: FrameQueue, seq: int, at_ms: float) -> int:
    ref = FrameRef("north", "s1", seq, at_ms / 1e3, round(at_ms * 1e6), 0)
    return queue.put(Frame(ref, Band.INFRARED, PIXELS), Stamps())


def test_frames_wait_in_their_order():
    queue = FrameQueue(0.4)
    assert [put(queue, seq, 40 * seq) for seq in range(MAX_FRAMES)] == [0] * MAX_FRAMES
    assert [queue.take()[0].ref.seq for _ in range(MAX_FRAMES)] == list(range(MAX_FRAMES)) and not queue


def test_a_full_queue_keeps_the_newest():
    queue = FrameQueue(0.4)
    for seq in range(MAX_FRAMES):
        put(queue, seq, seq)
    assert put(queue, MAX_FRAMES, MAX_FRAMES) == MAX_FRAMES
    assert len(queue) == 1 and queue.take()[0].ref.seq == MAX_FRAMES


def test_a_slow_camera_s_frames_do_not_grow_old():
    queue = FrameQueue(0.1)
    assert [put(queue, seq, 200 * seq) for seq in range(3)] == [0, 1, 1]
    assert queue.take()[0].ref.seq == 2


def test_after_a_drop_only_the_newest_waits_until_the_queue_has_recovered():
    queue = FrameQueue(0.4)
    for seq in range(MAX_FRAMES + 1):
        put(queue, seq, 40 * seq)
    queue.take()
    dropped_ms, recovery_ms = 40 * MAX_FRAMES, RECOVERY_NS / 1e6
    assert put(queue, 10, dropped_ms + recovery_ms / 2) == 0
    assert put(queue, 11, dropped_ms + recovery_ms / 2 + 40) == 1
    recovered_ms = dropped_ms + recovery_ms / 2 + 40 + recovery_ms
    queue.take()
    assert put(queue, 12, recovered_ms - 1) == 0 and put(queue, 13, recovered_ms) == 0
    assert len(queue) == 2 and queue.clear() == 2 and not queue
