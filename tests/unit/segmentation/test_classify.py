"""Second-stage classification: crops, the cache of class scores, and the shipped classifier on real targets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.engine.engine import Engine
from model.metadata import CLASSES, CLUTTER, ClassifierConfig
from pipeline.capture.open import open_recording
from pipeline.segmentation.classify import (
    INITIAL_CLASSIFICATIONS,
    MAX_CLASSIFIED,
    RECLASSIFY_AFTER_S,
    ClassifierCache,
    crops,
    cut_out,
)
from pipeline.segmentation.segmenter import Segmenter
from pipeline.types import Band, Detections, Frame, FrameRef

REF = FrameRef("north", "session", 0, 0.0, 0, 0)
CLIPS = Path(__file__).parents[2] / "data" / "clips"
HOW = ClassifierConfig(context=2.0, least_px={"infrared": 24.0, "visible": 32.0})
SIDE = HOW.crop_px
ALL = np.ones(99, bool)


def found(*boxes: tuple[float, float, float, float], band: Band = Band.INFRARED) -> Detections:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(
        ref=REF,
        band=band,
        size_px=(320, 256),
        classes=CLASSES,
        xyxy=xyxy,
        score=np.full(len(boxes), 0.9, np.float32),
        class_scores=np.tile(np.array([0.1, 0.8, 0.1, 0.1], np.float32), (len(boxes), 1)),
        area_px=np.full(len(boxes), 20, np.float32),
        centroid=(xyxy[:, :2] + xyxy[:, 2:]) / 2,
    )


def square(x: int, y: int, side_px: int, shape: tuple[int, ...] = (256, 320, 3)) -> NDArray[np.uint8]:
    frame = np.zeros(shape, np.uint8)
    frame[y : y + side_px, x : x + side_px] = 200
    return frame


@pytest.mark.parametrize("side_px", [9, 16, 50, 120])
@pytest.mark.parametrize("place", [(100, 60), (0, 0)], ids=["inside", "corner"])
@pytest.mark.parametrize("shape", [(256, 320, 3), (256, 320)], ids=["colour", "grey"])
def test_a_target_is_in_the_middle_of_its_crop_and_fills_as_much_of_it_at_any_size(
    side_px: int, place: tuple[int, int], shape: tuple[int, ...]
) -> None:
    x, y = place
    [crop] = crops(square(x, y, side_px, shape), found((x, y, x + side_px, y + side_px)), [0], HOW)
    assert crop.shape == (SIDE, SIDE, 3) and crop.dtype == np.uint8
    assert crop[SIDE // 2, SIDE // 2, 0] == 200
    if place == (100, 60):  # at an edge its mirror image is there too
        rows, columns = np.nonzero(crop[..., 0] > 100)
        assert rows.mean() == pytest.approx((SIDE - 1) / 2, abs=0.6) == columns.mean()
        filled = min(1 / HOW.context, side_px / HOW.least_px["infrared"])  # the smallest are not blown up as far
        assert np.ptp(rows) + 1 == pytest.approx(filled * SIDE, abs=1.5)


def test_the_smallest_targets_are_enlarged_by_what_their_band_says() -> None:
    frame = square(100, 60, 4)
    for band, least_px in HOW.least_px.items():
        [crop] = crops(frame, found((100, 60, 104, 64), band=Band(band)), [0], HOW)
        rows = np.nonzero(crop[..., 0] > 100)[0]
        assert np.ptp(rows) + 1 == pytest.approx(4 * SIDE / least_px, abs=1)


def test_a_large_target_is_averaged_not_sampled() -> None:
    frame = np.zeros((1080, 1920, 3), np.uint8)
    frame[:, ::2] = 200  # stripes finer than the crop's pixels
    [crop] = crops(frame, found((400, 200, 1000, 800)), [0], HOW)
    assert crop.min() > 50 and crop.max() < 150  # a sampled one would be black and white


def test_more_room_shows_the_same_middle() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (256, 320, 3), np.uint8)
    box = (100.0, 60.0, 130.0, 80.0)
    close, wide = (cut_out(frame, box, "infrared", HOW, margin) for margin in (1.0, 1.5))
    middle = wide[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    np.testing.assert_allclose(middle.astype(int), close.astype(int), atol=1)


def test_crops_are_of_the_rows_that_were_asked_for() -> None:
    frame, boxes = square(50, 50, 4), found((10, 10, 14, 14), (50, 50, 54, 54))
    assert crops(frame, boxes, [], HOW).shape == (0, SIDE, SIDE, 3)
    dark, light = crops(frame, boxes, [0, 1], HOW)
    assert dark.max() == 0 and light.max() == 200


def at(detections: Detections, pts_s: float) -> Detections:
    return replace(detections, ref=FrameRef("north", "session", 0, pts_s, 0, 0))


def test_a_flock_costs_no_more_than_the_bound() -> None:
    boxes = [(20.0 * n, 20.0, 20.0 * n + 5, 25.0) for n in range(20)]
    cache = ClassifierCache(MAX_CLASSIFIED)
    assert cache.due(found(*boxes), ALL) == list(range(MAX_CLASSIFIED)) and cache.due(found(), ALL) == []


def test_a_detection_too_small_to_start_a_track_is_not_classified():
    detections = found((10, 10, 14, 14), (50, 50, 54, 54))  # of 20 px each
    assert ClassifierCache(MAX_CLASSIFIED).due(detections, detections.large(20)) == [0, 1]
    assert ClassifierCache(MAX_CLASSIFIED).due(detections, detections.large(21)) == []
    assert replace(detections, mask_scale=(2.0, 2.0)).large(6).tolist() == [False, False]


def test_classified_detections_have_the_classifiers_scores_and_the_rest_none() -> None:
    detections = found((10, 10, 14, 14), (30, 30, 34, 34), (50, 50, 54, 54))
    seen = np.array([[0.9, 0.0, 0.1, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0, 0.9]], np.float32)
    after = ClassifierCache(MAX_CLASSIFIED).with_class_scores(detections, HOW.classes, dict(enumerate(seen)))
    assert after.classes == HOW.classes
    np.testing.assert_array_equal(after.class_scores, [*seen, np.zeros(5)])
    assert detections.class_scores.shape == (3, 4)
    assert ClassifierCache(MAX_CLASSIFIED).with_class_scores(found(), HOW.classes, {}).class_scores.shape == (
        0,
        len(HOW.classes),
    )


def test_a_target_that_stays_is_classified_less_often_and_keeps_its_scores_meanwhile() -> None:
    cache, classified = ClassifierCache(MAX_CLASSIFIED), []
    for number in range(30):  # 25 frames a second; it moves by half its length a frame
        target = at(found((10 + 2 * number, 10, 14 + 2 * number, 14)), number / 25)
        due = cache.due(target, ALL)
        classified += [number] * len(due)
        scores = np.full(len(HOW.classes), number, np.float32)
        after = cache.with_class_scores(target, HOW.classes, dict.fromkeys(due, scores))
        assert after.class_scores[0, 0] == classified[-1]
    assert classified[:INITIAL_CLASSIFICATIONS] == list(range(INITIAL_CLASSIFICATIONS))
    intervals = np.diff(classified[INITIAL_CLASSIFICATIONS - 1 :])
    assert set(intervals) == {int(RECLASSIFY_AFTER_S * 25) + 1}


@pytest.mark.parametrize(
    ("pts_s", "x"), [(0.02, 60), (5.0, 10), (-3.0, 10)], ids=["far from it", "long after", "time ran backwards"]
)
def test_a_detection_that_may_be_another_target_is_classified(pts_s: float, x: float) -> None:
    cache, scores = ClassifierCache(MAX_CLASSIFIED), np.ones(len(HOW.classes), np.float32)
    for _ in range(INITIAL_CLASSIFICATIONS):
        cache.with_class_scores(at(found((10, 10, 14, 14)), 0), HOW.classes, {0: scores})
    assert cache.due(at(found((10, 10, 14, 14)), 0.02), ALL) == []
    assert cache.due(at(found((x, 10, x + 4, 14)), pts_s), ALL) == [0]


@pytest.fixture(scope="module")
def engine() -> Engine:
    with Engine("model/weights/dasnet.safetensors", threads=1) as made:
        yield made


def frames_of(clip: str, numbers: range) -> list[Frame]:
    source, kept = open_recording(CLIPS / f"{clip}.mp4"), []
    for number, picture in enumerate(source.frames()):
        if number in numbers:
            kept.append(Frame(FrameRef(clip, clip, number, picture.pts_s, 0, 0), Band.INFRARED, picture.pixels))
    source.close()
    return kept


@pytest.mark.parametrize(
    ("clip", "name"), [("IR_DRONE_015", "uav"), ("IR_BIRD_003", "bird"), ("IR_HELICOPTER_010", "helicopter")]
)
def test_the_shipped_checkpoint_classifies_real_targets(engine: Engine, clip: str, name: str) -> None:
    labels, segmenter = [], Segmenter(engine)
    for frame in frames_of(clip, range(0, 120, 20)):
        [batch] = segmenter.submit([frame])
        [detected] = segmenter.detect(batch)
        [classified] = segmenter.classify([frame], [detected])
        np.testing.assert_array_equal(classified.xyxy, detected.xyxy)
        assert detected.classes == engine.metadata.classes and classified.classes == engine.metadata.detected_classes
        labels += [classified.classes[best] for best in classified.class_scores.argmax(axis=1)]
    labels = [label for label in labels if label != CLUTTER]  # in the helicopter's clip
    assert len(labels) >= 3 and labels.count(name) > len(labels) / 2, labels


def test_without_a_classifier_the_network_s_own_class_scores_remain(engine: Engine) -> None:
    [frame] = frames_of("IR_DRONE_015", range(1))
    classify, engine.classify = engine.classify, None
    try:
        segmenter = Segmenter(engine)
        [batch] = segmenter.submit([frame])
        [detections] = segmenter.finish(batch)
    finally:
        engine.classify = classify
    assert detections.classes == CLASSES and len(detections)
