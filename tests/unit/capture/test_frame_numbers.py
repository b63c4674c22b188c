"""Numbers of a recording's frames, whatever the decoder loses of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.frame_numbers import MAX_WAITING, FrameNumbers

REORDERED = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]  # presentation time stamps in decoding order


def sent(stamps: list[int], numbers: FrameNumbers) -> FrameNumbers:
    for dts, pts in enumerate(stamps):
        numbers.sent(pts, dts, keyframe=dts == 0)
    return numbers


@given(st.sets(st.integers(0, 9)))
def test_frames_keep_their_numbers_whichever_are_lost(lost: set[int]) -> None:
    numbers = sent(REORDERED, FrameNumbers())
    for _ in lost:
        numbers.failed()
    shown = [numbers.shown(stamp) for stamp in range(10) if stamp not in lost]
    numbers.finish()
    assert [(one.number, one.stamp) for one in shown if one] == [(n, n) for n in range(10) if n not in lost]
    assert numbers.lost == len(lost) and numbers.count == 10


def test_a_frame_that_comes_after_later_ones_is_left_out() -> None:
    numbers = sent(REORDERED, FrameNumbers())
    assert [one and one.number for one in map(numbers.shown, (0, 3, 1, 4))] == [0, 3, None, 4]


def test_a_first_keyframe_that_cannot_be_decoded_is_frame_0() -> None:
    numbers = FrameNumbers()
    for stamp in range(8):
        numbers.sent(stamp, stamp, keyframe=stamp == 5)  # the broken packet is not known as a keyframe
    numbers.failed()
    shown = numbers.shown(5)
    assert shown and (shown.number, shown.lost) == (5, [0, 1, 2, 3, 4])


def test_what_was_cut_off_before_the_first_keyframe_has_no_number() -> None:
    for numbers in (FrameNumbers(starts_anywhere=True), FrameNumbers()):
        for stamp in range(8):
            numbers.sent(stamp, stamp, keyframe=stamp == 5)
        shown = numbers.shown(5)
        assert shown and (shown.number, shown.lost) == (0, [])


def test_without_presentation_times_frames_have_the_decoding_times_in_order() -> None:
    numbers = FrameNumbers(guessed=True)
    for pts, dts in zip([8, 2, 5, 0], [10, 11, 14, 15], strict=True):  # null frames at 12 and 13
        numbers.sent(pts, dts, keyframe=dts == 10)
    assert [one and one.stamp for one in map(numbers.shown, (0, 2, 5, 8))] == [10, 11, 14, 15]


def test_without_any_times_a_failure_is_a_frame() -> None:
    numbers = FrameNumbers()
    for _ in range(3):
        numbers.sent(None, None, keyframe=True)
    first = numbers.shown(None)
    numbers.failed()
    second = numbers.shown(None)
    assert first and second and (first.number, second.number, numbers.lost) == (0, 2, 1)


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    numbers = FrameNumbers()
    for start in (900, 0):
        for step, pts in enumerate(REORDERED):
            numbers.sent(start + pts, start + step, keyframe=step == 0)
    shown = [numbers.shown(stamp) for stamp in (*range(900, 910), *range(10))]
    assert [one and one.number for one in shown] == list(range(20)) and not numbers.lost


@pytest.mark.parametrize("failures", [0, 1])
def test_of_interlaced_frames_the_second_fields_are_no_loss(failures: int) -> None:
    numbers = sent(list(range(8)), FrameNumbers())
    first = numbers.shown(0, interlaced=True)
    for _ in range(failures):
        numbers.failed()
    second = numbers.shown(4, interlaced=True)
    assert first and second and (first.number, second.number) == (0, 1 + failures)


def test_packets_that_give_no_frames_are_forgotten() -> None:
    numbers = FrameNumbers()
    for stamp in range(3 * MAX_WAITING):
        numbers.sent(stamp, stamp, keyframe=stamp == 0)
    shown = numbers.shown(3 * MAX_WAITING - 1)
    assert shown and shown.number == 3 * MAX_WAITING - 1
