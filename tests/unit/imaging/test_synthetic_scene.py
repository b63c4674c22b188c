"""Scenes: the same bytes for the same seed and time, and truth that is exactly what was drawn."""

import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest

from pipeline.imaging.synthetic_scene import CAST, Look, Scene, Truth

UAVS = (1, 2)  # ids in CAST
OUTLINE = """
import hashlib
from pipeline.imaging.synthetic_scene import Scene
print(hashlib.sha256(Scene(5, 192, 160).render(2.5)[0].tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(7)


def same(ours: list[Truth], theirs: list[Truth]) -> bool:
    described = [[(seen.id, seen.kind, seen.xyxy, seen.mask.tobytes()) for seen in each] for each in (ours, theirs)]
    return described[0] == described[1]


def test_order_of_calls_does_not_matter(scene: Scene) -> None:
    times_s = (3.0, 0.0, 9.96, 1e6, 0.04)
    forwards = [scene.render(time_s) for time_s in times_s]
    other = Scene(7)
    for time_s, (frame, seen) in reversed(list(zip(times_s, forwards, strict=True))):
        again, seen_again = other.render(time_s)
        np.testing.assert_array_equal(frame, again)
        assert same(seen, seen_again)


def test_same_bytes_in_another_process() -> None:
    output = subprocess.run([sys.executable, "-c", OUTLINE], capture_output=True, text=True, check=True).stdout
    assert output.strip() == sha256(Scene(5, 192, 160).render(2.5)[0].tobytes()).hexdigest()


def test_seeds_and_times_differ(scene: Scene) -> None:
    frames = [scene.render(0.0)[0], scene.render(0.04)[0], Scene(8).render(0.0)[0]]
    assert all((one != other).any() for one, other in pairwise(frames))


@pytest.mark.parametrize("look", list(Look))
def test_every_look_renders(look: Look) -> None:
    frame, seen = Scene(1, look=look).render(4.0)
    assert frame.shape == (512, 640, 3) and frame.dtype == np.uint8
    assert {truth.kind for truth in seen} >= {"uav"}
    grey = (frame == frame[..., :1]).all()
    assert grey == look.value.startswith("infrared")
    for truth in seen:
        if truth.id in UAVS:
            inside, around = frame[truth.window][truth.mask], frame[truth.window][~truth.mask]
            if look is Look.INFRARED_WHITE_HOT:
                assert np.quantile(inside, 0.75) > np.median(around) + 40
            else:
                assert np.quantile(inside, 0.25) < 0.85 * np.median(around)  # dusk is dim: a share, not levels


def test_gain_of_infrared_steps() -> None:
    scene = Scene(1, look=Look.INFRARED_WHITE_HOT, cast=())
    levels = [float(scene.render(time_s)[0].mean()) for time_s in (0.5, 6.0, 7.0)]
    assert abs(levels[1] - levels[0]) < 0.5 < abs(levels[2] - levels[1])


def test_boxes_are_tight_around_masks(scene: Scene) -> None:
    for time_s in np.arange(0, 60, 1.7):
        _, seen = scene.render(float(time_s))
        for truth in seen:
            left, top, right, bottom = truth.xyxy
            assert 0 <= left < right <= 640 and 0 <= top < bottom <= 512
            assert truth.mask.shape == (bottom - top, right - left) and truth.mask.dtype == np.bool_
            assert truth.mask[0].any() and truth.mask[-1].any() and truth.mask[:, 0].any() and truth.mask[:, -1].any()


@pytest.mark.parametrize("look", [Look.DAY, Look.INFRARED_BLACK_HOT])
def test_masks_are_the_pixels_that_objects_change(look: Look) -> None:
    whole = Scene(7, 320, 256, look)
    casts = [replace(whole, cast=CAST[:count]) for count in range(len(CAST) + 1)]
    for time_s in (2.0, 9.0, 13.0):
        frames = [scene.render(time_s)[0] for scene in casts]
        nearest = np.full((256, 320), -1)
        for place, (without, with_it) in enumerate(pairwise(frames)):
            nearest[(with_it != without).any(axis=2)] = place  # whoever is drawn later is nearer
        found = np.full((256, 320), -1)
        for truth in whole.render(time_s)[1]:
            found[truth.window][truth.mask] = truth.id
        np.testing.assert_array_equal(found, nearest)


@pytest.mark.parametrize("seed", range(6))
def test_both_uavs_fly_against_the_sky_at_first(seed: int) -> None:
    scene, centres = Scene(seed, 320, 256), []
    for time_s in np.arange(0, 10.01, 0.5):
        seen = {truth.id: truth for truth in scene.render(float(time_s))[1]}
        boxes = np.array([seen[uav].xyxy for uav in UAVS])
        assert (boxes > 0).all() and (boxes[:, 2] < 320).all() and (boxes[:, 3] < 0.72 * 256).all()
        widths = boxes[:, 2] - boxes[:, 0]
        assert (widths > 5).all() and (widths < 24).all()
        centres.append((boxes[:, :2] + boxes[:, 2:]) / 2)
    assert (np.ptp(centres, axis=0).max(axis=1) > 30).all()  # pixels in ten seconds, each


def test_distractors_come_and_go() -> None:
    scene = Scene(3, 320, 256)
    counts = [sorted(truth.kind for truth in scene.render(float(t))[1] if truth.kind != "uav") for t in range(0, 90, 2)]
    assert any("airplane" in kinds for kinds in counts) and any("airplane" not in kinds for kinds in counts)
    assert any(kinds.count("bird") >= 2 for kinds in counts)


def test_wings_beat() -> None:
    scene = Scene(4, 160, 128, cast=("bird",), scale=10.0)
    seen = [truth for time_s in np.arange(0, 30, 0.05) for truth in scene.render(float(time_s))[1]]
    heights = [truth.mask.shape[0] for truth in seen if truth.xyxy[0] > 0 and truth.xyxy[2] < 160]
    turns = np.count_nonzero(np.diff(np.sign(np.diff(heights))))
    assert len(heights) > 40 and turns > 0.2 * len(heights)


def test_motion_is_smooth(scene: Scene) -> None:
    """From frame to frame, no jump."""
    for uav in UAVS:
        boxes = np.array([next(truth.xyxy for truth in scene.render(k / 20)[1] if truth.id == uav) for k in range(30)])
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert np.abs(np.diff(centres, axis=0)).max() < 8


@pytest.mark.parametrize("size", [(320, 256), (1280, 720), (101, 77)])
def test_other_sizes(size: tuple[int, int]) -> None:
    frame, seen = Scene(2, *size).render(1.0)
    assert frame.shape == (size[1], size[0], 3)
    assert {truth.id for truth in seen} >= set(UAVS)


def test_refuses_a_frame_too_small() -> None:
    with pytest.raises(ValueError, match=r"10x512.*64x64"):
        Scene(0, 10)


def test_an_unknown_look_is_refused() -> None:
    with pytest.raises(ValueError, match="night"):
        Scene(0, look="night")  # type: ignore[arg-type]
