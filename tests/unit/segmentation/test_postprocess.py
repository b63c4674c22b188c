"""Probability maps to detections: places, sizes and scores in frame pixels."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.metadata import Preprocessing, Thresholds
from model.preprocess import prepare
from pipeline.segmentation.camera_motion import CameraMotion
from pipeline.segmentation.postprocess import MAX_DETECTIONS, MapView, detect
from pipeline.segmentation.segmenter import CameraView
from pipeline.types import Band, Detections, Frame, FrameRef, Mask

HALF = {"visible": 0.5, "infrared": 1.0}

REF = FrameRef("north", "s", 0, 0.0, 0, 0)
CLASSES = ("uav", "bird")


def maps(height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((2, height, width), 0.01, np.float32)


def frame_of(width: int, height: int) -> Frame:
    return Frame(REF, Band.VISIBLE, np.zeros((height, width), np.uint8))


def find(probabilities: np.ndarray, thresholds: Thresholds = Thresholds(), scale=(1.0, 1.0), ignore=()):
    frame = frame_of(round(probabilities.shape[2] * scale[0]), round(probabilities.shape[1] * scale[1]))
    return detect(probabilities, frame, MapView(scale, ignore=ignore), CLASSES, thresholds)


def test_a_target_is_measured_in_frame_pixels():
    probabilities = maps()
    probabilities[0, 10:14, 20:26] = 0.9
    probabilities[1, 10:14, 20:26] = 0.3
    found = find(probabilities, scale=(2.0, 2.0))
    np.testing.assert_allclose(found.xyxy, [[40, 20, 52, 28]])
    np.testing.assert_allclose(found.centroid, [[46, 24]], atol=1e-4)
    np.testing.assert_allclose(found.area_px, [96])
    np.testing.assert_allclose(found.score, [0.9], atol=1e-6)
    np.testing.assert_allclose(found.class_scores, [[0.9, 0.3]], atol=1e-6)
    assert found.masks[0].unpack().all() and found.mask_scale == (2.0, 2.0)


def test_the_object_map_is_the_best_class_of_each_pixel():
    probabilities = maps()
    probabilities[0, 5:8, 5:8] = 0.8
    probabilities[1, 5:8, 8:11] = 0.8  # one object, two opinions
    found = find(probabilities)
    np.testing.assert_allclose(found.xyxy, [[5, 5, 11, 8]])
    np.testing.assert_allclose(found.class_scores, [[0.405, 0.405]], atol=1e-3)


def test_nothing_found_is_an_empty_result():
    found = find(maps())
    assert len(found) == 0 and found.xyxy.shape == (0, 4) and found.class_scores.shape == (0, 2)


def test_small_components_and_ignored_areas_are_left_out_and_boxes_grow_within_the_frame():
    probabilities = maps()
    probabilities[0, 0:3, 0:3] = 0.9
    probabilities[0, 30, 50] = 0.9
    found = find(probabilities, Thresholds(min_area_px=2, box_margin_px=2))
    np.testing.assert_allclose(found.xyxy, [[0, 0, 5, 5]])
    assert len(find(probabilities, Thresholds(min_area_px=2, continue_area_ratio=0.5))) == 2
    assert len(find(probabilities, ignore=[[(0, 0), (10, 0), (10, 10), (0, 10)]])) == 1


def test_of_a_region_boxes_masks_and_ignored_areas_are_in_pixels_of_the_whole_frame():
    probabilities = maps()
    probabilities[0, 10:14, 20:26] = 0.9
    region = (100, 50, 220, 130)  # the maps' 60x40

    def detected(*ignore: list[tuple[float, float]]) -> Detections:
        view = MapView((2.0, 2.0), region, ignore)
        return detect(probabilities, frame_of(640, 512), view, CLASSES, Thresholds(box_margin_px=12))

    found = detected()
    np.testing.assert_allclose(found.xyxy, [[116, 50, 176, 102]])  # grown no further than the region
    np.testing.assert_allclose(found.centroid, [[146, 74]], atol=1e-4)
    assert (found.masks[0].left, found.masks[0].top) == (70, 35) and found.size_px == (640, 512)
    around = [(140, 70), (150, 70), (150, 80), (140, 80)]
    assert len(detected(around)) == 0
    assert len(detected([(x - 100, y - 50) for x, y in around])) == 1


@pytest.mark.parametrize(
    ("region", "processed"),
    [
        (None, (0, 0, 320, 256)),
        ((100, 50, 200, 150), (100, 50, 200, 150)),
        ((100, 50, 1000, 1000), (100, 50, 320, 256)),
        ((400, 50, 500, 150), (0, 0, 320, 256)),  # outside the frame: better all than nothing
    ],
)
def test_the_region_of_interest_of_a_frame(region: tuple | None, processed: tuple):
    assert CameraView(region=region).roi((320, 256)) == processed


def test_clutter_is_bounded_and_the_largest_are_kept():
    probabilities = maps(200, 200)
    probabilities[0, ::2, ::2] = 0.9
    probabilities[0, 101:140, 101:140] = 0.9
    found = find(probabilities)
    assert len(found) == MAX_DETECTIONS and found.area_px[0] > 1000


@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_masks_survive_packing(width: int, height: int, random):
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    assert (Mask.pack(3, 4, mask).unpack() == mask).all()


def test_preprocessing_follows_the_checkpoint_and_never_stretches_by_itself():
    pixels = np.random.default_rng(0).integers(0, 256, (512, 640, 3), np.uint8)
    scaled, factor = prepare(pixels, "visible", Preprocessing("scale", scale=HALF))
    assert scaled.shape == (256, 320, 3) and factor == (2.0, 2.0)
    np.testing.assert_allclose(scaled[0, 0], pixels[:2, :2].mean(axis=(0, 1)), atol=0.51)
    same, factor = prepare(pixels[:, :, 0], "infrared", Preprocessing("scale", scale=HALF))
    assert same.shape == (512, 640, 3) and (same[:, :, 0] == pixels[:, :, 0]).all()
    stretched, factor = prepare(pixels, "visible", Preprocessing())
    assert stretched.shape == (512, 512, 3) and factor == (1.25, 1.0)
    overridden, _ = prepare(pixels, "visible", Preprocessing("scale", scale={"visible": 0.5}), scale=0.25)
    assert overridden.shape == (128, 160, 3)


@pytest.mark.parametrize("how", [{"mode": "stretch", "size": 96}, {"mode": "scale"}, {"mode": "scale", "scale": HALF}])
def test_a_network_that_learned_without_colour_is_shown_none(how: dict[str, Any]):
    pixels = np.random.default_rng(0).integers(0, 256, (128, 160, 3), np.uint8)
    shown, factor = prepare(pixels, "visible", Preprocessing(**how, grey=True))
    assert np.ptp(shown, axis=2).max() == 0
    in_colour, same = prepare(pixels, "visible", Preprocessing(**how))
    assert (in_colour.shape, same) == (shown.shape, factor) and np.ptp(in_colour, axis=2).max() > 0
    np.testing.assert_allclose(shown[..., 0], in_colour @ [0.299, 0.587, 0.114], atol=2.5)  # ITU-R BT.601


@settings(deadline=None, max_examples=20)
@given(st.integers(-20, 20), st.integers(-15, 15))
def test_the_cameras_motion_is_measured_and_does_not_drift(dx: int, dy: int):
    texture = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    world = cv2.resize(texture, None, fx=12, fy=12, interpolation=cv2.INTER_CUBIC)
    motion = CameraMotion()
    assert motion.update(world[100:356, 100:420]) is None
    moved = motion.update(world[100 - dy : 356 - dy, 100 - dx : 420 - dx])
    assert moved == pytest.approx((dx, dy), abs=1.5)
    still = [motion.update(world[100 - dy : 356 - dy, 100 - dx : 420 - dx]) for _ in range(50)]
    total = np.sum([shift for shift in still if shift is not None], axis=0)
    assert np.abs(total).max() < 0.2


@pytest.mark.parametrize("width", [320, 640])
def test_where_a_turning_camera_looks_is_known_to_a_tenth_of_a_pixel(width: int):
    """A world whose contrast falls with its frequency, as nature's does, noise, and a target that moves by itself."""
    random = np.random.default_rng(5)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(1024), np.fft.fftfreq(1024)))
    frequency[0, 0] = 1
    waves = np.real(np.fft.ifft2(np.fft.fft2(random.normal(size=(1024, 1024))) / frequency))
    world = (110 + 35 * waves / waves.std()).astype(np.float32)
    motion, height, total = CameraMotion(), width * 4 // 5, np.zeros(2)
    for seq in range(120):
        place = np.array([100 + 0.14 * width * math.sin(seq / 15), 60 + 0.05 * width * math.sin(seq / 12)])
        seen = cv2.warpAffine(world, np.column_stack([np.eye(2), -place]), (width, height))
        seen[40:48, 20 + seq : 30 + seq] = 240
        shift = motion.update(np.clip(seen + random.normal(0, 3, seen.shape), 0, 255).astype(np.uint8))
        if seq:
            total += shift
        assert np.abs(total + place - (100, 60)).max() < 0.1


