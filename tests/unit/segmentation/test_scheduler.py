"""CreditScheduler: what the state machine of `test_credit_flow.py` leaves to examples."""

from typing import Any

import numpy as np

from pipeline.segmentation.scheduler import GRANT_TIMEOUT_S, CameraSession, CreditScheduler
from pipeline.transport.wire import Stamps
from pipeline.types import Band, Frame, FrameRef

ROUTER: Any = object()


def request(scheduler: CreditScheduler, *names: str, session: str = "s1") -> None:
    for name in names:
        scheduler.request(name, ROUTER, name.encode(), session)


def granted(scheduler: CreditScheduler, now_s: float = 0.0) -> list[str]:
    return [camera.name for camera in scheduler.grants(now_s)]


def reference(name: str, seq: int = 0, session: str = "s1") -> FrameRef:
    return FrameRef(name, session, seq, 0.0, 0, 0)


def send(scheduler: CreditScheduler, name: str, seq: int = 0) -> CameraSession:
    camera = scheduler.cameras[name]
    assert camera.granted
    ref = reference(name, seq, camera.session)
    scheduler.arrived(camera, Frame(ref, Band.VISIBLE, np.zeros((2, 2), np.uint8)), Stamps())
    return camera


def test_slots_are_granted_in_the_order_of_the_requests():
    scheduler = CreditScheduler(2)
    request(scheduler, "a", "b", "c", "a")
    assert granted(scheduler) == ["a", "b"] and granted(scheduler) == []
    a, b = send(scheduler, "a"), send(scheduler, "b")
    assert granted(scheduler) == [] and scheduler.waiting() == [a, b]
    scheduler.take(a)
    assert granted(scheduler) == ["c"] and scheduler.waiting() == [b]


def test_a_slot_is_not_reserved_for_ever():
    scheduler = CreditScheduler(1)
    request(scheduler, "hung", "b")
    assert granted(scheduler, 1.0) == ["hung"] and granted(scheduler, 1.0 + GRANT_TIMEOUT_S / 2) == []
    assert granted(scheduler, 1.0 + GRANT_TIMEOUT_S) == ["b"]
    late = send(scheduler, "hung")  # its frame is accepted all the same
    send(scheduler, "b")
    assert scheduler.waiting() == [late]


def test_a_camera_that_is_alone_need_not_request_credit_again():
    scheduler = CreditScheduler(1)
    request(scheduler, "a")
    assert granted(scheduler) == ["a"]
    scheduler.take(send(scheduler, "a"))
    scheduler.finished(scheduler.cameras["a"], reference("a"))
    assert scheduler.cameras["a"].granted


def test_a_new_session_replaces_the_old_one():
    scheduler = CreditScheduler(1)
    request(scheduler, "a", "b")
    assert granted(scheduler) == ["a"]
    old = send(scheduler, "a")
    request(scheduler, "a", session="s2")
    assert scheduler.waiting() == [] and scheduler.cameras["a"] is not old
    assert granted(scheduler, 1.0) == ["b"] and granted(scheduler, 2.0) == ["a"]


def test_credit_on_its_way_is_not_withdrawn_when_an_earlier_frame_ends():
    scheduler = CreditScheduler(1, frames_per_camera=2)
    request(scheduler, "a")
    assert granted(scheduler) == ["a"]
    scheduler.take(send(scheduler, "a", 0))
    request(scheduler, "a")
    assert granted(scheduler) == ["a"]
    request(scheduler, "b")
    scheduler.finished(scheduler.cameras["a"], reference("a", 0))
    assert scheduler.cameras["a"].granted
    a = send(scheduler, "a", 1)
    scheduler.finished(a, reference("a", 1))
    assert a.waiting is None and scheduler.waiting() == []


def test_a_frame_that_arrives_right_after_another_was_taken_waits_once():
    scheduler = CreditScheduler(2, frames_per_camera=2)
    request(scheduler, "a")
    assert granted(scheduler) == ["a"]
    [a] = [send(scheduler, "a", 0)]
    assert scheduler.waiting() == [a]
    scheduler.take(a)
    request(scheduler, "a")
    assert granted(scheduler) == ["a"]
    send(scheduler, "a", 1)
    assert scheduler.waiting() == [a]
