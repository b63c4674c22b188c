"""`dasnet label`: convert a data set to a folder of images and masks, with a contact sheet for inspection.

Out, in DIR: `{split}/images/<sensor>/<class>/<recording>/`, the same below `masks/` (0 and 255, UAVs only) and,
on request, below `classes/` (label maps: 0 background, 1 + index into CLASSES), and `contact_sheet.png`: crops of
objects, plain and with the outline of their mask.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from training.cache import encoded_jpeg
from training.datasets import LABEL_OF, LabelledFrame, LabelledRecording, describe, open_dataset, validate
from training.masks import Image

TILES, COLUMNS = 48, 4
TILE_PX, CAPTION_PX = 160, 18
SURROUNDINGS = 3.0  # side of a tile, in lengths of the object
LEAST_PX = 24  # least side of a tile
YELLOW, WHITE = (255, 220, 0), (255, 255, 255)


def run_label(address: str, out: Path, classes: bool, stride: int) -> int:
    """Convert every `stride`-th frame and return the exit code; raise DataError for an unusable data set."""
    from rich.console import Console
    from rich.progress import track

    recordings = open_dataset(address)
    print(describe(recordings))
    validate(recordings)
    sheet = ContactSheet(sum(len(range(0, len(recording), stride)) for recording in recordings))
    quiet = not sys.stderr.isatty()
    for recording in track(recordings, description="label", console=Console(stderr=True), disable=quiet):
        for frame in recording.read(range(0, len(recording), stride)):
            write_frame(out, recording, frame, classes)
            sheet.add(recording, frame)
    out.mkdir(parents=True, exist_ok=True)
    write_image(out / "contact_sheet.png", sheet.drawn()[..., ::-1])
    print(f"{sheet.frames} frames, {sheet.objects} objects, {sheet.uavs} of them UAVs: {out}")
    return 0


def write_frame(out: Path, recording: LabelledRecording, frame: LabelledFrame, classes: bool) -> None:
    """Write image, mask and, with `classes`, the label map; the bytes of an image file stay unchanged."""
    inner = recording.name.removeprefix(f"{recording.split}/")
    place = Path(recording.sensor) / recording.clip_class / inner
    name = f"{frame.number:06d}" + (f"_{frame.file.stem}" if frame.file else "")
    image = out / recording.split / "images" / place / f"{name}{frame.file.suffix if frame.file else '.jpg'}"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(frame.encoded or encoded_jpeg(frame.image))
    uav = (frame.labels == LABEL_OF["drone"]).astype(np.uint8) * np.uint8(255)
    write_image(out / recording.split / "masks" / place / f"{name}.png", uav)
    if classes:
        write_image(out / recording.split / "classes" / place / f"{name}.png", frame.labels)


def write_image(path: Path, image: Image) -> None:
    """Write an image as PNG; raise OSError where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


class ContactSheet:
    """A sheet of object crops, spread evenly over `expected` frames."""

    def __init__(self, expected: int) -> None:
        self.frames = self.objects = self.uavs = 0
        self._step = max(1.0, expected / TILES)
        self._due = 0.0
        self._tiles: list[Image] = []

    def add(self, recording: LabelledRecording, frame: LabelledFrame) -> None:
        """Count a frame and add a tile of one of its objects when one is due."""
        self.frames += 1
        self.objects += len(frame.objects)
        self.uavs += sum(item.object_class == "drone" for item in frame.objects)
        if frame.objects and self.frames > self._due and len(self._tiles) < TILES:
            self._due = max(self._due + self._step, self.frames)
            item = frame.objects[len(self._tiles) % len(frame.objects)]
            self._tiles.append(tile(frame, item.xyxy, f"{recording.name} {frame.number} {item.object_class}"))

    def drawn(self) -> Image:
        """Return the sheet, RGB (H, W, 3); black without objects."""
        blank = np.zeros((TILE_PX + CAPTION_PX, 2 * TILE_PX, 3), np.uint8)
        tiles = self._tiles + [blank] * (-len(self._tiles) % COLUMNS or (0 if self._tiles else COLUMNS))
        framed = [cv2.copyMakeBorder(one, 2, 2, 2, 2, cv2.BORDER_CONSTANT) for one in tiles]
        rows = [np.hstack(framed[start : start + COLUMNS]) for start in range(0, len(framed), COLUMNS)]
        return np.asarray(np.vstack(rows), np.uint8)


def tile(frame: LabelledFrame, box: Sequence[float], caption: str) -> Image:
    """Return an object's crop, plain and with the outline of its mask, above a caption."""
    x0, y0, x1, y1 = box
    side = max(LEAST_PX, round(SURROUNDINGS * max(x1 - x0, y1 - y0)))
    rows, columns = (
        np.clip(np.arange(side) + round(middle - side / 2), 0, length - 1)
        for middle, length in (((y0 + y1) / 2, frame.labels.shape[0]), ((x0 + x1) / 2, frame.labels.shape[1]))
    )
    grid = np.ix_(rows, columns)
    size = (TILE_PX, TILE_PX)
    plain = cv2.resize(frame.image[grid], size, interpolation=cv2.INTER_NEAREST)
    mask = cv2.resize((frame.labels[grid] > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlined = plain.copy()
    outlined[cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0] = YELLOW
    band = np.zeros((CAPTION_PX, 2 * TILE_PX, 3), np.uint8)
    cv2.putText(band, caption[-46:], (3, CAPTION_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.38, WHITE, 1, cv2.LINE_AA)
    return np.asarray(np.vstack([np.hstack([plain, outlined]), band]), np.uint8)
