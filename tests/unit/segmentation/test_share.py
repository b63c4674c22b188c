"""The share of pixels that the network processes follows the load: down while frames are lost, and up again."""

import numpy as np
import pytest

from pipeline.config.model import MIN_SHARE
from pipeline.segmentation.share import LEAST_CUT, MOST_CUT, MOST_RAISE, MOTION_STEPS, STEP_S, ShareControl
from pipeline.transport.frame_queue import FrameQueue
from pipeline.transport.wire import Stamps
from pipeline.types import Band, Frame, FrameRef

OBJECTIVE_S = 0.5
PIXELS = np.zeros((1, 1), np.uint8)


class Site:
    """Cameras with their queues, and a worker that needs a fixed time for a frame and one that grows with the share."""

    def __init__(self, cameras: int, whole_s: float, fixed_s: float, fps: float = 25) -> None:
        self.whole_s, self.fixed_s, self.fps = whole_s, fixed_s, fps
        self.control = ShareControl(OBJECTIVE_S)
        self.queues = [FrameQueue(0.25) for _ in range(cameras)]
        self.replaced = [0] * cameras
        self.now_s, self.arrived, self.next = 0.0, 0, 0

    def run(self, seconds: float) -> int:
        """Return how many frames are lost."""
        end_s, lost = self.now_s + seconds, 0
        while self.now_s < end_s:
            lost += self._arrive()
            waiting = [n for n in range(len(self.queues)) if self.queues[(n + self.next) % len(self.queues)]]
            if not waiting:
                self.control.idle(0.001)
                self.now_s += 0.001
                continue
            camera = (waiting[0] + self.next) % len(self.queues)
            self.next = camera + 1
            frame, _ = self.queues[camera].take()
            age_s = self.now_s - frame.ref.received_mono_ns / 1e9
            share = self.control.update(self.replaced[camera], age_s, self.now_s)
            self.replaced[camera] = 0
            self.now_s += self.fixed_s + share * self.whole_s
        return lost

    def _arrive(self) -> int:
        lost = 0
        while self.arrived / self.fps / len(self.queues) <= self.now_s:
            received_ns = round(1e9 * self.arrived / self.fps / len(self.queues))
            camera = self.arrived % len(self.queues)
            ref = FrameRef(str(camera), "s", self.arrived, received_ns / 1e9, received_ns, 0)
            replaced = self.queues[camera].put(Frame(ref, Band.INFRARED, PIXELS), Stamps())
            self.replaced[camera] += replaced
            lost += replaced
            self.arrived += 1
        return lost


def test_whole_frames_stay_whole_where_the_machine_keeps_up():
    site = Site(cameras=1, whole_s=0.033, fixed_s=0.005)
    assert site.run(120) == 0 and site.control.share == 1


@pytest.mark.parametrize(("cameras", "whole_s"), [(1, 0.5), (2, 0.06), (4, 0.06), (6, 0.06), (2, 0.3)])
def test_an_overloaded_machine_settles_where_no_frame_is_lost_and_most_of_it_is_used(cameras: int, whole_s: float):
    site = Site(cameras, whole_s, fixed_s=0.004)
    site.run(20)
    shares, lost = [], 0
    for _ in range(50):
        lost += site.run(1)
        shares.append(site.control.share)
    assert lost == 0
    possible = (1 / site.fps / cameras - site.fixed_s) / whole_s
    assert all(0.5 * possible < share < 1.1 * possible for share in shares)


def test_it_recovers_when_the_load_ends():
    site = Site(cameras=4, whole_s=0.060, fixed_s=0.005)
    site.run(20)
    assert site.control.share < 0.2
    site.whole_s, site.fixed_s = 0.004, 0.003
    site.run(20)
    assert site.control.share == 1


def test_it_never_ends_where_even_nothing_is_too_much():
    site = Site(cameras=4, whole_s=0.060, fixed_s=0.02)
    site.run(20)
    assert site.control.share == MIN_SHARE and site.control.max_motion == MOTION_STEPS[-1]


def test_where_the_least_share_is_too_much_less_motion_is_judged_until_there_is_time_again():
    control, now_s, seen = ShareControl(OBJECTIVE_S), 0.0, []
    control.update(0, 0, now_s)
    for replaced, idle_s in [(9, 0.0)] * 20 + [(0, 0.5 * STEP_S)] * 40:
        now_s += STEP_S
        control.idle(idle_s)
        control.update(replaced, 0, now_s)
        seen.append((control.share, control.max_motion))
    steps = [most for share, most in seen if share == MIN_SHARE]
    assert steps == sorted(steps[: steps.index(2)], reverse=True) + [2] * steps.count(2) + [3, 6, 12]
    assert all(most == MOTION_STEPS[0] for share, most in seen if share > MIN_SHARE) and seen[-1] == (1, 12)


def test_a_fixed_share_is_kept():
    control = ShareControl(OBJECTIVE_S, fixed=0.3)
    assert [control.update(5, age_s, now_s) for now_s, age_s in enumerate([0, 1, 5, 0])] == [0.3] * 4


def test_steps_are_bounded():
    control = ShareControl(OBJECTIVE_S)
    control.update(0, 0, 0)
    assert control.update(1000, 0, STEP_S) == pytest.approx(MOST_CUT)
    assert control.update(0, 1, 2 * STEP_S) == pytest.approx(MOST_CUT * LEAST_CUT)
    control.idle(STEP_S)
    assert control.update(0, 0, 3 * STEP_S) == pytest.approx(MOST_CUT * LEAST_CUT * MOST_RAISE)
    assert control.update(0, 0, 4 * STEP_S) == pytest.approx(MOST_CUT * LEAST_CUT * MOST_RAISE), "busy, nothing lost"
