"""Decoding on a graphics card falls back to the processor, said once; this machine has none, which is the test."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.capture import hwaccel
from pipeline.capture.hwaccel import hardware as chosen

CARDS = [node for node in ("/dev/nvidiactl", "/dev/dri/renderD128") if Path(node).exists()]


@pytest.fixture(autouse=True)
def _afresh():
    hwaccel._device.cache_clear()


@pytest.mark.skipif(bool(CARDS), reason="there is a card here")
@pytest.mark.parametrize("device", ["cuda", "vaapi"])
def test_a_device_that_is_not_there_is_said_once_and_the_processor_decodes(device: str):
    with capture_logs() as logs:
        assert chosen(device) is None and chosen(device) is None
    (line,) = logs
    assert line["log_level"] == "warning" and line["device"] == device and line["reason"]


@pytest.mark.skipif(bool(CARDS), reason="there is a card here")
@pytest.mark.parametrize("decode", ["cpu", "auto"])
def test_without_a_card_there_is_nothing_to_say(decode: str):
    with capture_logs() as logs:
        assert chosen(decode) is None
    assert logs == []


@pytest.mark.gpu
def test_a_card_decodes_as_the_processor_does():
    import av
    import numpy as np

    clip = str(Path(__file__).parents[2] / "data/clips/IR_DRONE_015.mp4")
    how = chosen("cuda")
    assert how is not None
    with av.open(clip, hwaccel=how) as fast, av.open(clip) as slow:
        for ours, theirs in zip(fast.decode(video=0), slow.decode(video=0), strict=True):
            assert np.abs(ours.to_ndarray(format="gray").astype(int) - theirs.to_ndarray(format="gray")).max() <= 2
