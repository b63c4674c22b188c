"""Proposals: masks, motion and expected targets become rows, where the camera is watched, with tight boxes."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.moving_scenes import CLOUDS, Blob, Scene
from support.scenes import SURE_UAV, frame

from pipeline.segmentation.motion import Candidate
from pipeline.segmentation.postprocess import MapView
from pipeline.segmentation.proposals import FORGET_S, POINT_PX, Coverage, ExpectedTargets, iou, outlined, with_motion
from pipeline.types import Band, Detections

NONE_EXPECTED = np.zeros((0, 4), np.float32)
WHOLE = MapView()


def masks(*targets: tuple[float, float, float], band: Band = Band.VISIBLE, **columns) -> Detections:
    """Return mask components: x, y, side."""
    made = frame(0, [(*target, SURE_UAV) for target in targets], band=band)
    return replace(made, score=made.mask_score, **columns)


def boxes(*places: tuple[float, float, float]) -> np.ndarray:
    return np.array([(x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s in places], np.float32).reshape(-1, 4)


def test_motion_in_or_beside_a_masks_box_is_that_masks_own():
    moving = [Candidate(100, 100, 9), Candidate(106, 95, 12), Candidate(111.5, 100, 7), Candidate(112.5, 100, 4)]
    found = with_motion(masks((100, 100, 20), (300, 300, 20)), moving, NONE_EXPECTED, WHOLE)
    assert found.motion_score.tolist() == [12, 0, 4] and len(found) == 3, "2 px beside it belong to it, more do not"
    assert found.mask_score.tolist() == pytest.approx([0.9, 0.9, 0])


def test_other_motion_becomes_a_row_without_anything_but_its_place():
    moving = [Candidate(200, 150, 9), Candidate(50.5, 60.5, 6, 30)]
    found = with_motion(masks((300, 300, 20)), moving, NONE_EXPECTED, WHOLE)
    np.testing.assert_allclose(found.xyxy[1:], boxes((200, 150, POINT_PX), (50.5, 60.5, 30)))
    np.testing.assert_allclose(found.centroid[1:], [(200, 150), (50.5, 60.5)])
    assert found.motion_score.tolist() == [0, 9, 6] and len(found.masks) == 3
    for column in (found.score, found.mask_score, found.novelty, found.class_scores):
        assert not column[1:].any()
    alone = with_motion(masks(), moving, NONE_EXPECTED, WHOLE)
    assert len(alone) == 2 and alone.rows(np.array([1])).xyxy.shape == (1, 4)
    assert len(with_motion(masks(), [], NONE_EXPECTED, WHOLE)) == 0


def test_only_where_the_camera_is_watched():
    view = MapView(region=(100, 50, 400, 300), ignore=[[(200, 100), (260, 100), (260, 160), (200, 160)]])
    inside, outside = [(150, 200), (399, 299), (100, 50), (190, 130)], [(99, 200), (400, 200), (150, 300), (230, 130)]
    for rows in (
        with_motion(masks(), [Candidate(x, y, 9) for x, y in inside + outside], NONE_EXPECTED, view),
        with_motion(masks(), [], boxes(*((x, y, 8) for x, y in inside + outside)), view),
    ):
        assert [tuple(place) for place in rows.centroid] == inside


def test_an_expected_target_without_mask_or_motion_near_it_is_looked_at():
    expected = boxes((100, 100, 10), (200, 200, 10), (300, 300, 10), (400, 400, 1))
    found = with_motion(masks((109, 100, 20)), [Candidate(200, 196, 5)], expected, WHOLE)
    np.testing.assert_allclose(found.xyxy[2:], boxes((300, 300, 10), (400, 400, POINT_PX)))
    assert found.motion_score.tolist() == [0, 5, 0, 0]
    beside = with_motion(masks(), [Candidate(200, 192, 5)], expected[1:2], WHOLE)
    np.testing.assert_allclose(beside.xyxy[1], expected[1]), "that may be noise, and the target hover"


def seen(seq: int, *targets: tuple[float, float, float], score: float = 0.9) -> Detections:
    made = frame(seq, [(*target, SURE_UAV) for target in targets])
    return replace(made, score=np.full(len(made), score, np.float32))


def test_targets_are_expected_where_they_fly_on_and_the_camera_turns():
    expected, pan = ExpectedTargets(), np.array([2.0, -1.0])
    for seq in range(40):
        places = [
            (100 + 3 * seq + pan[0] * seq, 50 + pan[1] * seq, 8.0),
            (400 + pan[0] * seq, 300 + pan[1] * seq, 20.0),
        ]
        found = expected.predict(seq / 30, tuple(pan) if seq else None)
        if seq > 20:
            np.testing.assert_allclose(found, boxes(*places), atol=0.6)
        expected.update(seen(seq, *places))
    for seq in range(40, 46):  # hidden
        (box, _) = expected.predict(seq / 30, tuple(pan))
        np.testing.assert_allclose(box, boxes((100 + 5 * seq, 50 - seq, 8.0))[0], atol=1)


def test_a_target_that_is_not_seen_is_forgotten():
    expected = ExpectedTargets()
    expected.update(seen(0, (100, 100, 8)))
    assert len(expected.predict(FORGET_S - 0.01, (0, 0))) == 1
    assert len(expected.predict(FORGET_S + 0.01, (0, 0))) == 0


@pytest.mark.parametrize("pts_s", [-5.0, 0.0, 900.0])
def test_nothing_is_expected_where_frames_do_not_continue(pts_s: float):
    expected = ExpectedTargets()
    expected.update(seen(0, (100, 100, 8)))
    assert expected.predict(pts_s, (0.0, 0.0)).shape == (0, 4)


def test_where_the_motion_of_the_camera_is_unknown_targets_are_expected_where_they_were():
    expected = ExpectedTargets()
    for seq in range(5):  # to the right
        expected.predict(seq / 30, (0, 0))
        expected.update(seen(seq, (100 + 4 * seq, 100, 8)))
    moved = expected.predict(5 / 30, (0, 0))
    assert moved[0, 0] > 112 + 2
    for seq in (6, 7):
        assert expected.predict(seq / 30, None).tolist() == moved.tolist()


@pytest.mark.parametrize(("age_s", "score"), [(0.1, 0.9), (0.3, 0.5)])
def test_the_score_of_a_mask_is_remembered_and_soon_less_of_it(age_s: float, score: float):
    targets = ExpectedTargets()
    targets.predict(0.0, (0.0, 0.0))
    targets.update(masks((100, 100, 10)))
    near = np.array([0.9], np.float32)
    targets.predict(0.1, (0.0, 0.0))
    at = msgspec.structs.replace(masks((100, 100, 10)).ref, pts_s=0.1)
    targets.with_remembered_masks(replace(masks((100, 100, 10), mask_score=near), ref=at), Coverage([(0, 0, 640, 512)]))
    targets.predict(0.1 + age_s, (0.0, 0.0))
    row = replace(masks((100, 100, 10), mask_score=near * 0), ref=msgspec.structs.replace(at, pts_s=0.1 + age_s))
    assert targets.with_remembered_masks(row, Coverage([])).mask_score.tolist() == pytest.approx([score])


def test_what_is_improbable_is_not_expected_and_their_number_is_bounded():
    expected = ExpectedTargets()
    expected.update(seen(0, (100, 100, 8), score=0.4))
    assert len(expected.predict(0.03, (0, 0))) == 0
    random = np.random.default_rng(0)
    for seq in range(1, 100):
        count = len(expected.predict(seq / 30, (0.0, 0.0)))
        assert count <= 5 * (FORGET_S * 30 + 1)
        expected.update(seen(seq, *[(*random.uniform(0, 500, 2), 8.0) for _ in range(5)]))


SKY = (640, 512)


def test_a_row_without_a_mask_gets_the_bounds_of_what_stands_out():
    blob = Blob(200, 150, size_px=(10, 7))
    grey = Scene([blob], SKY, texture=CLOUDS).image(0)
    points = with_motion(masks(), [Candidate(201, 149, 9), Candidate(400, 400, 9)], NONE_EXPECTED, WHOLE)
    found = outlined(replace(points, mask_scale=(2.0, 2.0)), grey)
    assert iou(found.xyxy[0], blob.box(200, 150)) > 0.6
    assert found.centroid[0] == pytest.approx((200, 150), abs=0.5)
    assert found.area_px[0] == pytest.approx(np.pi * 5 * 3.5, rel=0.3)
    mask = found.masks[0]
    assert np.array([mask.left, mask.top, mask.left + mask.width, mask.top + mask.height]) * 2 == pytest.approx(
        found.xyxy[0], abs=1.1
    )
    assert mask.unpack().any()
    np.testing.assert_allclose(found.xyxy[1], boxes((400.5, 400.5, 3))[0], atol=1), "where nothing stands out, a point"


def test_boxes_are_the_cameras_where_frames_are_kept_reduced():
    blob = Blob(200, 150, size_px=(10, 7))
    grey = Scene([blob], SKY, texture=CLOUDS).image(0)
    points = replace(with_motion(masks(), [Candidate(400, 300, 9)], NONE_EXPECTED, WHOLE), size_px=(1280, 1024))
    found = outlined(points, grey)
    assert iou(found.xyxy[0], 2 * blob.box(200, 150)) > 0.6
    assert found.area_px[0] == pytest.approx(4 * np.pi * 5 * 3.5, rel=0.3)


def test_an_infrared_masks_box_is_tightened_where_the_outline_agrees():
    blob = Blob(200, 150, size_px=(12, 12))
    grey = Scene([blob], SKY, texture=CLOUDS).image(0)
    loose = masks((200, 150, 20), (400, 400, 20), band=Band.INFRARED)
    found = outlined(loose, grey)
    assert iou(found.xyxy[0], blob.box(200, 150)) > 0.7 > iou(loose.xyxy[0], blob.box(200, 150))
    np.testing.assert_array_equal(found.xyxy[1], loose.xyxy[1])
    for column in ("centroid", "area_px", "score"):
        np.testing.assert_array_equal(getattr(found, column), getattr(loose, column))
    assert found.masks == loose.masks
    beside = masks((214, 150, 16), band=Band.INFRARED)  # its mask is something else
    np.testing.assert_array_equal(outlined(beside, grey).xyxy, beside.xyxy)
    np.testing.assert_array_equal(outlined(replace(loose, band=Band.VISIBLE), grey).xyxy, loose.xyxy)


def test_of_several_points_on_one_target_the_most_probable_stays_and_every_mask():
    grey = Scene([Blob(200, 150, size_px=(16, 12))], SKY, texture=CLOUDS).image(0)
    moving = [Candidate(195, 150, 9), Candidate(204, 151, 8), Candidate(200, 148, 7), Candidate(300, 300, 5)]
    points = with_motion(masks(), moving, NONE_EXPECTED, WHOLE)
    found = outlined(replace(points, score=np.array([0.3, 0.8, 0.5, 0.2], np.float32)), grey)
    assert found.score.tolist() == pytest.approx([0.8, 0.2])
    both = with_motion(masks((200, 150, 12), (203, 150, 12)), [Candidate(216, 150, 9)], NONE_EXPECTED, WHOLE)
    found = outlined(replace(both, score=np.array([0.3, 0.2, 0.9], np.float32)), grey)
    assert found.mask_score.tolist() == pytest.approx([0.9, 0.9, 0]), "that one is another target"


@pytest.mark.parametrize("size_px", [(8, 8), (1, 30), (30, 1), (1, 1)])
def test_rows_of_tiny_frames_stay_inside(size_px: tuple[int, int]):
    width, height = size_px
    grey = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    moving = [Candidate(0.5, 0.5, 9), Candidate(width - 0.5, height - 0.5, 8)]
    points = replace(with_motion(masks(), moving, NONE_EXPECTED, MapView(region=(0, 0, *size_px))), size_px=size_px)
    found = outlined(points, grey)
    assert len(found) >= 1 and (found.xyxy[:, 2:] > found.xyxy[:, :2]).all()
    assert (found.xyxy >= 0).all() and (found.xyxy <= [*size_px, *size_px]).all()


@pytest.mark.parametrize("moving", [True, False])
def test_what_is_remembered_of_a_target_is_said_of_one_row_only(moving: bool):
    """Else the place where it was is taken for another one."""
    targets = ExpectedTargets()
    targets.predict(0.0, (0.0, 0.0))
    targets.update(masks((100, 100, 10)))
    targets.predict(0.1, (0.0, 0.0))
    at = msgspec.structs.replace(masks((100, 100, 10)).ref, pts_s=0.1)
    targets.with_remembered_masks(replace(masks((100, 100, 10)), ref=at), Coverage([(0, 0, 640, 512)]))
    targets.predict(0.3, (0.0, 0.0))
    later = msgspec.structs.replace(at, pts_s=0.3)
    rows = masks((101, 100, 3), (106, 100, 3), mask_score=np.zeros(2, np.float32))
    rows = replace(rows, ref=later, motion_score=np.array([0, 5.0 * moving], np.float32))
    elsewhere = targets.with_remembered_masks(rows, Coverage([(300, 300, 400, 400)]))
    assert elsewhere.mask_score.tolist() == pytest.approx([0, 0.5] if moving else [0.5, 0])
    assert (targets.with_remembered_masks(rows, Coverage([(0, 0, 640, 512)])).mask_score == 0).all(), "seen to be gone"
