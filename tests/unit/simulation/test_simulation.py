"""The simulated site: time shared among threads, latency without load, overload, and several machines."""

import pytest

from pipeline.simulation.cores import Machine, Program, Thread, Wait, Work
from pipeline.simulation.service import ServiceTimes
from pipeline.simulation.site import Site, simulate

TIMES = ServiceTimes(
    size_px=(640, 512),
    capture_s=(0.002,),
    prepare_s=(0.001,),
    whole_s=0.1,
    tile_s=0.006,
    reduced_s=0.01,
    judge_s=(0.005,),
    track_s=(0.001,),
    threads=2,
    parallel_share=1.0,
)


def finished(cores: float, *works: Work) -> list[float]:
    """Return when each of several works, begun together, is done."""
    machine, times_s = Machine(cores), [0.0] * len(works)

    def program(number: int, work: Work) -> Program:
        yield work
        times_s[number] = machine.now_s

    for number, work in enumerate(works):
        Thread(machine, program(number, work))
    machine.run(100)
    assert machine.busy_s == pytest.approx(sum(work.seconds for work in works))
    return times_s


def test_threads_share_the_cores() -> None:
    assert finished(2, Work(1), Work(3)) == pytest.approx([1, 3])
    assert finished(1, Work(1), Work(3)) == pytest.approx([2, 4])
    assert finished(2, Work(4, width=2)) == pytest.approx([2])
    assert finished(2, Work(4, width=2), Work(1)) == pytest.approx([2.5, 1.5])


def test_a_thread_waits_until_it_is_woken_or_for_as_long_as_it_said() -> None:
    machine, times_s = Machine(1), []

    def program() -> Program:
        for _ in range(3):
            yield Wait(5)
            times_s.append(machine.now_s)
        yield Work(2)
        yield Wait(5)
        times_s.append(machine.now_s)

    thread = Thread(machine, program())
    for wake_s in (2, 13):  # the second one while it computes
        machine.at(wake_s, thread.wake)
    machine.run(100)
    assert times_s == [2, 7, 12, 14]


def test_without_load_latency_is_what_the_stages_take() -> None:
    figures = simulate(Site(1, fps=2, share=1.0), TIMES)
    assert 59 <= figures.captured <= 61 and figures.dropped == 0 and figures.holds
    # Capture, two messages, preparation, the network in two threads, judge and track.
    assert figures.capture_to_track_p50_ms == pytest.approx(2 + 1 + 1 + 110 / 2 + 5 + 1, abs=0.1)


def test_whole_frames_are_dropped_where_a_share_of_each_is_looked_at_in_time() -> None:
    whole = simulate(Site(1, fps=25, share=1.0), TIMES)
    assert whole.dropped > 0.2 * whole.captured and not whole.holds
    scan = simulate(Site(1, fps=25), TIMES)
    assert scan.dropped == 0 and scan.holds and 0.1 < scan.share < 0.9
    assert 0 < scan.longest_wait_s < 10
    more = simulate(Site(4, fps=25), TIMES)
    assert more.share < scan.share and more.longest_wait_s > scan.longest_wait_s


def test_machines_share_the_cameras_and_equal_draws_give_equal_figures() -> None:
    alone, shared = simulate(Site(8, fps=2), TIMES), simulate(Site(31, fps=2, workers=4), TIMES)
    assert shared.captured == alone.captured
    assert shared.capture_to_track_p50_ms == alone.capture_to_track_p50_ms
    assert simulate(Site(8, fps=2, seed=1), TIMES) != alone


def test_a_thousand_cameras_on_one_machine_are_too_many() -> None:
    figures = simulate(Site(1000, fps=0.5, seconds=2), TIMES)
    assert figures.dropped > 0 and not figures.holds and figures.busy > 0.95
