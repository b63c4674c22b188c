"""Decoding on the graphics card, where that is wanted and works; everything else is decoded on the processor.

In: what the configuration says of a camera.  Out: what FFmpeg is given when the camera is opened, or None.
"""

from functools import cache
from pathlib import Path

import av
import structlog
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError

PROBED = "h264"  # what every such decoder knows; one that lacks a camera's codec leaves that to the processor
_NODES = {"cuda": "/dev/nvidiactl", "vaapi": "/dev/dri/renderD128"}  # where there is none there is no card


def hardware(decode: str) -> HWAccel | None:
    """`decode`: auto, cpu, cuda or vaapi.  A device that cannot be used is said once, and the processor decodes."""
    device = _device(decode)
    return None if device is None else HWAccel(device_type=device, allow_software_fallback=True)


@cache
def _device(decode: str) -> str | None:
    if decode == "cpu":
        return None
    wanted = [name for name, node in _NODES.items() if Path(node).exists()] if decode == "auto" else [decode]
    for device in wanted:
        reason = _unusable(device)
        if reason is None:
            return device
        structlog.get_logger().warning("decoding on the processor instead", decode=decode, device=device, reason=reason)
    return None


def _unusable(device: str) -> str | None:
    """Why; FFmpeg's own list of devices is of what it was built with, not of what is there."""
    try:
        HWAccel(device_type=device, allow_software_fallback=False).create(av.Codec(PROBED, "r"))
    except (FFmpegError, RuntimeError) as error:  # it has no driver here; this FFmpeg was built without it
        return getattr(error, "strerror", None) or str(error)
    return None
