"""A camera of whose view the network does not process all in time is partly blind, by `budget`."""

import numpy as np
import pytest

from pipeline.capture.camera_health import CameraHealth
from pipeline.capture.overdue import CLEAR_S, OverdueMonitor
from pipeline.segmentation.scan import Scan
from pipeline.types import Cause

NOWHERE = np.zeros((0, 2), np.float32)
NOTHING_LOST = dict.fromkeys(Cause, 0)


def test_a_place_that_waits_too_long_is_declared_at_once_and_counted_by_its_share_of_the_view():
    """A scan of 6.9 s is in time where the bound is 10 s; where it is 4 s, it is not, until frames are whole again."""
    for bound_s, is_late in ((10.0, False), (4.0, True)):
        scan, monitor, blind_s, declared_s = Scan(), OverdueMonitor(0.0), 0.0, None
        for number in range(25 * 60):
            scan.tiles((640, 512), number / 25, 0.03, NOWHERE, NOWHERE)
            share = scan.overdue(bound_s)
            blind_s += sum(one.duration_s for one in monitor.update(share, number / 25))
            if monitor.cause is not None and declared_s is None:
                declared_s = number / 25
        assert (monitor.cause is Cause.BUDGET) == is_late
        assert declared_s == (pytest.approx(bound_s, abs=0.05) if is_late else None)
        assert 0.2 * 60 < blind_s < 0.5 * 60 if is_late else blind_s == 0
        scan.covered()
        assert scan.overdue(bound_s) == 0
        monitor.update(0.0, 60 + CLEAR_S - 0.1)
        assert (monitor.cause is Cause.BUDGET) == is_late, "a scan near its bound does not flutter"
        monitor.update(0.0, 60 + CLEAR_S + 0.1)
        assert monitor.cause is None


def test_a_camera_that_is_blind_for_another_cause_is_not_counted_twice():
    health = CameraHealth(0.0, NOTHING_LOST)
    black, scene = np.zeros((48, 64), np.uint8), np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    causes, blind_s = [], dict.fromkeys(Cause, 0.0)
    for number in range(300):  # black from 10 to 20 s
        now_s = number / 10
        found = health.update_segmentation(now_s, NOTHING_LOST, 0.25, now_s)
        found += health.update_image(black if 10 <= now_s < 20 else scene + np.uint8(number % 2 * 9), now_s)
        for one in found:
            blind_s[one.cause] += one.duration_s
        if not causes or causes[-1] is not health.cause:
            causes.append(health.cause)
    assert causes == [Cause.BUDGET, Cause.SATURATED, Cause.BUDGET]
    assert blind_s[Cause.SATURATED] == pytest.approx(11, abs=0.3)
    assert blind_s[Cause.BUDGET] == pytest.approx(0.25 * (30 - 9), abs=0.3)
