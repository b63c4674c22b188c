"""Camera motion and chips: the native library computes what OpenCV and NumPy do."""

import cv2
import numpy as np
import pytest
from support.native import needs_native

from model.native import pixels as native
from pipeline.segmentation.camera_motion import reference_refined, reference_residual, refined, residual
from pipeline.segmentation.chips import _cut
from pipeline.segmentation.frame_history import SMOOTH_STEPS, PastFrame, reference_blurred

pytestmark = needs_native


def shifted(random: np.random.Generator, shift_px: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return two views of a world, the second moved, with noise of its own."""
    world = cv2.GaussianBlur(random.normal(110, 30, (160, 200)).astype(np.float32), (0, 0), 2)
    transform = np.array([[1, 0, shift_px[0]], [0, 1, shift_px[1]]], np.float32)
    moved = cv2.warpAffine(world, transform, (200, 160)) + random.normal(0, 1, world.shape).astype(np.float32)
    return world[16:144, 20:180].copy(), moved[16:144, 20:180].copy()


@pytest.mark.parametrize("shift_px", [(0.0, 0.0), (0.4, -0.3), (7.25, 3.5), (-15.8, 9.1), (20.0, -14.9)])
def test_positions_are_refined_alike(shift_px: tuple[float, float]):
    random = np.random.default_rng(3)
    reference, image = shifted(random, shift_px)
    for _ in range(5):
        start = shift_px[0] + random.uniform(-0.6, 0.6), shift_px[1] + random.uniform(-0.6, 0.6)
        found = refined(reference, image, start)
        assert found == pytest.approx(reference_refined(reference, image, start), abs=2e-3)
        assert found == pytest.approx(shift_px, abs=0.1)


@pytest.mark.parametrize("size", [(8, 160), (128, 160), (5, 3)])
def test_without_contrast_or_overlap_the_start_is_kept(size: tuple[int, int]):
    flat = np.full(size, 90, np.float32)
    for start in [(0.3, -0.2), (2.0, 1.0)]:
        assert refined(flat, flat, start) == start == reference_refined(flat, flat, start)


@pytest.mark.parametrize("position", [(0.0, 0.0), (12.4, -7.6), (-100.0, 3.0), (159.0, -127.0)])
def test_residuals_are_medians(position: tuple[float, float]):
    reference, image = shifted(np.random.default_rng(4), (1.0, 2.0))
    assert residual(reference, image, position) == reference_residual(reference, image, position)
    assert residual(reference, image, (160.0, 0.0)) == np.inf


@pytest.mark.parametrize("size", [(90, 120), (48, 48), (3, 7), (1, 1)])
def test_chips_are_cut_alike_also_at_the_edges(size: tuple[int, int]):
    random = np.random.default_rng(5)
    images = [random.integers(0, 256, size, np.uint8) for _ in range(3)]
    places = random.uniform(-30, 150, (40, 3, 2))
    for crops, points in zip(native.cut(images, places - 24, 48), places, strict=True):
        for image, crop, (x, y) in zip(images, crops, points, strict=True):
            frame = PastFrame(0.0, image, np.empty(size, np.uint16), (0.0, 0.0), size[1], size[0])
            expected = _cut(frame, float(x), float(y), 1.0, 48)
            assert np.abs(crop.astype(int) - expected).max() <= 1, "rounded to another side"
            assert np.mean(crop != expected) < 0.01


@pytest.mark.parametrize("size", [(90, 120), (7, 131), (2, 3), (1, 1)])
def test_images_are_blurred_alike(size: tuple[int, int]):
    grey = np.random.default_rng(6).integers(0, 256, size, np.uint8)
    grey[0] = 255
    kernel = cv2.getGaussianKernel(5, 1.0, cv2.CV_32F).astype(np.float32)
    difference = native.blurred(grey, kernel).astype(int) - reference_blurred(grey, kernel)
    assert np.abs(difference).max() <= 1, "rounded to another side"
    assert (native.blurred(np.full(size, 255, np.uint8), kernel) == 255 * SMOOTH_STEPS).all()
