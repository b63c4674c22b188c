"""Masks of the reduced frame: near targets are added whole, and what the frame itself shows is left alone."""

import numpy as np
import pytest
from support.scenes import SURE_UAV, frame

from model.metadata import Thresholds
from pipeline.segmentation.merging import LEAST_LENGTH_PX, REDUCTION, with_reduced
from pipeline.segmentation.postprocess import MapView, detect
from pipeline.types import Band, Detections, Frame, FrameRef

SIZE = (120, 90)


def components(
    *boxes: tuple[int, int, int, int], reduction: int = 1, scale: float = 1.0, score: float = 0.8
) -> Detections:
    """Return the components of a map of a frame, whose pixels are `scale` frame pixels, reduced once more.

    Boxes are xyxy in pixels of the network's input for the frame itself.
    """
    width, height = SIZE[0] // reduction, SIZE[1] // reduction
    maps = np.zeros((1, height, width), np.float32)
    for x0, y0, x1, y1 in boxes:
        maps[0, y0 // reduction : y1 // reduction, x0 // reduction : x1 // reduction] = score
    pixels = np.zeros((round(SIZE[1] * scale), round(SIZE[0] * scale)), np.uint8)
    one = Frame(FrameRef("north", "s", 0, 0.0, 0, 0), Band.INFRARED, pixels)
    return detect(maps, one, MapView((scale * reduction, scale * reduction)), ("uav",), Thresholds())


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_near_target_that_only_the_reduced_frame_shows_is_added_with_its_mask(scale: float):
    found = with_reduced(components(scale=scale), components((30, 30, 60, 48), reduction=REDUCTION, scale=scale))
    np.testing.assert_allclose(found.xyxy, np.array([[30, 30, 60, 48]]) * scale)
    (mask,) = found.masks
    assert (mask.left, mask.top, mask.width, mask.height) == (30, 30, 30, 18) and mask.unpack().all()
    assert found.mask_scale == (scale, scale) and found.mask_score == pytest.approx([0.8])


def test_it_takes_the_place_of_its_fragments():
    fine = components((31, 31, 34, 34), (55, 40, 59, 44), (90, 10, 96, 16))
    found = with_reduced(fine, components((30, 30, 60, 48), reduction=REDUCTION))
    assert found.xyxy.tolist() == [[90, 10, 96, 16], [30, 30, 60, 48]]


def test_what_the_frame_itself_shows_as_well_is_left_alone():
    fine = components((33, 30, 60, 48))
    assert with_reduced(fine, components((30, 30, 60, 48), reduction=REDUCTION)) is fine


def test_a_small_target_that_reduction_blurs_is_no_fragment():
    fine = components((36, 36, 41, 39))
    assert with_reduced(fine, components((30, 30, 48, 45), reduction=REDUCTION)) is fine


def test_small_targets_are_left_to_the_frame_itself():
    side = round(REDUCTION * LEAST_LENGTH_PX)
    small, large = ((30, 30, 30 + s, 30 + s) for s in (side - REDUCTION, side))
    assert len(with_reduced(components(), components(small, reduction=REDUCTION))) == 0
    assert len(with_reduced(components(), components(large, reduction=REDUCTION))) == 1


def test_a_frame_without_any_component_stays_empty():
    empty = frame(0, [])
    assert with_reduced(empty, components(reduction=REDUCTION)) is empty
    one = frame(0, [(60, 60, 8, SURE_UAV)])
    assert with_reduced(one, components(reduction=REDUCTION)) is one
