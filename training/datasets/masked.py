"""Pictures with masks, in two layouts.

The original DAS-Net's: `UAVSemanticSegmentationInput/{train,val,test}/<sequence>/{infrared,visible}/<name>.jpg` with
`UAVSemanticSegmentationLabels/.../<name>_mask.png` (also `input/` and `labels/`).

Ours: `{train,val,test}/{images,masks}/`, with folders below if wanted, whose names may say the sensor (infrared,
visible) and the class (drone, bird, airplane, helicopter).  Where `{split}/classes/` has a picture's label map, it is
what counts.

A mask above 0 is the UAV.  Images without a mask are left out and counted.
"""

from pathlib import Path

from training.datasets.pictures import Picture, Pictures, folders_in, images_in, sensor_of
from training.datasets.recording import CLIP_CLASSES, SPLIT_NAMED

ORIGINAL = (("UAVSemanticSegmentationInput", "UAVSemanticSegmentationLabels"), ("input", "labels"))


def read_original(folder: Path) -> list[Pictures] | None:
    """None: another format."""
    for images, labels in ORIGINAL:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return [
                recording
                for split, place in _splits(folder / images)
                for recording in _recordings(place, folder / labels / place.name, None, split)
            ]
    return None


def read_pairs(folder: Path) -> list[Pictures] | None:
    """None: another format."""
    splits = [(split, place) for split, place in _splits(folder) if (place / "images").is_dir()]
    if not any((place / "masks").is_dir() for _, place in splits):
        return None
    return [
        recording
        for split, place in splits
        for recording in _recordings(place / "images", place / "masks", place / "classes", split)
    ]


def _splits(folder: Path) -> list[tuple[str, Path]]:
    places = sorted(path for path in folder.iterdir() if path.is_dir())
    return [(SPLIT_NAMED[path.name], path) for path in places if path.name in SPLIT_NAMED]


def _recordings(images: Path, masks: Path, maps: Path | None, split: str) -> list[Pictures]:
    """One for each folder with images."""
    recordings = []
    for folder in folders_in(images):
        inner = folder.relative_to(images)
        files = images_in(folder)
        found = [_picture(file, masks / inner, maps and maps / inner) for file in files]
        kept = tuple(picture for picture in found if picture is not None)
        shown = next((part for part in inner.parts if part in CLIP_CLASSES), "drone")
        name = (Path(split) / inner).as_posix()
        sensor = sensor_of(inner, files)
        recordings.append(Pictures(name, folder, sensor, shown, split, kept, len(files) - len(kept)))
    return recordings


def _picture(image: Path, masks: Path, maps: Path | None) -> Picture | None:
    if maps is not None and (map_file := maps / f"{image.stem}.png").is_file():
        return Picture(image, label_map=map_file)
    for name in (f"{image.stem}_mask.png", f"{image.stem}.png", f"{image.stem}_mask{image.suffix}", image.name):
        if (masks / name).is_file():
            return Picture(image, mask=masks / name)
    return None
