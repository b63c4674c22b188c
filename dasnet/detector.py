"""Images in, detections out: DAS-Net, its judge and postprocessing behind one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from model import Engine, load
from pipeline.checkpoints import checkpoint_path
from pipeline.segmentation.segmenter import Segmenter
from pipeline.types import Band, Frame, FrameRef
from pipeline.types import Detections as FrameDetections

if TYPE_CHECKING:
    import supervision

COCO_SCORE_DECIMALS = 4


@dataclass(frozen=True)
class Detections:
    """All targets of one image, as arrays of equal length N; N = 0 means that nothing was found.

    `raw` holds what the pipeline itself passes on, class scores and packed masks included.
    """

    raw: FrameDetections

    def __len__(self) -> int:
        """Return N."""
        return len(self.raw)

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self.raw.size_px

    @property
    def boxes(self) -> NDArray[np.float32]:
        """Boxes (N, 4) float32: x0, y0, x1, y1 in image pixels, right and bottom exclusive."""
        return self.raw.xyxy

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores (N,) float32: the probability that it is a target."""
        return self.raw.score

    @property
    def classes(self) -> list[str]:
        """The class with the highest score of each detection; `unknown` where none was classified."""
        best = self.raw.class_scores.argmax(axis=1) if len(self) else []
        known: NDArray[np.bool_] = np.asarray(self.raw.class_scores.any(axis=1))
        return [self.raw.classes[index] if known[row] else "unknown" for row, index in enumerate(best)]

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Masks (N, H, W) bool in image pixels."""
        width, height = self.size_px
        masks = np.zeros((len(self), height, width), np.bool_)
        scale_x, scale_y = self.raw.mask_scale
        for mask, packed in zip(masks, self.raw.masks, strict=True):
            columns = np.floor(np.arange(width) / scale_x).astype(int) - packed.left
            rows = np.floor(np.arange(height) / scale_y).astype(int) - packed.top
            inside_x = (columns >= 0) & (columns < packed.width)
            inside_y = (rows >= 0) & (rows < packed.height)
            mask[np.ix_(inside_y, inside_x)] = packed.unpack()[np.ix_(rows[inside_y], columns[inside_x])]
        return masks

    def to_supervision(self) -> "supervision.Detections":
        """Return the same as `supervision.Detections` (needs the package `supervision`).

        `class_id` indexes `raw.classes`; names are in `data["class_name"]`.
        """
        import supervision

        return supervision.Detections(
            xyxy=self.boxes.astype(float),
            mask=self.masks,
            confidence=self.scores.astype(float),
            class_id=self.raw.class_scores.argmax(axis=1) if len(self) else np.zeros(0, int),
            data={"class_name": np.array(self.classes, dtype=str)},
        )

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Return COCO results: image_id, category_id (1: the first class), category_name, bbox (xywh), score."""
        categories = self.raw.class_scores.argmax(axis=1) + 1 if len(self) else []
        return [
            {
                "image_id": image_id,
                "category_id": int(category),
                "category_name": name,
                "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                "score": round(float(score), COCO_SCORE_DECIMALS),
            }
            for category, name, (x0, y0, x1, y1), score in zip(
                categories, self.classes, self.boxes, self.scores, strict=True
            )
        ]


class Detector:
    """Detects UAVs in single images; use it as a context manager, or call `close`."""

    def __init__(
        self, checkpoint: str | Path | None = None, device: str = "auto", threshold: float | None = None
    ) -> None:
        """Load a checkpoint and choose an engine.

        Args:
            checkpoint: a file of dasnet's or the original's; None: the shipped one.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            threshold: of the target probability of a pixel; None: the checkpoint's.

        Raises:
            CheckpointError: the file is malformed.
            EngineError: the device or engine is not available.
        """
        self._engine = Engine(load(checkpoint_path(Path(checkpoint) if checkpoint else None)), device=device)
        self._threshold = threshold

    def detect(self, image: NDArray[np.uint8], band: str = "infrared") -> Detections:
        """Return what is found in one image.

        Args:
            image: (H, W) grey or (H, W, 3) RGB, uint8.
            band: `infrared` or `visible`.

        Raises:
            ValueError: the image has another shape or type, or the band is unknown.
        """
        return self.detect_batch([image], band)[0]

    def detect_batch(self, images: Sequence[NDArray[np.uint8]], band: str = "infrared") -> list[Detections]:
        """Return what is found in each image; images of one size share a batch.  As `detect`."""
        if band not in list(Band):
            raise ValueError(f"band is {band!r}; must be one of {', '.join(Band)}")
        for image in images:
            if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
                raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W) or (H, W, 3)")
        frames = [
            Frame(FrameRef(f"image-{number}", "", 0, 0.0, 0, 0), Band(band), np.ascontiguousarray(image))
            for number, image in enumerate(images)
        ]
        segmenter = Segmenter(self._engine, self._threshold)  # of its own: images are not frames of one video
        return [Detections(found) for found in segmenter.finish(segmenter.submit(frames))]

    def close(self) -> None:
        """Free the engine's threads and memory."""
        self._engine.close()

    def __enter__(self) -> Self:
        """Return the detector."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close it."""
        self.close()
