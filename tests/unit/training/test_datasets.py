"""Data sets: every format is recognised and read, and what is wrong with one is named before training begins."""

from collections.abc import Callable
from dataclasses import replace
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
    YOLO_LINE,
    frames_of,
    mask,
    picture,
    write,
    write_json,
)

from training.datasets import CLIP_CLASSES, Clip, DataError, describe, open_dataset, validate
from training.datasets.outlines import fill


def iou(labels: Any, wanted: Any) -> float:
    return float(((labels > 0) & (wanted > 0)).sum() / ((labels > 0) | (wanted > 0)).sum())


# --- formats ---


@pytest.mark.parametrize("names", [data_sets.ORIGINAL, ("input", "labels")])
def test_the_originals_layout(tmp_path: Path, names: tuple[str, str]) -> None:
    data_sets.original(tmp_path, names)
    recordings = open_dataset(tmp_path)
    assert [(one.name, one.sensor, one.split, len(one), one.skipped) for one in recordings] == [
        ("train/s1/infrared", "infrared", "train", 2, 0),
        ("train/s1/visible", "visible", "train", 1, 1),
        ("val/s2/infrared", "infrared", "val", 2, 0),
        ("val/s2/visible", "visible", "val", 2, 0),
    ]
    assert describe(recordings) == "4 recordings, 7 labelled frames, images without a mask skipped: 1"
    (frame, _) = frames_of(tmp_path, "val")["val/s2/visible"]
    assert frame.image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(frame.labels, mask(1))
    assert [(item.object_class, item.xyxy) for item in frame.objects] == [("drone", TARGET)]


def test_images_beside_masks_and_the_sensor_by_colour(tmp_path: Path) -> None:
    data_sets.pairs(tmp_path)
    assert [(one.name, one.sensor) for one in open_dataset(tmp_path)] == [
        ("test", "infrared"),
        ("train", "infrared"),
        ("val", "visible"),
    ]
    (frame,) = frames_of(tmp_path, "train")["train"]
    np.testing.assert_array_equal(frame.labels, mask(1))
    np.testing.assert_array_equal(frame.image, picture(0))


def test_label_maps_beside_masks_count(tmp_path: Path) -> None:
    data_sets.pairs(tmp_path)
    write(tmp_path / "train" / "images" / "bird" / "b.png", picture(1))
    write(tmp_path / "train" / "classes" / "bird" / "b.png", mask(2))
    recordings = open_dataset(tmp_path, ["train"])
    assert [one.clip_class for one in recordings] == ["drone", "bird"]
    (frame,) = frames_of(tmp_path, "train")["train/bird"]
    assert frame.objects[0].object_class == "bird" and (frame.labels == mask(2)).all()


def test_dronedet(tmp_path: Path) -> None:
    data_sets.dronedet(tmp_path)
    (clip,) = open_dataset(tmp_path)
    assert isinstance(clip, Clip) and (clip.fps, len(clip), clip.sensor) == (25, 7, "infrared")
    assert clip.camera == "dronedet_infrared"
    validate([clip])
    frames = list(clip.read([1, 5, 6]))
    assert [frame.number for frame in frames] == [1, 5]  # the video is one shorter than its labels
    assert iou(frames[1].labels, mask()) > 0.6


def test_a_camera_is_read_and_changes_no_frame(tmp_path: Path) -> None:
    data_sets.dronedet(tmp_path, camera="optris_pi")
    (clip,) = open_dataset(tmp_path)
    assert isinstance(clip, Clip) and clip.camera == "optris_pi"
    assert clip.settings() == replace(clip, camera="other").settings()  # a cache of its frames stays valid


def test_anti_uav_videos_and_frames(tmp_path: Path) -> None:
    data_sets.anti_uav(tmp_path)
    recordings = open_dataset(tmp_path)
    assert [(one.name, one.sensor, one.split, len(one)) for one in recordings] == [
        ("test/s3/IR", "infrared", "test", 2),
        ("train/s1/infrared", "infrared", "train", 6),
        ("train/s1/visible", "visible", "train", 6),
        ("val/s2/IR", "infrared", "val", 6),
    ]
    assert isinstance(recordings[1], Clip) and recordings[1].fps == 25
    frames = frames_of(tmp_path)
    assert [len(frame.objects) for frame in frames["train/s1/visible"]] == [1, 1, 0, 1, 1, 1]
    assert iou(frames["test/s3/IR"][0].labels, mask()) > 0.6
    assert not frames["test/s3/IR"][1].labels.any()


