"""`dasnet predict`: pictures -> masks, overlays and boxes."""

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
from pipeline.errors import ConfigError, ImageError
from pipeline.imaging import overlay
from pipeline.imaging.agc import AutomaticGainControl
from pipeline.imaging.files import decoded
from pipeline.redaction import redact
from pipeline.replay.outputs import folder_names
from pipeline.segmentation.postprocess import MapView, detect
from pipeline.segmentation.segmenter import Segmenter
from pipeline.types import UNKNOWN, Band, Detections, Frame, FrameRef

MOST_NAMED = 5  # targets of a picture, in its line
COLOUR_DIFFERENCE = 6.0  # mean difference between the channels above which a picture has colour


class Box(msgspec.Struct, frozen=True):
    """A target of a picture."""

    xyxy: tuple[float, float, float, float]  # pixels
    label: str  # the class that fits best
    score: float
    area_px: float


class Prediction(msgspec.Struct, frozen=True):
    """`<stem>_boxes.json`."""

    size_px: tuple[int, int]  # width, height
    boxes: list[Box]
    inference_ms: float  # of the network alone; the first picture's also holds what is prepared once
    engine: str


def named_band(name: str) -> Band:
    """Raises ConfigError for an unknown name."""
    try:
        return Band(name)
    except ValueError as error:
        raise ConfigError(f"band {name!r}; allowed: auto, {', '.join(Band)}") from error


def band_of(pixels: NDArray[np.uint8], named: str = "auto") -> Band:
    """`auto`: a picture without colour is taken for infrared."""
    if named != "auto":
        return named_band(named)
    if pixels.ndim == 2:
        return Band.INFRARED
    spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    return Band.VISIBLE if float(spread.mean()) > COLOUR_DIFFERENCE else Band.INFRARED


def run_predict(
    images: Sequence[Path],
    out: Path,
    checkpoint: Path | None,
    threshold: float | None,
    device: str,
    engine_kind: str,
    band: str,
) -> int:
    """Write `<stem>_mask.png` (0/255, at the picture's size), `<stem>_overlay.png` and `<stem>_boxes.json` for each.

    Prints a line for each.  Returns 1 where a picture could not be read; the others are done all the same.
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
                shown = AutomaticGainControl()(decoded(_read(path)))
            except ImageError as error:
                print(redact(f"error: {path}: {error}"), file=sys.stderr)
                failed += 1
                continue
            pixels = np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else shown
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
    metadata, seen = engine.metadata, band_of(pixels, band)
    decision = metadata.thresholds[seen]
    decision = replace(decision, continue_area_ratio=1.0)  # a single picture has no tracks to continue
    if threshold is not None:
        decision = replace(decision, threshold=threshold)
    height, width = pixels.shape[:2]
    picture, _ = prepare(pixels, seen, metadata.preprocessing)
    started_s = time.monotonic()
    small = engine.submit(picture[None]).result()[0]
    inference_ms = round((time.monotonic() - started_s) * 1e3, 3)
    # Probabilities are brought to the picture's size before the threshold: its mask then has smooth edges.
    maps = np.stack([cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR) for channel in small])
    mask = (maps.max(axis=0) > decision.threshold).astype(np.uint8) * 255
    ref = FrameRef("predict", "predict", 0, 0.0, 0, 0)
    frame = Frame(ref, seen, pixels)
    found = detect(maps, frame, MapView(), metadata.classes, decision)
    [found] = Segmenter(engine, threshold, max_classified=len(found)).classify([frame], [found])
    drawn = overlay.draw(pixels, found, [])
    for suffix, image in (("mask", mask), ("overlay", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))):
        cv2.imwrite(str(out / f"{name}_{suffix}.png"), image)
    prediction = Prediction((width, height), _boxes(found), inference_ms, engine.name)
    (out / f"{name}_boxes.json").write_bytes(msgspec.json.format(msgspec.json.encode(prediction)) + b"\n")
    return prediction


def _described(prediction: Prediction) -> str:
    boxes = prediction.boxes
    first = ", ".join(f"{box.label} {box.score:.2f}" for box in boxes[:MOST_NAMED])
    more = ", ..." if len(boxes) > MOST_NAMED else ""
    found = f"{len(boxes)} {'target' if len(boxes) == 1 else 'targets'} ({first}{more})" if boxes else "no target"
    return f"{found}, {prediction.inference_ms:.0f} ms"


def _boxes(found: Detections) -> list[Box]:
    labels = [found.classes[int(scores.argmax())] if scores.any() else UNKNOWN for scores in found.class_scores]
    rows = zip(found.xyxy.tolist(), labels, found.score.tolist(), found.area_px.tolist(), strict=True)
    return [Box(tuple(xyxy), label, round(score, 4), area) for xyxy, label, score, area in rows]
