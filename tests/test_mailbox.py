"""What waits for credit: no frame is lost to a moment's stall, and in overload the newest alone waits."""

from pipeline.transport.mailbox import LATELY_S, Mailbox

PERIOD_S = 0.04


def run(seconds: float, searched_s: float, stall: tuple[int, float] = (-1, 0.0)) -> tuple[list[int], list[float], int]:
    """A camera of 25 frames/s and a worker that takes `searched_s` a frame, and once, at a frame, longer.

    Numbers of the frames searched, how old each was when it was taken, and how many were replaced.
    """
    mailbox: Mailbox[int] = Mailbox()
    taken: list[int] = []
    ages_s: list[float] = []
    replaced, free_s = 0, 0.0
    for number in range(round(seconds / PERIOD_S)):
        now_s = number * PERIOD_S
        while mailbox and free_s <= now_s:
            begun_s = max(free_s, taken_from := mailbox_time(mailbox))
            ages_s.append(begun_s - taken_from)
            taken.append(mailbox.take())
            free_s = begun_s + searched_s + (stall[1] if taken[-1] == stall[0] else 0.0)
        replaced += mailbox.put(number, now_s)
    return taken, ages_s, replaced


def mailbox_time(mailbox: Mailbox[int]) -> float:
    return mailbox._waiting[0][0]


def test_a_worker_that_keeps_up_gets_every_frame_and_none_waits():
    taken, ages_s, replaced = run(4, 0.03)
    assert taken == list(range(len(taken))) and not replaced and max(ages_s) == 0


def test_a_stall_that_can_be_made_up_for_costs_no_frame():
    taken, ages_s, replaced = run(4, 0.03, stall=(20, 0.045))
    assert taken == list(range(len(taken))) and not replaced
    assert 0 < max(ages_s) < 2 * PERIOD_S and ages_s[-1] == 0


def test_a_longer_one_costs_what_it_must():
    _, _, replaced = run(4, 0.03, stall=(20, 0.2))
    assert 2 <= replaced <= 4


def test_in_overload_only_the_newest_waits():
    taken, ages_s, replaced = run(20, 0.09)
    assert replaced > len(taken) > 200
    late = ages_s[round((LATELY_S + 1) / 0.09) :]
    assert max(late) < PERIOD_S + 1e-9


def test_frames_of_a_slow_camera_do_not_wait_for_one_another():
    mailbox: Mailbox[str] = Mailbox()
    assert mailbox.put("old", 10.0) == 0 and mailbox.put("new", 10.5) == 1
    assert mailbox.take() == "new" and not mailbox and mailbox.clear() == 0


def test_just_too_slow_loses_just_what_it_must_and_is_never_two_frames_behind():
    taken, ages_s, replaced = run(40, 0.042)
    assert 0 < replaced < 60 and len(taken) + replaced >= 998
    assert max(ages_s) < 2 * PERIOD_S