def test_a_jump_over_a_third_of_the_image_is_no_camera_motion():
    """As a false peak after a thermal camera's shutter; later motion is measured from there."""
    texture = np.random.default_rng(1).integers(0, 256, (40, 50), np.uint8)
    world = cv2.resize(texture, None, fx=12, fy=12, interpolation=cv2.INTER_CUBIC)
    motion = CameraMotion()
    shifts = [motion.update(world[100:356, left : left + 320]) for left in (20, 20, 140, 140, 144)]
    assert shifts[0] is None
    assert np.array(shifts[1:]) == pytest.approx(np.array([(0, 0), (0, 0), (0, 0), (-4, 0)]), abs=0.3)


def test_a_large_target_before_faint_clouds_is_not_taken_for_the_camera():
    rng = np.random.default_rng(3)
    clouds = cv2.GaussianBlur(rng.normal(90, 150, (256, 320)), (0, 0), 12)
    motion = CameraMotion()
    for number in range(12):
        image = clouds + rng.normal(0, 2, clouds.shape)
        image[90:120, 60 + 9 * number : 90 + 9 * number] += 100
        shift = motion.update(np.clip(image, 0, 255).astype(np.uint8))
        if number:
            assert shift == pytest.approx((0, 0), abs=2.5)


def test_before_a_plain_sky_that_shows_no_motion_none_is_assumed_and_not_measured():
    rng = np.random.default_rng(3)
    motion = CameraMotion()
    skies = [np.clip(rng.normal(4, 2, (256, 320)), 0, 255).astype(np.uint8) for _ in range(12)]
    shifts = [(motion.update(sky), motion.is_measured) for sky in skies]
    assert None not in [shift for shift, _ in shifts[1:]]
    unmeasured = [shift for shift, is_measured in shifts[1:] if not is_measured]
    assert len(unmeasured) > 3 and set(unmeasured) == {(0.0, 0.0)}


