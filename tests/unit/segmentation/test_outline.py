"""Outlines: tight boxes of small targets, and none where nothing stands out."""

import numpy as np
import pytest
from support.moving_scenes import CLOUDS, Blob, Scene

from pipeline.segmentation.outline import outline, point_outline
from pipeline.segmentation.proposals import iou


def overlaps(size_px: tuple[float, float], contrast: float, off_px: float = 1.5) -> list[float]:
    """Return the IoU of outlines with the true boxes of targets at different places of different skies.

    `off_px`: how far the point may be beside the target's centre.
    """
    random = np.random.default_rng(5)
    found = []
    for seed in range(4):
        blobs = [
            Blob(40 + 80 * column + random.random(), 40 + 70 * row + random.random(), (0, 0), size_px, contrast)
            for column in range(3)
            for row in range(3)
        ]
        image = Scene(blobs, (240, 220), texture=CLOUDS, seed=seed).image(0)
        for blob in blobs:
            x, y = blob.x_px, blob.y_px
            made = outline(image, x + random.uniform(-off_px, off_px), y + random.uniform(-off_px, off_px))
            found.append(0.0 if made is None else iou(made.xyxy, blob.box(x, y)))
    return found


@pytest.mark.parametrize("contrast", [60, -60, 30, -30])
@pytest.mark.parametrize("size_px", [(5, 5), (8, 5), (6, 10), (14, 14), (20, 12), (20, 20)])
def test_the_boxes_of_small_targets_are_tight(size_px: tuple[float, float], contrast: float):
    found = overlaps(size_px, contrast)
    assert np.mean(np.array(found) >= 0.6) > 0.95 and np.median(found) >= 0.75


def test_a_mask_covers_the_target_and_its_centre_is_the_targets():
    blob = Blob(60.3, 50.8, size_px=(12, 8))
    made = outline(Scene([blob], texture=CLOUDS).image(0), 62, 50)
    assert made is not None and made.mask.dtype == np.bool_
    assert made.centroid == pytest.approx((60.3, 50.8), abs=0.4)
    assert made.mask.sum() == pytest.approx(np.pi * 6 * 4, rel=0.25)
    left, top, right, bottom = made.xyxy
    assert made.mask.shape == (bottom - top, right - left) and (made.left, made.top) == (left, top)
    assert all(edge.any() for edge in (made.mask[0], made.mask[-1], made.mask[:, 0], made.mask[:, -1]))


def test_a_near_target_needs_to_be_expected():
    blob = Blob(160, 128, size_px=(70, 40))
    image = Scene([blob], (320, 256), texture=CLOUDS).image(0)
    assert outline(image, 160, 128) is None, "it fills the window"
    made = outline(image, 160, 128, length_px=60)
    assert made is not None and iou(made.xyxy, blob.box(160, 128)) > 0.8


@pytest.mark.parametrize("place", [(2, 60), (158, 60), (80, 1), (80, 127), (1, 1), (159, 127)])
def test_at_the_edge_the_box_ends_with_the_frame(place: tuple[float, float]):
    blob = Blob(*place, size_px=(9, 9))
    made = outline(Scene([blob], texture=CLOUDS).image(0), *place)
    assert made is not None
    visible = blob.box(*place).clip(0, [160, 128, 160, 128]).astype(np.float32)
    assert iou(made.xyxy, visible) > 0.6
    assert (made.xyxy >= 0).all() and (made.xyxy <= [160, 128, 160, 128]).all()


def test_of_two_targets_the_one_at_the_point():
    bright, dark = Blob(60, 60, size_px=(8, 8)), Blob(72, 60, size_px=(8, 8), contrast=-60)
    image = Scene([bright, dark], texture=CLOUDS).image(0)
    for blob in (bright, dark):
        made = outline(image, blob.x_px, blob.y_px)
        assert made is not None and iou(made.xyxy, blob.box(blob.x_px, blob.y_px)) > 0.6


@pytest.mark.parametrize("texture", [0, CLOUDS])
def test_where_nothing_stands_out_there_is_none(texture: float):
    image = Scene(texture=texture).image(0)
    found = [outline(image, x, y) for x in range(20, 150, 30) for y in range(20, 120, 20)]
    assert sum(made is not None for made in found) <= 0.1 * len(found)
    assert outline(np.full((40, 60), 90, np.uint8), 30, 20) is None


def test_the_edge_of_a_roof_has_no_end():
    image = Scene(texture=CLOUDS).image(0)
    image[64:] = 200
    assert outline(image, 80, 66) is None


@pytest.mark.parametrize("shape", [(8, 8), (1, 1), (40, 1), (1, 40), (3, 3), (2, 5), (16, 512)])
def test_frames_of_any_size_and_points_beside_them(shape: tuple[int, int]):
    image = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    image[shape[0] // 2, shape[1] // 2] = 255
    height, width = shape
    for x, y in [(0, 0), (width / 2, height / 2), (width, height), (-9.5, 1e4)]:
        for made in (outline(image, x, y), point_outline(image, x, y)):
            assert made is None or ((made.xyxy >= 0).all() and (made.xyxy <= [width, height, width, height]).all())
        made = point_outline(image, x, y)
        assert made.mask.all() and made.mask.shape == (min(3, height), min(3, width))


def test_a_point_is_three_by_three_pixels_around_it():
    assert point_outline(np.zeros((20, 30), np.uint8), 12.7, 5.2).xyxy.tolist() == [11, 4, 14, 7]
    assert point_outline(np.zeros((20, 30), np.uint8), 0, 20).xyxy.tolist() == [0, 17, 3, 20]


def test_a_colder_target_is_outlined_as_a_hotter_one():
    image = Scene([Blob(60, 50, size_px=(9, 6))], texture=CLOUDS).image(0)
    hot, cold = outline(image, 60, 50), outline(255 - image, 60, 50)
    assert hot is not None and cold is not None
    np.testing.assert_array_equal(hot.mask, cold.mask)
