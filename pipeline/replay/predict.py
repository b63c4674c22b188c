"""`dasnet predict`: images in; masks, overlays and boxes out."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from model.checkpoint import load
from model.engine.engine import Engine
from model.preprocess import prepare
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import ImageError
from pipeline.imaging import overlay
from pipeline.imaging.agc import AutomaticGainControl
from pipeline.imaging.band import band_of, named_band
from pipeline.imaging.files import decoded
from pipeline.redaction import redact
from pipeline.replay.outputs import folder_names
from pipeline.segmentation.postprocess import MapView, detect
from pipeline.segmentation.segmenter import Segmenter
from pipeline.types import UNKNOWN, Detections, Frame, FrameRef

MAX_PRINTED = 5  # targets in the printed line of an image


class Box(msgspec.Struct, frozen=True):
    """A target in an image: its box in pixels, and as label the class of the highest score."""

    xyxy: tuple[float, float, float, float]
    label: str
    score: float
    area_px: float


class Prediction(msgspec.Struct, frozen=True):
    """The content of `<stem>_boxes.json`.

    `size_px` is width and height.  `inference_ms` is the time of the network alone, and for the first image also
    that of one-time preparations.
    """

    size_px: tuple[int, int]
    boxes: list[Box]
    inference_ms: float
    engine: str


def run_predict(
    images: Sequence[Path],
    out: Path,
    checkpoint: Path | None,
    threshold: float | None,
    device: str,
    engine_kind: str,
    band: str,
) -> int:
    """Write `<stem>_mask.png` (0/255, of the image's size), `<stem>_overlay.png` and `<stem>_boxes.json` for each.

    Print a line for each image.  Return 1 if one could not be read; the others are processed all the same.
    """
    if band != "auto":
        named_band(band)
    failed = 0
    loaded = load(checkpoint_path(checkpoint))
    with Engine(loaded, device=device, kind=engine_kind) as engine:
        out.mkdir(parents=True, exist_ok=True)
        names = folder_names(images)
        for path, name in zip(images, names, strict=True):
            try:
                grey_or_rgb = AutomaticGainControl()(decoded(_read(path)))
            except ImageError as error:
                print(redact(f"error: {path}: {error}"), file=sys.stderr)
                failed += 1
                continue
            pixels = np.repeat(grey_or_rgb[..., None], 3, axis=2) if grey_or_rgb.ndim == 2 else grey_or_rgb
            prediction = _predict(pixels, name, out, engine, threshold, band)
            print(f"{path}: {_described(prediction)}: {out / f'{name}_overlay.png'}", flush=True)
    return 1 if failed else 0


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error


def _predict(
    pixels: NDArray[np.uint8], name: str, out: Path, engine: Engine, threshold: float | None, band: str
) -> Prediction:
    metadata, image_band = engine.metadata, band_of(pixels, band)
    thresholds = metadata.thresholds[image_band]
    thresholds = replace(thresholds, continue_area_ratio=1.0)  # a single image has no tracks to continue
    if threshold is not None:
        thresholds = replace(thresholds, threshold=threshold)
    height, width = pixels.shape[:2]
    prepared, _ = prepare(pixels, image_band, metadata.preprocessing)
    started_s = time.monotonic()
    small = engine.submit(prepared[None]).result()[0]
    inference_ms = round((time.monotonic() - started_s) * 1e3, 3)
    # Probabilities are resized before the threshold, so that the mask has smooth edges.
    maps = np.stack([cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR) for channel in small])
    mask = (maps.max(axis=0) > thresholds.threshold).astype(np.uint8) * 255
    ref = FrameRef("predict", "predict", 0, 0.0, 0, 0)
    frame = Frame(ref, image_band, pixels)
    found = detect(maps, frame, MapView(), metadata.classes, thresholds)
    found = Segmenter(engine, threshold, max_judged=len(found)).judge(frame, MapView(), found)
    drawn = overlay.draw(pixels, found, [], least_score=0.0)  # all that is listed
    for suffix, image in (("mask", mask), ("overlay", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))):
        cv2.imwrite(str(out / f"{name}_{suffix}.png"), image)
    prediction = Prediction((width, height), _boxes(found), inference_ms, engine.name)
    (out / f"{name}_boxes.json").write_bytes(msgspec.json.format(msgspec.json.encode(prediction)) + b"\n")
    return prediction


def _described(prediction: Prediction) -> str:
    boxes = prediction.boxes
    first = ", ".join(f"{box.label} {box.score:.2f}" for box in boxes[:MAX_PRINTED])
    more = ", ..." if len(boxes) > MAX_PRINTED else ""
    found = f"{len(boxes)} {'target' if len(boxes) == 1 else 'targets'} ({first}{more})" if boxes else "no target"
    return f"{found}, {prediction.inference_ms:.0f} ms"


def _boxes(found: Detections) -> list[Box]:
    labels = [found.classes[int(scores.argmax())] if scores.any() else UNKNOWN for scores in found.class_scores]
    rows = zip(found.xyxy.tolist(), labels, found.score.tolist(), found.area_px.tolist(), strict=True)
    return [Box(tuple(xyxy), label, round(score, 4), area) for xyxy, label, score, area in rows]
