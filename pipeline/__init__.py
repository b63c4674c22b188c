"""The counter-UAV video pipeline: camera -> frame -> mask -> detections -> tracks -> events -> sinks."""

__version__ = "0.2.0"
