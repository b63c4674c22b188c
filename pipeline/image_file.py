"""Image files in, pictures out; the same for recordings, `dasnet predict` and training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def decoded(encoded: NDArray[np.uint8]) -> NDArray[Any] | None:
    """An image file's picture: RGB (H, W, 3) uint8, grey (H, W) uint8, or counts (H, W) uint16.

    None: not an image, or a broken one.  Of a coloured one of 16 bits the upper 8 are taken.
    """
    return _shown(lambda how: cv2.imdecode(encoded, how))


def decoded_page(path: Path, page: int) -> NDArray[Any] | None:
    """As `decoded`, of a file with several pictures (TIFF)."""

    def read(how: int) -> Any:
        _, pages = cv2.imreadmulti(str(path), page, 1, flags=how)
        return pages[0] if len(pages) else None

    return _shown(read)


def _shown(read: Callable[[int], Any]) -> NDArray[Any] | None:
    """`read` is told what OpenCV shall make of the file, and gives None where it is no picture."""
    try:
        image = read(cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
        if image is not None and image.dtype != np.uint8 and (image.dtype != np.uint16 or image.ndim == 3):
            image = read(cv2.IMREAD_ANYCOLOR)
    except cv2.error:  # is empty or too large
        return None
    if image is None or image.ndim == 2:
        return image  # type: ignore[no-any-return]
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
