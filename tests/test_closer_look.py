"""What was found is cut out at a finer scale, judged again, and told apart by that."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.engine import Engine
from pipeline.capture.sources import open_recording
from pipeline.segmentation.closer_look import MOST, SIDE_PX, class_scores, looks, told_apart
from pipeline.segmentation.segmenter import Segmenter
from pipeline.types import Band, Detections, Frame, FrameRef

REF = FrameRef("north", "session", 0, 0.0, 0, 0)
CLASSES = ("uav", "bird", "airplane", "helicopter")
CLIPS = Path(__file__).parent / "data" / "clips"


def found(*boxes: tuple[float, float, float, float]) -> Detections:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(
        ref=REF,
        band=Band.INFRARED,
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


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("place", [(150, 100), (0, 0), (311, 247)], ids=["inside", "corner", "other corner"])
@pytest.mark.parametrize("shape", [(256, 320, 3), (256, 320)], ids=["colour", "grey"])
def test_a_target_is_in_the_middle_of_its_crop_at_the_finer_scale(
    scale: float, place: tuple[int, int], shape: tuple[int, ...]
) -> None:
    x, y = place
    [look] = looks(square(x, y, 9, shape), found((x, y, x + 9, y + 9)), 0.5, scale)
    assert look.row == 0 and look.crop.shape == (SIDE_PX, SIDE_PX, 3) and look.crop.dtype == np.uint8
    if place == (150, 100):  # at an edge its mirror image is there too
        rows, columns = np.nonzero(look.crop[..., 0] > 100)
        assert rows.mean() == columns.mean() == (SIDE_PX - 1) / 2
        assert np.ptp(rows) + 1 == pytest.approx(9 * scale, abs=1)
    assert look.crop[SIDE_PX // 2, SIDE_PX // 2, 0] == 200


def test_what_is_large_already_is_not_looked_at_again() -> None:
    frame = square(100, 60, 120)
    assert looks(frame, found((100, 60, 220, 180)), 1.0, 2.0) == []
    [look] = looks(square(100, 60, 20), found((100, 60, 120, 80)), 1.0, 2.0)  # at less than the finer scale
    assert np.ptp(np.nonzero(look.crop[..., 0] > 100)[0]) + 1 == pytest.approx(32, abs=1)
    assert looks(frame, found((10, 10, 14, 14)), 1.0, 1.0) == [], "no finer scale"
    assert looks(frame, found(), 1.0, 2.0) == []


def test_a_flock_costs_no_more_than_the_bound() -> None:
    boxes = [(10.0 * n, 20.0, 10.0 * n + 5, 25.0) for n in range(20)]
    assert [look.row for look in looks(square(0, 0, 1), found(*boxes), 1.0, 2.0)] == list(range(MOST))


def maps(**areas: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """0.9 where a class is, 0.02 elsewhere; areas (y, x, height, width)."""
    made = np.full((len(CLASSES), SIDE_PX, SIDE_PX), 0.02, np.float32)
    for name, (y, x, height, width) in areas.items():
        made[CLASSES.index(name), y : y + height, x : x + width] = 0.9
    return made


def test_what_counts_is_in_the_middle() -> None:
    both = maps(uav=(60, 60, 8, 8), bird=(10, 10, 30, 30))
    np.testing.assert_allclose(class_scores(both, 0.5), [0.9, 0.02, 0.02, 0.02], rtol=1e-6)
    assert class_scores(maps(bird=(2, 2, 4, 4)), 0.5) is None, "that is something else"
    assert class_scores(maps(), 0.5) is None


def test_only_what_was_seen_again_changes() -> None:
    detections = found((10, 10, 14, 14), (30, 30, 34, 34), (50, 50, 54, 54))
    seen = looks(square(0, 0, 1), detections, 1.0, 2.0)
    judged = [maps(uav=(60, 60, 8, 8)), maps(), maps(airplane=(60, 60, 8, 8))]
    after = told_apart(detections, seen, judged, 0.5)
    assert after.class_scores.argmax(axis=1).tolist() == [0, 1, 2]
    assert detections.class_scores.argmax(axis=1).tolist() == [1, 1, 1]


@pytest.fixture(scope="module")
def engine() -> Any:
    with Engine("model/weights/dasnet.safetensors", threads=1) as made:
        yield made


def test_the_shipped_checkpoint_looks_again_and_finds_the_same_places(engine: Engine) -> None:
    source = open_recording(CLIPS / "IR_DRONE_015.mp4")
    pixels = next(iter(source.pictures())).pixels
    source.close()
    frame = Frame(REF, Band.INFRARED, pixels)
    [batch] = Segmenter(engine).submit([frame])
    [again] = batch.detections()
    metadata = engine.metadata
    engine.metadata = replace(metadata, preprocessing=replace(metadata.preprocessing, closer={}))
    try:
        [batch] = Segmenter(engine).submit([frame])
        [once] = batch.detections()
    finally:
        engine.metadata = metadata
    assert len(once)
    np.testing.assert_array_equal(again.xyxy, once.xyxy)
    assert not np.array_equal(again.class_scores, once.class_scores)
    assert again.class_scores[0].argmax() == 0