def test_yolo_boxes(tmp_path: Path) -> None:
    data_sets.yolo(tmp_path, lines=(YOLO_LINE, "", "1" + YOLO_LINE[1:], "2" + YOLO_LINE[1:]))
    frames = frames_of(tmp_path)
    assert {name: len(found) for name, found in frames.items()} == {"images/train/drone": 3, "images/train/bird": 1}
    assert frames["images/train/drone"][0].objects[0].xyxy == pytest.approx(TARGET)
    assert [len(frame.objects) for frame in frames["images/train/drone"]] == [1, 0, 0]  # a person is not learned
    assert set(np.unique(frames["images/train/bird"][0].labels)) == {0, 2}
    assert {one.sensor for one in open_dataset(tmp_path)} == {"visible"}


def test_yolo_with_the_splits_above(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        data_sets.yolo(tmp_path / "made", names={0: "drone"}, lines=(YOLO_LINE,))
        (tmp_path / split).mkdir()
        for kind in ("images", "labels"):
            (tmp_path / "made" / kind / "train").rename(tmp_path / split / kind)
            (tmp_path / "made" / kind).rmdir()
    (tmp_path / "made" / "data.yaml").rename(tmp_path / "data.yaml")
    assert [(one.split, len(one)) for one in open_dataset(tmp_path)] == [("train", 1), ("val", 1)]


def test_coco_polygons_and_boxes(tmp_path: Path) -> None:
    data_sets.coco(tmp_path)
    frames = frames_of(tmp_path, "val")
    drones, airplanes = (frames[f"annotations/instances_val2017/{shown}"] for shown in ("drone", "airplane"))
    assert drones[0].labels.sum() == pytest.approx(12 * 8 / 2, abs=4)  # the triangle, not the box
    assert not drones[1].objects  # a kite is not learned
    assert iou(airplanes[0].labels, mask()) > 0.6 and set(np.unique(airplanes[0].labels)) == {0, 3}


def test_polygons_fill_what_they_cover() -> None:
    labels = np.zeros((20, 20), np.uint8)
    fill(labels, [(2.0, 3.0, 6.0, 3.0, 6.0, 8.0, 2.0, 8.0)], 1)
    wanted = np.zeros_like(labels)
    wanted[3:8, 2:6] = 1
    np.testing.assert_array_equal(labels, wanted)
    fill(labels, [(15.1, 15.1, 15.4, 15.1, 15.4, 15.4)], 4)  # smaller than a pixel
    assert (labels == 4).sum() == 1 and labels[15, 15] == 4
    fill(labels, [(-9.0, -9.0, -3.0, -9.0, -3.0, -3.0)], 2)  # off the picture
    assert not (labels == 2).any()


def test_scenes_are_a_data_set_with_exact_masks() -> None:
    recordings = open_dataset("scene:count=45,seed=3,size=160x128", ["train", "val"])
    assert sum(len(one) for one in recordings if one.split == "train") == 45
    assert {one.sensor for one in recordings} == {"infrared", "visible"}
    names = [one.name for one in recordings]
    again = open_dataset("scene:count=45,seed=3,size=160x128", ["train"], [names[0]])[0]
    for frame, same in zip(recordings[0].read([0, 7]), again.read([0, 7]), strict=True):
        np.testing.assert_array_equal(frame.image, same.image)
        np.testing.assert_array_equal(frame.labels, same.labels)
        assert frame.image.shape == (128, 160, 3) and frame.labels.max() <= len(CLIP_CLASSES)
        for item in frame.objects:
            x0, y0, x1, y1 = map(int, item.xyxy)
            assert frame.labels[y0:y1, x0:x1].any()
    other = open_dataset("scene:count=45,seed=4,size=160x128", ["train"])[0]
    assert other.settings() != recordings[0].settings()
    assert len({str(one.settings()) for one in recordings}) == len(recordings)


def test_every_fifth_round_of_scenes_has_no_uav() -> None:
    classes = [one.clip_class for one in open_dataset("scene:count=500", ["test"])]
    assert [shown == "drone" for shown in classes] == [place // 5 % 5 != 4 for place in range(50)]


def test_targets_of_scenes_can_be_larger() -> None:
    def lengths(address: str) -> list[float]:
        frames = [frame for one in open_dataset(address, ["train"]) for frame in one.read([0])]
        drones = [item.xyxy for frame in frames for item in frame.objects if item.object_class == "drone"]
        return sorted(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in drones)

    scenes = "scene:count=200,seed=3,size=128x128"
    usual, larger = lengths(scenes), lengths(f"{scenes},targets=4")
    assert 3 < np.median(larger) / np.median(usual) < 5


# --- opening what cannot be opened ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder: None,
            r"is in no known format \(found: nothing\); expected dronedet .*, DAS-Net .*COCO",
        ),
        (lambda folder: write(folder / "x" / "a.png", mask()), r"no known format \(found: x/\); expected"),
        (
            lambda folder: (folder / "labels.json.gz").write_text("{}"),
            r"labels.json.gz: cannot be read; expected",
        ),
        (
            lambda folder: data_sets.dronedet(folder, sensor="sonar"),
            r"A.sensor is 'sonar'; must be one of infrared",
        ),
        (
            lambda folder: data_sets.dronedet(folder, camera=3),
            r"clip A: camera = 3; expected a name",
        ),
        (
            lambda folder: data_sets.dronedet(folder, split="tset"),
            r"A.split is 'tset'; must be one of train",
        ),
        (
            lambda folder: data_sets.dronedet(folder, frames=[[{"id": 0}]]),
            r"clip A: frame 0: has the object .*; expected id, class and box",
        ),
        (
            lambda folder: data_sets.yolo(folder, names=("cat", "dog")),
            r"names \['cat', 'dog'\]: none is known",
        ),
        (
            lambda folder: data_sets.yolo(folder, names=None),
            r"data.yaml: names = None; expected names: a list",
        ),
        (lambda folder: data_sets.coco(folder, categories=[{"id": 3, "name": "cat"}]), r"\['cat'\]: none is known"),
        (
            lambda folder: data_sets.coco(folder, annotations=[{"id": 1}]),
            r"val2017.json: annotation 1: image_id = None; expected an id of images \(10, 11, 12\)",
        ),
        (
            lambda folder: (folder / "a.json").write_text("{"),
            r"a.json: is not JSON \(line 1, column 2\); expected",
        ),
        (
            lambda folder: write_json(folder / "IR_label.json", {"exist": [1], "gt_rect": []}),
            r"IR_label.json: exist and gt_rect differ in length",
        ),
        (
            lambda folder: write_json(folder / "IR_label.json", {"exist": [1], "gt_rect": [[1, 2]]}),
            r"IR_label.json: frame 0: gt_rect = \[1, 2\]; expected \[x, y, width, height\]",
        ),
        (
            lambda folder: write_json(folder / "IR_label.json", {"exist": [1], "gt_rect": [XYWH]}),
            r"IR_label.json: no video and no frames beside it; expected IR.mp4",
        ),
    ],
)
def test_what_cannot_be_opened_says_why(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path)


