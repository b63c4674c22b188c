"""COCO labels as annotation tools export them: sizes, run lengths, crowds; what is wrong is named."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import data_sets
from support.data_sets import (
    HEIGHT,
    TARGET,
    WIDTH,
    XYWH,
    fault_of,
    mask,
    only_frame,
    picture,
    write,
    write_bytes,
    write_json,
    write_turned,
)

from training.datasets import DataError, describe, open_dataset
from training.datasets.images import same_proportions

X0, Y0, X1, Y1 = TARGET
TRIANGLE = [[X0, Y0, X1, Y0, X0, Y1]]


def coco(folder: Path, image: dict[str, Any] | None = None, **annotation: Any) -> None:
    """One image of 160x128 with one drone."""
    write(folder / "a.jpg", picture(colour=True))
    item = {"id": 7, "image_id": 1, "category_id": 1, "bbox": XYWH, **annotation}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", **(image or {})}],
        "categories": [{"id": 1, "name": "drone"}],
        "annotations": [{key: value for key, value in item.items() if value is not Ellipsis}],
    }
    write_json(folder / "annotations.json", content)


def run_lengths(shape: Any) -> list[int]:
    """Column by column, beginning with background."""
    column = np.concatenate([[0], shape.T.ravel() > 0, [0]])
    edges = np.flatnonzero(np.diff(column))
    return np.diff([0, *edges, shape.size]).tolist()


@pytest.mark.parametrize("factor", [2, 0.5, 1.25])
def test_annotations_of_a_resized_image_are_resized(tmp_path: Path, factor: float) -> None:
    size = {"width": round(WIDTH * factor), "height": round(HEIGHT * factor)}
    square = [[X0, Y0, X1, Y0, X1, Y1, X0, Y1]]
    scaled = [[value * factor for value in polygon] for polygon in square]
    coco(tmp_path, size, bbox=[value * factor for value in XYWH], segmentation=scaled)
    frame = only_frame(tmp_path)
    np.testing.assert_array_equal(frame.labels, mask(1))
    assert frame.objects[0].xyxy == pytest.approx(TARGET)


@pytest.mark.parametrize(("width", "height"), [(HEIGHT, WIDTH), (WIDTH, WIDTH), (640, 480)])
def test_annotations_of_another_shape_are_refused_with_both_sizes(tmp_path: Path, width: int, height: int) -> None:
    coco(tmp_path, {"width": width, "height": height})
    message = (
        f"annotation 7: is for an image of {width}x{height} pixels, {tmp_path}/a.jpg has {WIDTH}x{HEIGHT}; expected"
    )
    assert message in fault_of(tmp_path)


def test_annotations_are_of_the_image_as_viewers_turn_it(tmp_path: Path) -> None:
    coco(tmp_path, {"width": WIDTH, "height": HEIGHT}, segmentation=TRIANGLE)
    write_turned(tmp_path / "a.jpg", np.rot90(picture(colour=True)), 6)  # lies on its side in the file
    frame = only_frame(tmp_path)
    assert frame.image.shape == (HEIGHT, WIDTH, 3)
    assert frame.image[frame.labels > 0].mean() > frame.image[frame.labels == 0].mean() + 50
    coco(tmp_path, {"width": HEIGHT, "height": WIDTH})
    write_turned(tmp_path / "a.jpg", np.rot90(picture(colour=True)), 6)
    assert f"is for an image of {HEIGHT}x{WIDTH} pixels" in fault_of(tmp_path)


def test_sizes_are_those_of_one_image_within_rounding() -> None:
    assert same_proportions((1920, 1080), (640, 360)) and same_proportions((1333, 750), (640, 360))
    assert not same_proportions((640, 480), (640, 360)) and not same_proportions((101, 100), (100, 101))
    assert not same_proportions((10, 8), (320, 240))


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_are_exact(tmp_path: Path, compressed: bool) -> None:
    shape = np.tril(np.ones((HEIGHT, WIDTH), np.uint8)) * mask(1)
    shape[5, 7] = 1
    counts: Any = run_lengths(shape)
    if compressed:
        coder = pytest.importorskip("faster_coco_eval.core.mask")
        counts = coder.encode(np.asfortranarray(shape))["counts"].decode()
    coco(tmp_path, segmentation={"size": [HEIGHT, WIDTH], "counts": counts})
    np.testing.assert_array_equal(only_frame(tmp_path).labels, shape)


def test_run_lengths_of_a_resized_image_are_resized(tmp_path: Path) -> None:
    large = np.repeat(np.repeat(mask(1), 2, axis=0), 2, axis=1)
    size = {"width": 2 * WIDTH, "height": 2 * HEIGHT}
    runs = {"size": [2 * HEIGHT, 2 * WIDTH], "counts": run_lengths(large)}
    coco(tmp_path, size, bbox=[2 * value for value in XYWH], segmentation=runs)
    np.testing.assert_array_equal(only_frame(tmp_path).labels, mask(1))


def test_crowds_are_left_out_and_counted(tmp_path: Path) -> None:
    coco(tmp_path)
    content = data_sets.read_json(tmp_path / "annotations.json")
    crowd = {"id": 8, "image_id": 1, "category_id": 1, "bbox": [0, 0, 90, 90], "iscrowd": 1}
    write_json(tmp_path / "annotations.json", {**content, "annotations": [*content["annotations"], crowd]})
    assert describe(open_dataset(tmp_path)) == "1 recordings, 1 labelled frames, crowd annotations skipped: 1"
    assert len(only_frame(tmp_path).objects) == 1
    coco(tmp_path, iscrowd=1)
    with pytest.raises(DataError, match=r"annotations.json: all 1 annotations are crowds .*CVAT"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": []}, "bbox = []; expected [x, y, width, height] in pixels"),
        ({"bbox": ...}, "has no bbox; expected [x, y"),
        ({"bbox": None}, "bbox = None; expected [x, y"),
        ({"bbox": [1, 2, "3", 4]}, "bbox = [1, 2, '3', 4]; expected [x, y"),
        ({"bbox": [1, 2, 10**400, 4]}, "bbox = [1, 2, 1000"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bbox = [1, 2, nan, 4]; expected [x, y"),
        ({"bbox": [0.3, 0.2, 0.1, 0.1]}, "bbox = [0.3, 0.2, 0.1, 0.1] is relative to the image's size"),
        ({"bbox": [60, 40, 0, 8]}, "box (60, 40, 60, 48) has no area, in "),
        ({"bbox": [400, 40, 9, 8]}, "lies outside the frame of 160x128 pixels, in "),
        ({"category_id": 4}, "category_id = 4; expected an id of categories (1)"),
        ({"category_id": ...}, "category_id = None; expected"),
        ({"segmentation": TRIANGLE[0]}, "segmentation = [60, 40, 72, 40, 60, 48]; expected a list of polygons"),
        ({"segmentation": [[[60, 40], [72, 40], [60, 48]]]}, "segmentation has the polygon [[60, 40]"),
        ({"segmentation": [[60, 40, 72, 40]]}, "segmentation has the polygon [60, 40, 72, 40]; expected"),
        ({"segmentation": [[60, 40, 72, 40, 60]]}, "segmentation has the polygon [60, 40, 72, 40, 60]"),
        ({"segmentation": "60,40,72,40,60,48"}, "segmentation = '60,40,72,40,60,48'; expected"),
        ({"segmentation": [[60, 40, 72, 40, 60, 40]]}, "its outline covers no pixel of "),  # no area
        ({"segmentation": [[260, 40, 272, 40, 260, 48]]}, "its outline covers no pixel of "),  # beside the image
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [20480]}}, "its outline covers no pixel of "),
        ({"segmentation": {"counts": [20480]}}, "segmentation has size None; expected [height, width]"),
        (
            {"segmentation": {"size": [WIDTH, HEIGHT], "counts": [20480]}},
            "mask of 128x160 pixels for an image of 160x128",
        ),
        ({"segmentation": {"size": [10**7, 10**7], "counts": "0"}}, "must be 268435456 or fewer"),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1, 2]}},
            "run lengths add up to 3 pixels; expected those of",
        ),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-1, 20481]}}, "segmentation has counts [-1, 20481]"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "oo"}}, "compressed run lengths are malformed; expected"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": ""}}, "compressed run lengths are malformed; expected"),
    ],
)
def test_what_is_wrong_with_an_annotation_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if message.startswith("compressed"):
        pytest.importorskip("faster_coco_eval")
    coco(tmp_path, **changes)
    fault = fault_of(tmp_path)
    assert f"labels {tmp_path}/annotations.json: annotation 7: " in fault and message in fault


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": 3}, "images = 3; expected a list"),
        ({"annotations": [3]}, r"annotations\[0\] = 3; expected a map"),
        ({"images": [{"id": None, "file_name": "a.jpg"}]}, r"images\[0\] has id None; expected a number"),
        ({"images": [{"id": 1}]}, "image 1: file_name = None; expected an image's path"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}] * 2}, "image 1 occurs twice"),
        ({"images": [{"id": k, "file_name": "a.jpg"} for k in (1, 2)]}, "images 1 and 2 are both a.jpg"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] = \{'id': 1\}; expected id and name"),
        (
            {"annotations": [{"id": 7, "image_id": "1"}]},
            r"annotation 7: image_id = '1'; expected an id of images \(1\)",
        ),
        ({"annotations": [{"image_id": [1]}]}, r"annotations\[0\] \(no id\): image_id = \[1\]; expected an id"),
    ],
)
def test_coco_files_that_contradict_themselves_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    coco(tmp_path)
    write_json(tmp_path / "annotations.json", {**data_sets.read_json(tmp_path / "annotations.json"), **content})
    with pytest.raises(DataError, match=rf"annotations.json: {message}"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe\x00", b'{"images": ' + b"9" * 5000 + b"}"])
def test_json_that_no_decoder_reads_is_named(tmp_path: Path, content: bytes) -> None:
    write_bytes(tmp_path / "a.json", content)
    with pytest.raises(DataError, match=r"a.json: is not JSON; expected COCO"):
        open_dataset(tmp_path)


def test_the_layouts_of_cvat_and_label_studio(tmp_path: Path) -> None:
    coco(tmp_path)
    made = data_sets.read_json(tmp_path / "annotations.json")
    for place, file_name, labels in (
        ("cvat/images/default", "a.jpg", "cvat/annotations/instances_default.json"),
        ("studio/images", "images\\a.jpg", "studio/result.json"),
    ):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(tmp_path / "a.jpg", tmp_path / place)
        write_json(tmp_path / labels, {**made, "images": [{"id": 1, "file_name": file_name}]})
        assert len(only_frame(tmp_path / place.split("/")[0]).objects) == 1
