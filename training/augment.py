"""Sampling and augmentation of training crops: position, scale, rotation, pasted objects and decoys.

In: cached frames, and (seed, step, index), which alone decide the sample, so that a resumed run sees the same ones.
Out: a crop (S, S, 3) RGB uint8 and its label map (S, S) uint8: 0 background, 1 uav, 2 bird, 3 airplane,
4 helicopter, 5 decoy (a synthetic cloud or lamp: background that every class learns to reject).
"""

from collections import defaultdict

import cv2
import numpy as np
import numpy.typing as npt

from model.preprocess import in_colour, luma
from training.cache import CachedClip, CachedFrame, CachedFrames
from training.config import Augmentation
from training.datasets import CLIP_CLASSES, LABEL_OF
from training.masks import Image
from training.photometry import photometry
from training.synthetic import add_decoys

Random = np.random.Generator
Floats = npt.NDArray[np.float32]

MAX_PASTED_SCALE = 1.3  # small objects are not enlarged further
COVERAGE = 0.45  # share of a downscaled pixel that an object must cover to keep its label


class CropSampler:
    """Draws augmented crops; clips of a class are equally likely, whatever their length."""

    def __init__(self, frames: CachedFrames, augmentation: Augmentation, seed: int) -> None:
        self.frames, self.how, self.seed = frames, augmentation, seed
        self._clips: dict[str, list[CachedClip]] = defaultdict(list)
        for clip in frames.clips:
            if clip.frames:
                self._clips[clip.clip_class].append(clip)
        self._with_object = {
            clip.name: [frame for frame in clip.frames if LABEL_OF[clip.clip_class] in frame.labels]
            for clip in frames.clips
        }
        if not self._clips["drone"]:
            raise ValueError(f"training clips of {sorted(self._clips)}: none shows a drone; expected at least one")

    def sample(self, step: int, index: int, crop_px: int) -> tuple[Image, Image]:
        """Return crop and label map number `index` of a step; the same arguments give the same sample."""
        how, rng = self.how, np.random.default_rng((self.seed, step, index))
        clip, frame = self._draw(rng, self._draw_class(rng))
        image, labels = self.frames.read(frame)
        image, labels = self._crop(rng, clip, frame, image, labels, crop_px)
        if rng.random() < how.decoy_share:
            image, labels = add_decoys(rng, image, labels, clip.sensor == "infrared")
        if rng.random() < how.paste_share:
            for _ in range(int(rng.integers(1, 4))):
                image, labels = self._paste(rng, image, labels)
        if rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        image = photometry(rng, np.ascontiguousarray(image), clip.sensor, how.invert_share, how.overlay_share)
        return in_colour(luma(image)) if how.grey else image, np.ascontiguousarray(labels)

    def _draw_class(self, rng: Random) -> str:
        draw, how = rng.random(), self.how
        if draw < how.drone_share:
            wanted = "drone"
        elif draw < how.drone_share + how.bird_share:
            wanted = "bird"
        else:
            wanted = "airplane" if rng.random() < 0.5 else "helicopter"
        return wanted if self._clips[wanted] else "drone"

    def _draw(self, rng: Random, clip_class: str) -> tuple[CachedClip, CachedFrame]:
        clips = self._clips[clip_class]
        clip = clips[int(rng.integers(len(clips)))]
        frames = self._with_object[clip.name] if rng.random() < 0.9 else list(clip.frames)
        frames = frames or list(clip.frames)
        return clip, frames[int(rng.integers(len(frames)))]

    def _crop(
        self, rng: Random, clip: CachedClip, frame: CachedFrame, image: Image, labels: Image, crop_px: int
    ) -> tuple[Image, Image]:
        how = self.how
        span = np.log(how.scale_max / how.scale_min)
        factor = how.scale_min * np.exp(span * rng.beta(1.0, 1.3))  # small targets more often
        scale = float(how.sensor_scale[clip.sensor] * factor)
        size_px = round(crop_px / scale)
        height, width = labels.shape
        if frame.boxes and rng.random() < how.around_object_share:
            x0, y0, x1, y1 = frame.boxes[int(rng.integers(len(frame.boxes)))]
            shift = rng.uniform(-0.42, 0.42, 2) * size_px
            centre_x, centre_y = (x0 + x1) / 2 + shift[0], (y0 + y1) / 2 + shift[1]
        else:
            centre_x, centre_y = rng.uniform(0, width), rng.uniform(0, height)
        rotate = rng.random() < how.rotation_share
        outer_px = int(size_px * 1.25) if rotate else size_px
        inner_px = round(outer_px * scale) if rotate else crop_px
        columns = _mirrored(int(centre_x - outer_px / 2), outer_px, width)
        rows = _mirrored(int(centre_y - outer_px / 2), outer_px, height)
        grid = np.ix_(rows, columns)
        image, labels = resized(image[grid], inner_px), resized_labels(labels[grid], inner_px)
        return rotated(rng, image, labels, crop_px) if rotate else (image, labels)

    def _paste(self, rng: Random, image: Image, labels: Image) -> tuple[Image, Image]:
        """Paste another clip's object as the difference to its own background, which decorrelates class and context.

        All classes are pasted equally often and in the same sizes, so that pasting reveals nothing about the class.
        """
        classes = [name for name in CLIP_CLASSES if self._clips[name]]
        clip_class = classes[int(rng.integers(len(classes)))]
        _, frame = self._draw(rng, clip_class)
        lifted = lift(*self.frames.read(frame), frame, LABEL_OF[clip_class]) if frame.boxes else None
        if lifted is None:
            return image, labels
        size_px = float(np.exp(rng.uniform(*np.log(self.how.pasted_px))))
        return place(rng, image, labels, lifted, size_px, LABEL_OF[clip_class])


