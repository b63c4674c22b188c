"""Each step of declared degradation is a line in the log and a metric."""

from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from model.metadata import Metadata
from pipeline.config.model import MIN_SHARE
from pipeline.config.models import Config
from pipeline.segmentation import network_share
from pipeline.segmentation.network_share import NetworkShare
from pipeline.segmentation.segmenter import Segmenter
from pipeline.telemetry.metrics import SegmentationMetrics
from pipeline.transport.wire import Stamps
from pipeline.types import Band, Frame, FrameRef


def test_each_halving_of_the_share_and_each_step_of_motion_is_logged_and_exported(monkeypatch: pytest.MonkeyPatch):
    clock = SimpleNamespace(now_ns=10**9)
    monkeypatch.setattr(network_share, "time", SimpleNamespace(monotonic_ns=lambda: clock.now_ns))
    segmenter = Segmenter(SimpleNamespace(metadata=Metadata(), judge=None))  # type: ignore[arg-type]
    metrics = SegmentationMetrics("m", "e", "v")
    config = Config.model_validate({"cameras": [{"id": "cam", "uri": "demo:"}]})
    share = NetworkShare(segmenter, metrics, config)

    def step(replaced: int, idle_s: float) -> None:
        clock.now_ns += 600_000_000
        share.idled(idle_s)
        ref = FrameRef("cam", "s", 0, 0.0, clock.now_ns, 0)
        share.started([(Frame(ref, Band.VISIBLE, np.zeros((1, 1), np.uint8)), Stamps(replaced=replaced))])

    with capture_logs() as lines:
        for _ in range(20):
            step(replaced=9, idle_s=0)
        lowest = {sample.name: sample.value for metric in metrics.registry.collect() for sample in metric.samples}
        for _ in range(60):
            step(replaced=0, idle_s=0.5)
    assert (lowest["dasnet_network_share"], lowest["dasnet_judged_motion"]) == (MIN_SHARE, 2)
    shares = [line["share"] for line in lines if line["event"] == "network share changed"]
    down, up = shares[: shares.index(min(shares)) + 1], shares[shares.index(min(shares)) + 1 :]
    assert len(down) >= 5 and down == sorted(down, reverse=True)
    assert len(up) >= 4 and up == sorted(up) and up[-1] == 1
    motion = [line["most"] for line in lines if line["event"].startswith("motion candidates")]
    assert motion == [6, 3, 2, 3, 6, 12]