def test_what_is_faint_is_left_out_by_the_least_score():
    probabilities = maps()
    probabilities[0, 10:14, 20:26] = 0.9
    probabilities[0, 30:34, 40:46] = 0.55
    assert len(find(probabilities)) == 2
    (score,) = find(probabilities, Thresholds(min_score=0.6)).score
    assert score == pytest.approx(0.9)


def components_of_the_whole_map(probabilities: np.ndarray, thresholds: Thresholds) -> list[tuple[int, Mask, float]]:
    """The same as `detect`, plainly: area, mask and score of each component."""
    objects = probabilities.max(axis=0)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((objects > thresholds.threshold).astype(np.uint8))
    found = []
    for index in range(1, count):
        left, top, width, height, area = stats[index].tolist()
        if area >= thresholds.continue_area_ratio * thresholds.min_area_px:
            mask = labels[top : top + height, left : left + width] == index
            score = float(objects[top : top + height, left : left + width][mask].mean())
            found.append((area, Mask.pack(left, top, mask), score))
    return sorted(found, key=lambda one: -one[0])[:MAX_DETECTIONS]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.001, 0.02, 0.2, 0.6]), size=st.integers(1, 4))
def test_components_are_those_of_the_whole_map_in_its_order(seed: int, share: float, size: int):
    """Though only where something is above the threshold is looked for them; many are of the same size."""
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 70, 2)
    probabilities = random.random((2, height, width), np.float32) * np.float32(0.49)
    spots = (random.random((height, width)) < share).astype(np.uint8)
    above = cv2.dilate(spots, np.ones((size, size), np.uint8)).astype(bool)
    probabilities[random.integers(0, 2), above] += np.float32(0.5)
    thresholds = Thresholds(threshold=0.5, min_score=0.0)
    found, expected = find(probabilities, thresholds), components_of_the_whole_map(probabilities, thresholds)
    assert found.masks == [mask for _, mask, _ in expected]
    np.testing.assert_array_equal(found.area_px, [area for area, _, _ in expected])
    np.testing.assert_allclose(found.score, [score for _, _, score in expected], rtol=1e-5)
