"""What candidates leave out: places that change all the time, and what is burnt into the image."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from support.moving_scenes import CLOUDS, Blob, Image, Scene, at_rate, rank, watched

from pipeline.segmentation.frame_history import FrameHistory
from pipeline.segmentation.motion import Candidate, MotionCandidates

TREES = (80, 90, 150, 120)  # x0, y0, x1, y1
DRONE = Blob(20, 40, (20, 5), (4, 4), contrast=8)
TEXT = (6, 4, 110, 26)
RETICLE = (58, 72, 102, 116)


class Wind:
    """Moves trees all the time, a little differently in each image."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(3)

    def __call__(self, image: Image, time_s: float) -> Image:
        x0, y0, x1, y1 = TREES
        branches = self._random.normal(0, 20, ((y1 - y0) // 5, (x1 - x0) // 5)).astype(np.float32)
        image[y0:y1, x0:x1] += cv2.resize(branches, (x1 - x0, y1 - y0))
        return image


def burnt_in(image: Image, time_s: float) -> Image:
    shown = image.clip(0, 255).astype(np.uint8)
    cv2.putText(shown, "12:34 N", (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 2)
    shown[92:96, 62:98] = shown[76:112, 78:82] = 250
    return shown.astype(np.float32)


def inside(candidates: Sequence[Candidate], *boxes: tuple[int, int, int, int]) -> list[Candidate]:
    return [one for one in candidates if any(x0 <= one.x_px < x1 and y0 <= one.y_px < y1 for x0, y0, x1, y1 in boxes)]


@pytest.fixture(scope="module")
def learned() -> np.ndarray:
    """The usual noise after three minutes."""
    motion = MotionCandidates(16)
    watched(Scene(change=Wind()), at_rate(5, 180), motion)
    assert motion.usual_noise is not None
    return motion.usual_noise


def test_it_is_known_where_the_view_usually_changes(learned: np.ndarray):
    x0, y0, x1, y1 = TREES
    rows, columns = learned.shape
    scale = np.array([columns / 160, rows / 128])
    (left, top), (right, bottom) = ((np.array(corner) * scale).astype(int) for corner in ((x0, y0), (x1, y1)))
    trees = learned[top + 1 : bottom - 1, left + 1 : right - 1]
    assert trees.min() > 4 * np.median(learned) and learned.dtype == np.float32


def test_trees_that_always_move_no_longer_hide_a_faint_drone(learned: np.ndarray):
    scene, times_s = Scene([DRONE], noise=1.5, change=Wind()), at_rate(25, 2)
    before, after = (watched(scene, times_s, MotionCandidates(16, noise))[18:] for noise in (None, learned))
    at_first = [rank(candidates, scene.place(DRONE, pts_s)) for pts_s, candidates in before]
    assert np.mean([place is None or place > 0 for place in at_first]) > 0.5, "without this it proves nothing"
    assert np.mean([rank(candidates, scene.place(DRONE, pts_s)) == 0 for pts_s, candidates in after]) > 0.9
    scores = [np.mean([one.score for _, found in watch for one in inside(found, TREES)]) for watch in (before, after)]
    assert scores[1] < 0.75 * scores[0]


def test_a_drone_before_the_trees_is_found_where_it_is_bright_enough(learned: np.ndarray):
    scene = Scene([Blob(90, 105, (20, 0), contrast=110)], change=Wind())
    found = watched(scene, at_rate(25, 2), MotionCandidates(16, learned))[18:]
    assert np.mean([rank(candidates, scene.place(scene.blobs[0], pts_s)) == 0 for pts_s, candidates in found]) > 0.9


@pytest.mark.parametrize("size", [(4, 3), (500, 300)])
def test_noise_is_handed_over_on_any_grid(learned: np.ndarray, size: tuple[int, int]):
    other = cv2.resize(learned, size)
    before = other.copy()
    motion = MotionCandidates(16, other)
    assert motion.usual_noise is other
    watched(Scene(), at_rate(25, 1), motion)
    assert motion.usual_noise is not None and motion.usual_noise.shape == learned.shape
    assert motion.usual_noise.mean() == pytest.approx(float(other.mean()), rel=0.2)
    np.testing.assert_array_equal(other, before)


def test_a_camera_that_turns_learns_it_anew_and_one_that_is_shaken_keeps_it(learned: np.ndarray):
    turned, shaken = MotionCandidates(16, learned), MotionCandidates(16, learned)
    watched(Scene(pan_px_s=(5, 0)), at_rate(25, 1), turned)
    scene, history = Scene(), FrameHistory()
    for number in range(26):
        there_and_back = 1.0 if number % 2 else -1.0
        history.add(scene.image(0), number / 25, (there_and_back, 0.0) if number else None)
        shaken.update(history)
    assert turned.usual_noise is not None and turned.usual_noise.max() < 0.5 * learned.max()
    assert shaken.usual_noise is not None and shaken.usual_noise.max() > 0.9 * learned.max()


def test_a_target_that_passes_is_not_learned():
    motion = MotionCandidates(16)
    watched(Scene([Blob(20, 60, (40, 0))]), at_rate(25, 3), motion)
    assert motion.usual_noise is not None and motion.usual_noise.max() < 1


@pytest.mark.parametrize("pan_px_s", [(30, 10), (-25, 20)])
def test_text_and_reticle_are_left_out_while_the_camera_turns(pan_px_s: tuple[float, float]):
    target = Blob(140 - 2 * pan_px_s[0], 60 - 2 * pan_px_s[1], (-8, 12), (5, 5), contrast=-60)
    scene = Scene([target], pan_px_s=pan_px_s, texture=CLOUDS, change=burnt_in)
    found = watched(scene, at_rate(25, 2.6))
    early, late = found[15:22], found[45:]
    assert np.mean([len(inside(candidates, TEXT, RETICLE)) for _, candidates in early]) > 8
    for pts_s, candidates in late:
        assert rank(candidates, scene.place(target, pts_s), 5) == 0
        assert all(one.score < 8 for one in inside(candidates, TEXT, RETICLE))


def test_to_a_camera_that_stands_still_nothing_is_burnt_in():
    """Its whole image stays in place; a target may appear before a mast at any time."""
    scene = Scene([Blob(20, 94, (30, 0), contrast=-90)], change=burnt_in)
    for pts_s, candidates in watched(scene, at_rate(25, 4))[18:]:
        assert rank(candidates, scene.place(scene.blobs[0], pts_s), 4) == 0 or 58 < 20 + 30 * pts_s < 102


def test_what_a_turning_camera_follows_is_no_overlay():
    """It never keeps to the pixel."""

    class Followed(Scene):
        def place(self, blob: Blob, time_s: float) -> tuple[float, float]:
            return blob.x_px + 4 * float(np.sin(5 * time_s)), blob.y_px + 3 * float(np.cos(4 * time_s))

    scene = Followed([Blob(80, 64, size_px=(8, 8), contrast=70)], pan_px_s=(30, 10), texture=CLOUDS)
    ranks = [
        rank(candidates, scene.place(scene.blobs[0], pts_s), 8) for pts_s, candidates in watched(scene, at_rate(25, 4))
    ]
    assert np.mean([place is not None and place < 4 for place in ranks[18:]]) > 0.95
