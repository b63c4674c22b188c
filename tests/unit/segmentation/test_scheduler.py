"""CreditScheduler: who is given credit, in which order, and how many at a time."""

from typing import Any

import numpy as np

from pipeline.segmentation.scheduler import GRANT_S, Camera, CreditScheduler
from pipeline.transport.wire import Stamps
from pipeline.types import Band, Frame, FrameRef

DOOR: Any = object()


def ask(turns: CreditScheduler, *names: str, session: str = "s1") -> None:
    for name in names:
        turns.ask(name, DOOR, name.encode(), session)


def granted(turns: CreditScheduler, now_s: float = 0.0) -> list[str]:
    return [camera.name for camera in turns.grants(now_s)]


def reference(name: str, seq: int = 0, session: str = "s1") -> FrameRef:
    return FrameRef(name, session, seq, 0.0, 0, 0)


def send(turns: CreditScheduler, name: str, seq: int = 0) -> Camera:
    camera = turns.cameras[name]
    assert camera.granted
    ref = reference(name, seq, camera.session)
    turns.arrived(camera, Frame(ref, Band.VISIBLE, np.zeros((2, 2), np.uint8)), Stamps())
    return camera


def with_credit_for_a_second_frame() -> CreditScheduler:
    """The first of camera a is with the device."""
    turns = CreditScheduler(1, most=2)
    ask(turns, "a")
    assert granted(turns) == ["a"]
    turns.take(send(turns, "a", 0))
    ask(turns, "a")
    assert granted(turns) == ["a"]
    return turns


def test_places_are_given_in_the_order_of_asking_and_not_before_one_is_free():
    turns = CreditScheduler(2)
    ask(turns, "a", "b", "c", "a")
    assert granted(turns) == ["a", "b"] and granted(turns) == []
    a, b = send(turns, "a"), send(turns, "b")
    assert granted(turns) == [] and turns.waiting() == [a, b]
    turns.take(a)
    assert granted(turns) == ["c"] and turns.waiting() == [b]


def test_a_place_is_not_kept_for_ever():
    turns = CreditScheduler(1)
    ask(turns, "hung", "b")
    assert granted(turns, 1.0) == ["hung"] and granted(turns, 1.0 + GRANT_S / 2) == []
    assert granted(turns, 1.0 + GRANT_S) == ["b"]
    late = send(turns, "hung")  # is taken all the same
    send(turns, "b")
    assert turns.waiting() == [late]


def test_who_is_alone_need_not_ask_again_and_who_is_not_waits_for_his_turn():
    turns = CreditScheduler(1)
    ask(turns, "a")
    assert granted(turns) == ["a"]
    turns.take(send(turns, "a"))
    turns.ended(turns.cameras["a"], reference("a"))
    assert turns.cameras["a"].granted
    turns.take(send(turns, "a"))
    ask(turns, "b", "c")
    turns.ended(turns.cameras["a"], reference("a"))
    assert not turns.cameras["a"].granted
    ask(turns, "a")
    assert granted(turns) == ["b"]


def test_asking_again_while_credit_is_on_the_way_or_the_frame_is_here_leaves_nothing_behind():
    turns = CreditScheduler(1)
    ask(turns, "a")
    assert granted(turns) == ["a"]
    ask(turns, "a")  # it had not come yet
    a = send(turns, "a")
    ask(turns, "a")
    turns.take(a)
    assert granted(turns) == []
    ask(turns, "b", "c")
    turns.ended(a, reference("a"))
    ask(turns, "a")
    assert [granted(turns, 10.0 * n) for n in (1, 2, 3)] == [["b"], ["c"], ["a"]]


def test_a_new_session_takes_the_place_of_the_old_one():
    turns = CreditScheduler(1)
    ask(turns, "a", "b")
    assert granted(turns) == ["a"]
    old = send(turns, "a")
    ask(turns, "a", session="s2")
    assert turns.waiting() == [] and turns.cameras["a"] is not old
    assert granted(turns, 1.0) == ["b"] and granted(turns, 2.0) == ["a"]


def test_a_second_frame_of_a_camera_comes_while_the_first_is_with_the_device_and_no_third():
    turns = CreditScheduler(1, most=2)
    ask(turns, "a")
    assert granted(turns) == ["a"]
    a = send(turns, "a", 0)
    ask(turns, "a")
    assert granted(turns) == [], "there is room for one"
    turns.take(a)
    ask(turns, "a")
    assert granted(turns) == ["a"]
    turns.take(send(turns, "a", 1))
    ask(turns, "a")
    assert granted(turns) == [] and a.newest == 1
    turns.ended(a, reference("a", 0))
    assert a.granted, "nobody else asks"
    turns.ended(a, reference("a", 1))
    assert a.granted and a.is_idle


def test_credit_that_is_on_its_way_is_not_taken_back_when_an_earlier_frame_ends():
    turns = with_credit_for_a_second_frame()
    ask(turns, "b")
    turns.ended(turns.cameras["a"], reference("a", 0))
    assert turns.cameras["a"].granted
    send(turns, "a", 1)


def test_the_fate_of_a_frame_that_still_waits_leaves_the_device_its_own():
    turns = with_credit_for_a_second_frame()
    a = send(turns, "a", 1)
    turns.ended(a, reference("a", 1))
    assert a.waiting is None and a.flying == 1
