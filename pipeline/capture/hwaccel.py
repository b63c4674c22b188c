"""Hardware decoding, where configured and available; otherwise frames are decoded in software.  Experimental.

In: a camera's `decode` key.  Out: FFmpeg's option for opening the camera, or None.
"""

from functools import cache
from pathlib import Path

import av
import structlog
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError

PROBED = "h264"  # which every hardware decoder supports; without a camera's codec it falls back to software
_NODES = {
    "cuda": "/dev/nvidiactl",
    "vaapi": "/dev/dri/renderD128",
}  # without this device node there is no such hardware


def hardware(decode: str) -> HWAccel | None:
    """Return the decoder for `auto`, `cpu`, `cuda` or `vaapi`; None for software.  Unusable devices are logged once."""
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
        structlog.get_logger().warning(
            "hardware decoding unavailable; decoding in software", decode=decode, device=device, reason=reason
        )
    return None


def _unusable(device: str) -> str | None:
    """Return why a device cannot be used, or None.  FFmpeg lists what it was built with, not what is present."""
    try:
        HWAccel(device_type=device, allow_software_fallback=False).create(av.Codec(PROBED, "r"))
    except (FFmpegError, RuntimeError) as error:  # no driver; FFmpeg was built without it
        return getattr(error, "strerror", None) or str(error)
    return None
