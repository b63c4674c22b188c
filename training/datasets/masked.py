"""Images with masks, in two layouts.

The original DAS-Net's: `UAVSemanticSegmentationInput/{train,val,test}/<sequence>/{infrared,visible}/<name>.jpg` with
`UAVSemanticSegmentationLabels/.../<name>_mask.png` (also `input/` and `labels/`).

Ours: `{train,val,test}/{images,masks}/`, optionally with subfolders, whose names may give the sensor (infrared,
visible) and the class (drone, bird, airplane, helicopter).  A label map in `{split}/classes/` takes precedence.

A mask is above 0 where the UAV is, see `mask_files`.  Images without a mask are skipped and counted.
"""

from pathlib import Path

from training.datasets.images import IMAGE_SUFFIXES, ImageFolder, LabelledImage, folders_in, images_in, sensor_of
from training.datasets.recording import CLIP_CLASSES, SPLIT_NAMED

ORIGINAL = (("UAVSemanticSegmentationInput", "UAVSemanticSegmentationLabels"), ("input", "labels"))
FilesByStem = dict[str, dict[str, Path]]  # by stem, then by lower-case suffix


def read_original(folder: Path) -> list[ImageFolder] | None:
    """Return the recordings of the original's layout; None for another format."""
    for images, labels in ORIGINAL:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return [
                recording
                for split, place in _splits(folder / images)
                for recording in _recordings(place, folder / labels / place.name, None, split)
            ]
    return None


def read_pairs(folder: Path) -> list[ImageFolder] | None:
    """Return the recordings of our layout; None for another format."""
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
    return [(SPLIT_NAMED[path.name.lower()], path) for path in places if path.name.lower() in SPLIT_NAMED]


def _recordings(images: Path, masks: Path, maps: Path | None, split: str) -> list[ImageFolder]:
    """Return a recording for each folder with images."""
    recordings = []
    for folder in folders_in(images):
        inner = folder.relative_to(images)
        files = images_in(folder)
        marked, mapped = _by_stem(masks / inner), _by_stem(maps / inner if maps else None)
        found = [_labelled_image(file, marked, mapped) for file in files]
        kept = tuple(image for image in found if image is not None)
        shown = next((part for part in inner.parts if part in CLIP_CLASSES), "drone")
        name = (Path(split) / inner).as_posix()
        sensor = sensor_of(inner, files)
        recordings.append(ImageFolder(name, folder, sensor, shown, split, kept, len(files) - len(kept)))
    return recordings


def _by_stem(folder: Path | None) -> FilesByStem:
    """Return a folder's images by stem, then by lower-case suffix."""
    found: FilesByStem = {}
    for path in images_in(folder) if folder is not None and folder.is_dir() else ():
        found.setdefault(path.stem, {})[path.suffix.lower()] = path
    return found


def _labelled_image(
    image: Path, masks: dict[str, dict[str, Path]], maps: dict[str, dict[str, Path]]
) -> LabelledImage | None:
    if label_map := maps.get(image.stem, {}).get(".png"):
        return LabelledImage(image, label_map=label_map)
    for suffix in (".png", image.suffix.lower(), *IMAGE_SUFFIXES):
        for stem in (f"{image.stem}_mask", image.stem):
            if mask := masks.get(stem, {}).get(suffix):
                return LabelledImage(image, mask=mask)
    return None
