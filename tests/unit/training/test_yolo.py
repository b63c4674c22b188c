"""YOLO labels and masks as annotation tools export them: splits, capitals, marks, polygons, and what JPEG leaves."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support import data_sets
from support.data_sets import (
    HEIGHT,
    TARGET,
    WIDTH,
    XYWH,
    YOLO_LINE,
    fault_of,
    frames_of,
    mask,
    only_frame,
    picture,
    write,
    write_bytes,
    write_json,
    write_turned,
)

from training.datasets import DataError, open_dataset

X0, Y0, X1, Y1 = TARGET
POLYGON_LINE = (
    f"0 {X0 / WIDTH} {Y0 / HEIGHT} {X1 / WIDTH} {Y0 / HEIGHT} {X1 / WIDTH} {Y1 / HEIGHT} {X0 / WIDTH} {Y1 / HEIGHT}"
)


def yolo(folder: Path, content: str, images: tuple[str, ...] = ("images/0.jpg",), text: str = YOLO_LINE) -> Path:
    for image in images:
        write(folder / image, picture(colour=True))
        place = folder / image.replace("images/", "labels/")
        write_bytes(place.with_suffix(".txt"), text.encode())
    (folder / "data.yaml").write_text(content)
    return folder


def splits_of(folder: Path) -> dict[str, int]:
    recordings = open_dataset(folder)
    assert len({one.name for one in recordings}) == len(recordings)
    frames_of(folder)
    return {
        split: sum(len(one) for one in recordings if one.split == split) for split in {one.split for one in recordings}
    }


NAMES = "names: {0: drone}\n"
FOUR = tuple(f"images/{number}.jpg" for number in range(4))


@pytest.mark.parametrize(
    ("content", "images", "files"),
    [
        ("path: .\ntrain: t.txt\nval: v.txt\n", FOUR, {"t.txt": FOUR[:3], "v.txt": FOUR[3:]}),
        ("train: t.txt\nval: [v.txt]\n", FOUR, {"t.txt": [f"./{one}" for one in FOUR[:3]], "v.txt": FOUR[3:]}),
        ("train: t.txt\nval: v.txt\n", FOUR, {"t.txt": [f"data/{one}" for one in FOUR[:3]], "v.txt": FOUR[3:]}),  # CVAT
        ("train: t.txt\nval: v.txt\n", FOUR, {"t.txt": [f"/elsewhere/{one}" for one in FOUR[:3]], "v.txt": FOUR[3:]}),
        ("path: /elsewhere/drones\ntrain: t.txt\nval: v.txt\n", FOUR, {"t.txt": FOUR[:3], "v.txt": FOUR[3:]}),
        (
            "path: sub\ntrain: images/a\nval: images/b\n",
            [f"sub/images/{one}.jpg" for one in ("a/0", "a/1", "a/2", "b/3")],
            {},
        ),
        (
            "train: [images/a, images/c]\nval: images/b\n",
            [f"images/{one}.jpg" for one in ("a/0", "a/1", "c/0", "b/3")],
            {},
        ),
        (
            "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n",  # Roboflow, without a test split
            [f"{one}.jpg" for one in ("train/images/0", "train/images/1", "train/images/2", "valid/images/3")],
            {},
        ),
    ],
)
def test_the_splits_that_data_yaml_names(tmp_path: Path, content: str, images: Any, files: dict[str, Any]) -> None:
    folder = yolo(tmp_path / "data", content + NAMES, images)
    for name, lines in files.items():
        write_bytes(folder / name, b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert splits_of(folder) == {"train": 3, "val": 1}


def test_one_folder_may_be_two_splits(tmp_path: Path) -> None:
    assert splits_of(yolo(tmp_path, "train: images\nval: images\n" + NAMES)) == {"train": 1, "val": 1}


def test_what_data_yaml_names_and_is_not_there(tmp_path: Path) -> None:
    folder = yolo(tmp_path, "train: t.txt\nval: images/val\n" + NAMES)
    (folder / "t.txt").write_text("images/0.jpg\nimages/9.jpg\n")
    fault = fault_of(folder)
    assert fault.startswith("data: 2 faults")
    assert f"{folder}/t.txt: line 2: images/9.jpg does not exist; expected an image's path" in fault
    assert f"{folder}/data.yaml: val = 'images/val' does not exist; expected a folder, a text file" in fault


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: 3\n" + NAMES, "data.yaml: train = 3; expected a folder"),
        ("names: drone\n", "data.yaml: names = 'drone'; expected names"),
        ("names: [drone\n", r"data.yaml:\d: invalid YAML: "),
        (NAMES + "val: a\ntrain: b\nval: c\n", "data.yaml:4: val: duplicate key in lines 2 and 4; must be unique"),
        (
            "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrst")),
            "too many",
        ),
        ("names: " + "[" * 100, "data.yaml: nested too deeply"),
        ("- drone\n", "data.yaml: names = None; expected names"),
        ("train: elsewhere\n" + NAMES, "none of its 1 images has labels; expected .*elsewhere/0.txt"),
    ],
)
def test_data_yaml_that_says_nothing_is_refused(tmp_path: Path, content: str, message: str) -> None:
    write(yolo(tmp_path, content) / "elsewhere" / "0.jpg", picture())
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize("names", ["classes.txt", "obj.names"])
def test_classes_without_data_yaml(tmp_path: Path, names: str) -> None:
    yolo(tmp_path, "")
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"data.yaml: is missing; expected YAML .*classes.txt"):
        open_dataset(tmp_path)
    (tmp_path / names).write_text("drone\nbird\n")
    assert splits_of(tmp_path) == {"train": 1}


def test_darknets_layout(tmp_path: Path) -> None:
    write(tmp_path / "obj_train_data" / "0.PNG", picture(colour=True))
    (tmp_path / "obj_train_data" / "0.txt").write_text(YOLO_LINE)
    (tmp_path / "obj.names").write_text("drone\n")
    (tmp_path / "obj.data").write_text(
        "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    (tmp_path / "train.txt").write_text("data/obj_train_data/0.PNG\n")
    assert splits_of(tmp_path) == {"train": 1} and only_frame(tmp_path).objects


@pytest.mark.parametrize(
    "text",
    [
        YOLO_LINE.encode(),
        b"\xef\xbb\xbf" + YOLO_LINE.encode(),
        YOLO_LINE.encode("utf-16"),
        YOLO_LINE.replace("0 ", "0.0 ", 1).encode(),
        b"\r\n" + YOLO_LINE.replace(" ", "\t").encode() + b"\r\n",
        POLYGON_LINE.encode(),
    ],
)
def test_the_ways_of_writing_a_line(tmp_path: Path, text: bytes) -> None:
    yolo(tmp_path, NAMES)
    (tmp_path / "labels" / "0.txt").write_bytes(text)
    frame = only_frame(tmp_path)
    assert frame.objects[0].xyxy == pytest.approx(TARGET) and frame.labels.any()


def test_polygons_are_masks_and_key_points_are_not(tmp_path: Path) -> None:
    corners = (X0, Y0, X1, Y0, X0, Y1)
    triangle = " ".join(str(value / (WIDTH, HEIGHT)[place % 2]) for place, value in enumerate(corners))
    frame = only_frame(yolo(tmp_path / "polygon", NAMES, text=f"0 {triangle}"))
    assert frame.labels.sum() == pytest.approx(12 * 8 / 2, abs=4)
    text = f"{YOLO_LINE.strip()} 0.1 0.1 0.2 0.2"
    frame = only_frame(yolo(tmp_path / "pose", f"kpt_shape: [2, 2]\n{NAMES}", text=text))
    assert frame.objects[0].xyxy == pytest.approx(TARGET)


@pytest.mark.parametrize(
    "line",
    [
        "0.5 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 0.1 0.1 0.9",
        "0 66 44 72 44 66 48",
        "0 0.1 0.1 0.2 0.2 nan 0.3",
        "drone 0.5 0.5 1 1",
    ],
)
def test_lines_that_are_no_labels_are_named(tmp_path: Path, line: str) -> None:
    assert f"labels/0.txt: line 2 is '{line}'; expected a class (of 1), then a box" in fault_of(
        yolo(tmp_path, NAMES, text=f"{YOLO_LINE}{line}\n")
    )


def test_a_polygon_without_an_area_is_named(tmp_path: Path) -> None:
    line = f"0 {60 / WIDTH} {40 / HEIGHT} {72 / WIDTH} {40 / HEIGHT} {60 / WIDTH} {40 / HEIGHT}"
    assert f"labels/0.txt: line 1: box (60, 40, 72, 40) has no area, in {tmp_path}" in fault_of(
        yolo(tmp_path, NAMES, text=line)
    )


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    yolo(tmp_path / "yolo", NAMES)
    for file in ("images/0.jpg", "labels/0.txt", "data.yaml"):
        path = tmp_path / "yolo" / file
        path.rename(path.with_suffix(path.suffix.upper()))
    assert only_frame(tmp_path / "yolo").objects
    data_sets.pairs(tmp_path / "pairs")
    (tmp_path / "pairs" / "train").rename(tmp_path / "pairs" / "Train")
    for kind, name in (("images", "a.PNG"), ("masks", "a_mask.PNG")):
        place = tmp_path / "pairs" / "Train" / kind
        (place / "a.png").rename(place / name)
    assert frames_of(tmp_path / "pairs", "train")["train"][0].objects
    data_sets.coco(tmp_path / "coco")
    data_sets.anti_uav(tmp_path / "anti_uav")
    for folder in ("coco", "anti_uav"):
        as_usual = frames_of(tmp_path / folder)
        for pattern in ("*.json", "*.mp4"):
            for path in (tmp_path / folder).rglob(pattern):
                path.rename(path.with_suffix(path.suffix.upper()))
        assert frames_of(tmp_path / folder).keys() == as_usual.keys()


# --- masks ---


def one_pair(folder: Path, suffix: str, levels: Any, encoded: Callable[[Any], bytes]) -> Any:
    write(folder / "train" / "images" / "a.png", picture())
    write_bytes(folder / "train" / "masks" / f"a{suffix}", encoded(levels))
    return frames_of(folder, "train")["train"][0]


def as_jpeg(quality: int) -> Callable[[Any], bytes]:
    return lambda levels: cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def as_png(levels: Any) -> bytes:
    return cv2.imencode(".png", levels)[1].tobytes()


def through_jpeg(levels: Any) -> bytes:
    return as_png(cv2.imdecode(np.frombuffer(as_jpeg(75)(levels), np.uint8), cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize(
    ("suffix", "encoded"), [(".jpg", as_jpeg(95)), (".jpg", as_jpeg(75)), (".JPG", as_jpeg(75)), (".png", through_jpeg)]
)
@pytest.mark.parametrize("level", [255, 128])
def test_masks_that_jpeg_blurred_are_cut_at_half(tmp_path: Path, suffix: str, encoded: Any, level: int) -> None:
    two = mask(level)
    two[90:97, 31:42] = level
    frame = one_pair(tmp_path, suffix, two, encoded)
    assert len(frame.objects) == 2 and np.abs((frame.labels > 0).sum() - (two > 0).sum()) <= 4


def test_a_png_may_number_its_targets(tmp_path: Path) -> None:
    numbered = mask(1)
    for number in range(2, 30):
        numbered[2:8, 5 * number : 5 * number + 4] = number
    frame = one_pair(tmp_path, ".png", numbered, as_png)
    np.testing.assert_array_equal(frame.labels > 0, numbered > 0)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (
            mask(2),
            "is a JPEG mask of levels up to 2, which compression has changed; expected a PNG, or 255 for the UAV",
        ),
        (np.maximum(mask(255), np.roll(mask(85), 30, axis=1)), "has a region of level "),
        (np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1)), "is not a mask: it has "),
    ],
)
def test_jpeg_masks_that_leave_it_open_are_refused(tmp_path: Path, levels: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"masks/a.jpg: {message}"):
        one_pair(tmp_path, ".jpg", levels, as_jpeg(95))


def test_masks_are_turned_as_images_are(tmp_path: Path) -> None:
    data_sets.pairs(tmp_path)
    colours = np.repeat(mask()[..., None], 3, axis=2)
    for kind, image in (("images", picture()), ("masks", colours)):
        (tmp_path / "train" / kind / "a.png").unlink()
        write_turned(tmp_path / "train" / kind / "a.jpg", np.rot90(image), 6)
    (frame,) = frames_of(tmp_path, "train")["train"]
    assert np.abs((frame.labels > 0).sum() - (mask() > 0).sum()) <= 4 and frame.labels[Y0 + 2, X0 + 2]


# --- labels told by an image's place ---


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(8, 12):
        write(tmp_path / f"frame{number}.jpg", picture(number))
    write_json(tmp_path / "IR_label.json", {"exist": [1, 0, 0, 0], "gt_rect": [XYWH, [], [], []]})
    (recording,) = open_dataset(tmp_path)
    shown = {frame.file.name: len(frame.objects) for frame in recording.read(range(4)) if frame.file}
    assert shown == {"frame8.jpg": 1, "frame9.jpg": 0, "frame10.jpg": 0, "frame11.jpg": 0}