def test_frames_and_labels_of_different_number(tmp_path: Path) -> None:
    data_sets.anti_uav(tmp_path)
    write(tmp_path / "test" / "s3" / "more.jpg", picture())
    with pytest.raises(DataError, match=r"IR_label.json: 2 labels for 3 images in .*s3; expected one each"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("splits", "names", "message"),
    [
        (["tset"], (), r"split is 'tset'; must be one of train, val, hard, test"),
        (["hard"], (), r"nothing in split hard; must be one of train, val"),
        (["train"], ["Z"], r"no recording 'Z'; must be one of train/s1/infrared, .* \.\.\."),
    ],
)
def test_unknown_splits_and_names(tmp_path: Path, splits: list[str], names: list[str], message: str) -> None:
    data_sets.original(tmp_path)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path, splits, names)


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"data /not/here: is not a folder; expected dronedet"):
        open_dataset("/not/here")


@pytest.mark.parametrize(
    "arguments", ["count=0", "count=many", "seeds=1", "seed", "size=640", "size=20x20", "targets=0"]
)
def test_wrong_arguments_of_scenes(arguments: str) -> None:
    with pytest.raises(DataError, match=rf"data scene:{arguments}: {arguments.split('=')[0]} is '.*'; "):
        open_dataset(f"scene:{arguments}")
