"""Sets how much of the live cameras' frames the network processes, and logs and exports it."""

import time
from collections.abc import Iterable

import structlog

from pipeline.config.models import Config
from pipeline.segmentation.segmenter import Segmenter
from pipeline.segmentation.share import ShareControl
from pipeline.telemetry.metrics import SegmentationMetrics
from pipeline.transport.wire import Stamps
from pipeline.types import Frame

REPORT_INTERVAL_S = 1.0
LOGGED_FACTOR = 2.0  # the share is logged when it leaves or reaches whole frames, or has changed by this factor


class NetworkShare:
    """The share of each live frame's pixels that the network processes.

    Args:
        segmenter: runs inference.
        metrics: of the worker.
        config: of the site.
    """

    def __init__(self, segmenter: Segmenter, metrics: SegmentationMetrics, config: Config) -> None:
        self._segmenter, self._metrics = segmenter, metrics
        fixed = None if config.model.share == "auto" else config.model.share
        self._control = ShareControl(config.objective.capture_to_track_ms / 1e3, fixed)
        self._reported_ns = 0
        self._log = structlog.get_logger()
        segmenter.share = self._logged_share = self._control.share
        self.watch(config)

    def watch(self, config: Config) -> None:
        """Set the cameras from now on.  Frames of recordings wait, however old: they lower nothing."""
        self._live = frozenset(camera.id for camera in config.cameras if camera.is_live)

    def idled(self, seconds: float) -> None:
        """Take note of time in which neither the device nor the worker had anything to do."""
        self._control.idle(seconds)

    def started(self, frames: Iterable[tuple[Frame, Stamps]]) -> None:
        """Take note of the frames that are started now, and set the share for them."""
        now_ns, most = time.monotonic_ns(), self._control.max_motion
        for frame, stamps in frames:
            if frame.ref.camera in self._live:
                age_s = (now_ns - frame.ref.received_mono_ns) / 1e9
                self._segmenter.share = self._control.update(stamps.replaced, age_s, now_ns / 1e9)
        share, self._segmenter.max_motion = self._control.share, self._control.max_motion
        if self._segmenter.max_motion != most:
            self._log.warning("motion candidates judged a frame changed", most=self._segmenter.max_motion, before=most)
        self._log_share(share)
        if now_ns - self._reported_ns > REPORT_INTERVAL_S * 1e9:
            self._reported_ns = now_ns
            revisit_s = {name: self._segmenter.revisit_s(name) for name in self._live}
            self._metrics.scanned(share, self._control.max_motion, revisit_s)

    def _log_share(self, share: float) -> None:
        before = self._logged_share
        is_whole_again_or_no_more = (share < 1) != (before < 1)
        if is_whole_again_or_no_more or not before / LOGGED_FACTOR < share < before * LOGGED_FACTOR:
            self._log.warning("network share changed", share=round(share, 3), before=round(before, 3))
            self._logged_share = share
