"""dasnet as a library: detect and track UAVs in images and recordings.

    import dasnet

    detector = dasnet.Detector()
    detections = detector.detect(image, band="infrared")  # (H, W) or (H, W, 3) RGB uint8
    for frame, tracks in dasnet.replay("clip.mp4"):
        print(frame.ref.pts_s, [(track.label, track.xyxy) for track in tracks])

Everything is imported on first use: `import dasnet` alone is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline import __version__

if TYPE_CHECKING:
    from dasnet.detector import Detections, Detector
    from dasnet.tracking import Tracker, replay
    from model import Engine, build, load
    from pipeline.types import Frame, Track

__all__ = [
    "Detections",
    "Detector",
    "Engine",
    "Frame",
    "Track",
    "Tracker",
    "__version__",
    "build",
    "load",
    "replay",
]

_MODULES = {
    "Detections": "dasnet.detector",
    "Detector": "dasnet.detector",
    "Tracker": "dasnet.tracking",
    "replay": "dasnet.tracking",
    "Engine": "model",
    "build": "model",
    "load": "model",
    "Frame": "pipeline.types",
    "Track": "pipeline.types",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module 'dasnet' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