def lift(image: Image, labels: Image, frame: CachedFrame, label: int) -> tuple[Floats, Floats] | None:
    """Return an object's difference to its background (h, w, 3), feathered, and its mask (h, w) in 0..1.

    Return None where the frame has no such object, or too little of it.
    """
    places = [box for box, item in zip(frame.boxes, frame.labels, strict=True) if item == label]
    if not places:
        return None
    x0, y0, x1, y1 = places[0]
    margin = 0.25 * max(x1 - x0, y1 - y0) + 2
    rows = slice(max(0, int(y0 - margin)), int(y1 + margin) + 1)
    columns = slice(max(0, int(x0 - margin)), int(x1 + margin) + 1)
    mask = (labels[rows, columns] == label).astype(np.float32)
    if mask.sum() < 6 or not (mask == 0).any():
        return None
    patch = image[rows, columns].astype(np.float32)
    difference = patch - np.median(patch[mask == 0], axis=0)
    soft = cv2.GaussianBlur(cv2.dilate(mask, np.ones((3, 3))), (0, 0), 0.8 + 0.02 * max(mask.shape))
    return difference * soft[..., None], mask


def place(
    rng: Random, image: Image, labels: Image, lifted: tuple[Floats, Floats], size_px: float, label: int
) -> tuple[Image, Image]:
    """Return image and labels with a lifted object, `size_px` long, at a random unlabelled place and contrast."""
    difference, mask = lifted
    rows, columns = np.nonzero(mask)
    scale = min(size_px / max(np.ptp(rows) + 1, np.ptp(columns) + 1), MAX_PASTED_SCALE)
    width, height = (max(2, round(length * scale)) for length in mask.shape[::-1])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    difference = np.asarray(cv2.resize(difference, (width, height), interpolation=interpolation), np.float32)
    cover = np.asarray(cv2.resize(mask, (width, height), interpolation=interpolation), np.float32)
    if height >= labels.shape[0] or width >= labels.shape[1]:
        return image, labels
    if rng.random() < 0.5:
        difference, cover = difference[:, ::-1], cover[:, ::-1]
    if rng.random() < 0.3:
        difference = -difference
    if rng.random() < 0.5:
        difference = np.repeat(difference.mean(axis=2, keepdims=True), 3, axis=2)
    top, left = int(rng.integers(labels.shape[0] - height)), int(rng.integers(labels.shape[1] - width))
    area = slice(top, top + height), slice(left, left + width)
    mark = cover > min(COVERAGE, 0.7 * float(cover.max()))
    if labels[area].any() or not mark.any():
        return image, labels
    noise = float(image[area].std(axis=(0, 1)).mean())
    contrast = float(np.exp(rng.uniform(np.log(14 + noise), np.log(110 + noise))))
    difference *= contrast / max(1.0, float(np.abs(difference[mark]).mean()))
    image, labels = image.copy(), labels.copy()
    image[area] = np.clip(image[area] + np.clip(difference, -160, 160), 0, 255).astype(np.uint8)
    labels[area][mark] = label
    return image, labels


def rotated(rng: Random, image: Image, labels: Image, crop_px: int) -> tuple[Image, Image]:
    """Return the central `crop_px` of a larger square, rotated by up to 12 degrees."""
    size_px = image.shape[0]
    turn = cv2.getRotationMatrix2D((size_px / 2, size_px / 2), float(rng.uniform(-12, 12)), 1.0)
    turn[:, 2] -= (size_px - crop_px) / 2
    shape, border = (crop_px, crop_px), cv2.BORDER_REFLECT_101
    turned = cv2.warpAffine(image, turn, shape, flags=cv2.INTER_CUBIC, borderMode=border)
    turned_labels = cv2.warpAffine(labels, turn, shape, flags=cv2.INTER_NEAREST, borderMode=border)
    return np.asarray(turned, np.uint8), np.asarray(turned_labels, np.uint8)


def resized(image: Image, size_px: int) -> Image:
    """Return a square image at another size, without aliasing."""
    interpolation = cv2.INTER_AREA if size_px < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=interpolation), np.uint8)


def resized_labels(labels: Image, size_px: int) -> Image:
    """Return a square label map at another size; an object keeps at least its best covered pixel."""
    result = np.zeros((size_px, size_px), np.uint8)
    for label in np.unique(labels[labels > 0]):
        whole = (labels == label).astype(np.float32)
        shrinks = size_px < labels.shape[0]
        cover = cv2.resize(whole, (size_px, size_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        result[cover > min(COVERAGE, 0.7 * float(cover.max()))] = label
    return result


def _mirrored(start: int, length: int, size: int) -> npt.NDArray[np.int64]:
    """Return indices start .. start + length, reflected into 0 .. size - 1 as often as needed."""
    period = max(1, 2 * (size - 1))
    position = np.abs(np.arange(start, start + length)) % period
    return np.asarray(np.minimum(position, period - position), np.int64)
