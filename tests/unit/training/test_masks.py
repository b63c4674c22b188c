"""Pseudo-masks: against spots whose shape is known, and against the exact masks of procedural scenes."""

from collections import defaultdict
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.imaging.synthetic_scene import Look, Scene
from training.masks import box_mask

SIZES_PX = ((3, 6), (6, 12), (12, 30))  # the longer side of a target's tight box


def spot(size_px: float, side: int = 64, contrast: float = 70.0, noise: float = 2.0) -> tuple[Any, Any]:
    """A blurred disc on noise, a little off the centre: the image and the true mask."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[: side * 8, : side * 8] / 8
    centre = side / 2 + 0.3
    disc = (np.hypot(rows - centre, columns - centre) < size_px / 2).astype(np.float32)
    cover = cv2.resize(disc, (side, side), interpolation=cv2.INTER_AREA)
    pixels = 100 + contrast * cv2.GaussianBlur(cover, (0, 0), 0.6) + rng.normal(0, noise, (side, side))
    return np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], 3, axis=2), cover > 0.5


@pytest.mark.parametrize(("size_px", "margin_px", "least_iou"), [(3, 2, 0.5), (5, 3, 0.65), (9, 4, 0.75), (20, 5, 0.8)])
@pytest.mark.parametrize("contrast", [40.0, -80.0])
def test_pseudo_mask_overlaps_truth(size_px: int, margin_px: int, least_iou: float, contrast: float) -> None:
    image, truth = spot(size_px, contrast=contrast)
    half = size_px / 2 + margin_px
    mask, left, top = box_mask(image, (32 - half, 32 - half, 33 + half, 33 + half))
    found = np.zeros(truth.shape, bool)
    found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert (found & truth).sum() / (found | truth).sum() >= least_iou


def test_pseudo_mask_ignores_a_tree_line_beside_the_box() -> None:
    image, truth = spot(9)
    image[42:] = 10
    mask, left, top = box_mask(image, (24.0, 24.0, 41.0, 41.0))
    found = np.zeros(truth.shape, bool)
    found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert (found & truth).sum() / (found | truth).sum() >= 0.6


def test_pseudo_mask_without_contrast_is_a_small_ellipse() -> None:
    mask, _, _ = box_mask(np.full((64, 64, 3), 90, np.uint8), (20.0, 20.0, 40.0, 36.0))
    assert 0 < mask.sum() < 0.3 * mask.size


def test_pseudo_mask_of_a_box_off_the_frame_is_empty() -> None:
    assert box_mask(np.zeros((10, 10, 3), np.uint8), (20.0, 20.0, 30.0, 30.0))[0].size == 0


def test_pseudo_masks_of_scenes_come_close_to_the_exact_ones() -> None:
    """Boxes 0 to 4 pixels too large on each side, all looks, clear and cloudy skies.

    The means that the first rule came to on other scenes were 0.40, 0.43 and 0.54; this one 0.69, 0.73 and 0.70.
    """
    found = overlaps()
    assert [len(found[size]) >= 20 for size in SIZES_PX] == [True] * 3
    for size, least_iou in zip(SIZES_PX, (0.6, 0.63, 0.63), strict=True):
        assert np.mean(found[size]) >= least_iou, size


def overlaps() -> dict[tuple[int, int], list[float]]:
    """IoU of the masks found, by size."""
    rng, found = np.random.default_rng(1), defaultdict(list)
    for seed in range(12):
        scale = (0.6, 1.2, 2.4)[seed % 3]
        scene = Scene(
            seed, 224, 192, list(Look)[seed % 5], ("fixed_wing", "quadcopter", "bird"), 0.1 * (seed % 9), scale
        )
        for time_s in rng.uniform(0, 600, 8):
            image, seen = scene.render(float(time_s))
            for truth in seen:
                x0, y0, x1, y1 = truth.xyxy
                size_px = max(x1 - x0, y1 - y0)
                size = next((size for size in SIZES_PX if size[0] <= size_px < size[1]), None)
                if size is None or min(x0, y0) < 5 or x1 > 219 or y1 > 187:
                    continue
                left, top, right, bottom = (float(value) for value in rng.integers(0, 5, 4))
                exact = np.zeros(image.shape[:2], bool)
                exact[truth.window] = truth.mask
                mask = whole(image.shape, *box_mask(image, (x0 - left, y0 - top, x1 + right, y1 + bottom)))
                found[size].append(float((mask & exact).sum() / (mask | exact).sum()))
    return found


def whole(shape: tuple[int, ...], mask: Any, left: int, top: int) -> Any:
    """A mask in its place in the frame."""
    found = np.zeros(shape[:2], bool)
    found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return found


def test_a_faint_smear_beside_the_object_is_left_out() -> None:
    image, truth = spot(5)
    image[34:37, 36:44] += 4  # what compression leaves
    mask = whole(image.shape, *box_mask(image, (22.0, 22.0, 43.0, 43.0)))
    assert (mask & ~truth).sum() < truth.sum()
    assert not mask[:, 38:].any()


def test_a_background_that_rises_is_no_object() -> None:
    image, truth = spot(4, contrast=40)
    slope = np.linspace(0, 70, 64).astype(np.uint8)[:, None, None]
    mask = whole(image.shape, *box_mask(image + slope, (26.0, 26.0, 39.0, 39.0)))
    assert (mask & truth).sum() / (mask | truth).sum() > 0.45


def test_a_bright_cloud_behind_a_dark_drone_is_no_part_of_it() -> None:
    image, truth = spot(8, contrast=-70)
    cloud = cv2.circle(np.zeros((64, 64), np.float32), (40, 38), 5, 35, -1)
    image = np.clip(image + cv2.GaussianBlur(cloud, (0, 0), 1.5)[..., None], 0, 255).astype(np.uint8)
    mask = whole(image.shape, *box_mask(image, (24.0, 24.0, 43.0, 43.0)))
    assert (mask & truth).sum() / (mask | truth).sum() > 0.6
