"""Motion as class evidence: known trajectories, any frame rate, gaps, noise and unusable observations."""

import math
import time
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from pipeline.tracking.kinematics import BLOCKS, EXCEPTIONS, LIMIT, Kinematics

Path = Callable[[float], tuple[float, float]]  # time in s -> position in px
LENGTH_PX = 12.0


def observed(
    path: Path, fps: float = 30, seconds: float = 8, noise_px: float = 0.0, missing: float = 0.0, start_s: float = 0.0
) -> Kinematics:
    kinematics, random = Kinematics(), np.random.default_rng(1)
    for number in range(round(seconds * fps)):
        x, y = np.array(path(number / fps)) + random.normal(0, noise_px, 2)
        length = LENGTH_PX * math.exp(random.normal(0, 0.12 if noise_px else 0))
        if random.random() >= missing:
            kinematics.update(start_s + number / fps, float(x), float(y), length)
    return kinematics


def straight(t: float) -> tuple[float, float]:
    return 20 + 40 * t, 100 - 5 * t


def hovering(_: float) -> tuple[float, float]:
    return 200, 100


def circling(t: float) -> tuple[float, float]:
    """A circle of 3 s: its velocity turns, and lasts from block to block."""
    return 200 + 15 * math.cos(2 * math.pi * t / 3), 100 + 15 * math.sin(2 * math.pi * t / 3)


def stop_and_go(t: float) -> tuple[float, float]:
    """A drone that accelerates for 2 s and brakes for 2 s, and climbs and sinks."""
    return 20 + 30 * t - 60 / math.pi * math.sin(math.pi * t / 2), 200 - 15 * math.sin(0.4 * math.pi * t)


def bounding(t: float) -> tuple[float, float]:
    """A bird: strokes in bursts of 0.3 s, then wings closed, so that it rises and falls twice a second."""
    return 20 + 120 * t, 100 + 8 * math.sin(2 * math.pi * t / 0.5) + 2 * math.sin(2 * math.pi * 11 * t)


def test_manoeuvres_speak_for_a_drone_and_a_constant_velocity_against_it():
    assert observed(stop_and_go).log_odds > 0.5
    assert observed(circling).log_odds > 0.5
    assert -0.5 < observed(straight).log_odds < -0.3
    assert -0.5 < observed(hovering).log_odds < -0.3  # as a distant helicopter does: weak evidence


def test_bounding_flight_does_not_speak_for_a_drone():
    assert observed(bounding, noise_px=0.3).log_odds < 0.1


@pytest.mark.parametrize("fps", [60, 25, 12.5, 5])
@pytest.mark.parametrize("path", [straight, hovering, circling, stop_and_go])
def test_the_frame_rate_does_not_matter(path: Path, fps: float):
    assert observed(path, fps).log_odds == pytest.approx(observed(path).log_odds, abs=0.15)


@pytest.mark.parametrize("path", [straight, circling, stop_and_go])
def test_missing_frames_and_noise_do_not_change_the_sign(path: Path):
    clean = observed(path).log_odds
    assert math.copysign(1, clean) == math.copysign(1, observed(path, noise_px=0.7, missing=0.3).log_odds)


@pytest.mark.parametrize("fps", [30, 25, 12.5, 5])
def test_it_says_nothing_before_it_has_observed_for_a_while(fps: float):
    assert observed(circling, fps, seconds=1.2).log_odds == 0
    assert observed(circling, fps, seconds=1.2).features is None
    assert observed(circling, fps, seconds=2.4).features is not None


def test_motion_that_jitters_says_nothing_either_way():
    """A moving camera whose motion is not known: large steps there and back, of which none lasts."""
    shaken = observed(lambda t: (200 + 30 * (-1) ** int(t / 0.4), 100))
    assert abs(shaken.log_odds) < 0.05


def test_evidence_is_bounded():
    random = np.random.default_rng(2)
    for scale in (0.1, 1, 10, 1000):
        kinematics = Kinematics()
        for number, (x, y) in enumerate(np.cumsum(random.normal(0, scale, (300, 2)), axis=0)):
            kinematics.update(number / 30, float(x), float(y), LENGTH_PX)
            assert math.log(EXCEPTIONS) <= kinematics.log_odds <= LIMIT


def test_it_forgets_after_four_seconds():
    def turned(t: float) -> tuple[float, float]:
        return circling(t) if t < 5 else (circling(5)[0] + 40 * (t - 5), circling(5)[1])

    assert observed(turned, seconds=5).log_odds > 0.5
    assert observed(turned, seconds=12).log_odds == pytest.approx(observed(straight).log_odds, abs=0.05)


def test_after_a_long_gap_it_observes_anew():
    kinematics = observed(circling)
    feed(kinematics, ((12 + number / 30, 300.0, 50.0, LENGTH_PX) for number in range(30)))
    assert kinematics.features is None and kinematics.log_odds == 0


@pytest.mark.parametrize(
    "bad",
    [
        (math.nan, 1.0, 1.0, 9.0),
        (3.0, math.nan, 1.0, 9.0),
        (3.0, 1.0, math.inf, 9.0),
        (3.0, 1.0, 1.0, math.nan),
        (3.0, 1.0, 1.0, 0.0),
        (3.0, 1.0, 1.0, -2.0),
        (1.0, 1.0, 1.0, 9.0),  # earlier
    ],
)
def test_unusable_observations_are_ignored(bad: tuple[float, float, float, float]):
    with_bad, without = observed(stop_and_go, seconds=3), observed(stop_and_go, seconds=3)
    feed(with_bad, [bad])
    for one in (with_bad, without):
        feed(one, ((3 + number / 30, *stop_and_go(3 + number / 30), LENGTH_PX) for number in range(60)))
    assert with_bad.features == without.features


def test_one_observation_and_none_say_nothing():
    kinematics = Kinematics()
    assert kinematics.log_odds == 0
    kinematics.update(0.0, 10.0, 10.0, 5.0)
    assert kinematics.log_odds == 0 and kinematics.features is None


def test_position_start_and_scale_do_not_matter():
    expected = observed(stop_and_go).features
    later = observed(stop_and_go, start_s=400.0).features  # a multiple of the block
    assert expected is not None and later is not None
    assert later.velocity_autocorrelation == pytest.approx(expected.velocity_autocorrelation, abs=1e-6)
    enlarged = Kinematics()
    feed(enlarged, ((n / 30, *(3 * v - 50 for v in stop_and_go(n / 30)), 3 * LENGTH_PX) for n in range(240)))
    assert enlarged.features is not None
    assert enlarged.features.velocity_autocorrelation == pytest.approx(expected.velocity_autocorrelation, abs=1e-6)


def test_an_update_is_cheap_and_its_memory_bounded():
    kinematics = Kinematics()
    started = time.process_time()
    feed(kinematics, ((n / 30, *stop_and_go(n / 30), LENGTH_PX) for n in range(6000)))
    assert (time.process_time() - started) / 6000 < 100e-6
    assert len(kinematics._blocks) == BLOCKS


def feed(kinematics: Kinematics, observations: Iterable[tuple[float, float, float, float]]) -> None:
    for observation in observations:
        kinematics.update(*observation)
