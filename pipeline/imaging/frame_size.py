"""The largest frame size: one limit for cameras, recordings, image files and training data, checked before decoding.

A file of a few kilobytes can declare gigabytes of pixels.  Pure.
"""

from pipeline.errors import ImageError

MAX_FRAME_PX = 1 << 26  # 8192 x 8192
MAX_SIDE_PX = 16384
FFMPEG_LIMIT = {"max_pixels": str(MAX_FRAME_PX)}  # options of a container and of a decoder


def require_frame_size(width_px: int, height_px: int) -> None:
    """Raise ImageError for a frame size that is empty or too large."""
    if min(width_px, height_px) < 1 or max(width_px, height_px) > MAX_SIDE_PX or width_px * height_px > MAX_FRAME_PX:
        limits = f"{MAX_FRAME_PX:,} px, with sides of 1 to {MAX_SIDE_PX:,} px"
        raise ImageError(f"declares {width_px}x{height_px} px; must be at most {limits}")
