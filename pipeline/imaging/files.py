"""Image files in, images out; for recordings, `dasnet predict` and training alike.

An image's size is checked by its header before it is decoded.  Messages of OpenCV's decoders are kept off stderr.
"""

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.imaging.image_header import ACCEPTED, ImageHeader, read_header
from pipeline.imaging.tiff_header import TiffPage

_ANY = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
_DECODERS = (
    *(b"libpng ", b"Corrupt JPEG", b"Premature end of JPEG", b"Invalid SOS", b"Inconsistent progression"),
    *(b"Unknown Adobe", b"Warning: unknown JFIF", b"Unsupported JPEG"),
)
_SHALLOW = frozenset({"uint1", "uint4", "uint8"})
_DEEP = frozenset(
    f"{kind}{bits}"
    for kind, sizes in (("uint", (10, 12, 14, 16, 32, 64)), ("int", (8, 16, 32, 64)), ("float", (32, 64)))
    for bits in sizes
)
_stderr = threading.RLock()

# OpenCV's own messages, libtiff's included: callers report failures.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decoded(encoded: NDArray[np.uint8]) -> NDArray[Any]:
    """Return an image: RGB (H, W, 3) uint8, grey (H, W) uint8, or grey (H, W) of another type for gain control.

    Colour of 16 bits is reduced to the upper 8.  Raise ImageError.
    """
    header = read_header(io.BytesIO(encoded.tobytes()))
    return _image(header, lambda how: cv2.imdecode(encoded, how))


def decoded_page(path: Path, page: int) -> NDArray[Any]:
    """Return one page, 0-based, of a TIFF file, as `decoded` does.  Raise ImageError."""

    def read(how: int) -> Any:
        _, pages = cv2.imreadmulti(str(path), page, 1, flags=how)
        return pages[0] if len(pages) else None

    with path.open("rb") as file:
        header = read_header(file, page)
    return _image(header, read)


def decode(encoded: NDArray[np.uint8], how: int) -> NDArray[Any]:
    """Return the image as OpenCV decodes it with these flags, BGR or grey.  Raise ImageError."""
    header = read_header(io.BytesIO(encoded.tobytes()))
    return _levels(header, lambda flags: cv2.imdecode(encoded, flags), how)


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep messages of libpng and libjpeg off stderr; lines of other threads are passed on."""
    with _stderr:
        try:
            before = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        with os.fdopen(os.memfd_create("decoders"), "rb+", buffering=0) as caught:
            os.dup2(caught.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(before, 2)
                os.close(before)
                caught.seek(0)
                others = [line for line in caught.readall().splitlines(True) if not line.startswith(_DECODERS)]
                with suppress(OSError):
                    os.write(2, b"".join(others))


def _image(header: ImageHeader, read: Callable[[int], Any]) -> NDArray[Any]:
    image = _levels(header, read, _ANY)
    if image.ndim == 3 and image.dtype != np.uint8 and _is_grey(image):
        image = image[..., 0]
    if image.dtype.kind == "f" and not np.isfinite(image).any():
        raise ImageError(f"contains no finite value in its {image.dtype} samples")
    if image.ndim == 2:
        return _black_is_zero(header, image)
    if image.dtype == np.uint8:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    if image.dtype == np.uint16:
        return np.asarray(cv2.cvtColor((image >> 8).astype(np.uint8), cv2.COLOR_BGR2RGB))
    raise ImageError(f"is a colour image of {image.dtype} samples; must be of uint8 or uint16 samples, or grey")


def _is_grey(image: NDArray[Any]) -> bool:
    """Return whether the three planes are equal, as some thermal cameras write them."""
    first = np.broadcast_to(image[..., :1], image[..., :3].shape)
    return bool(np.array_equal(image[..., :3], first, equal_nan=image.dtype.kind == "f"))


def _levels(header: ImageHeader, read: Callable[[int], Any], how: int) -> NDArray[Any]:
    tiff = header.tiff
    kind = f"TIFF of {tiff.described}" if tiff else header.format
    if tiff and not _is_supported(tiff):
        raise ImageError(f"is a {kind}; must be of 1, 3 or 4 interleaved samples for each pixel, uint1 to float64")
    try:
        with quiet_decoders():
            image = read(how)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(f"is broken, or a {kind} that cannot be decoded; must be one of {ACCEPTED}")
    if sorted(image.shape[:2]) != sorted(header.size_px):  # sorted: it may have been rotated
        raise ImageError(f"declares {header.size_px} px and contains {image.shape[1::-1]} px")
    return np.asarray(image)


def _is_supported(tiff: TiffPage) -> bool:
    """Return whether OpenCV decodes the page correctly: deep samples in separate planes it does not."""
    if tiff.samples in _SHALLOW:
        return tiff.channels <= 4
    return tiff.samples in _DEEP and tiff.channels in (1, 3, 4) and not (tiff.planar and tiff.channels > 1)


def _black_is_zero(header: ImageHeader, image: NDArray[Any]) -> NDArray[Any]:
    """Invert the levels of a TIFF whose white is zero, where OpenCV does not: above 8 bits."""
    if header.tiff is None or not header.tiff.white_is_zero or image.dtype.itemsize == 1:
        return image
    return np.asarray(np.negative(image) if image.dtype.kind == "f" else np.invert(image))
