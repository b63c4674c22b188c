"""A camera without inference is blind for as long as that, by what took its frames."""

import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from support.program import Running

from pipeline.capture.starvation import BLIND_S, CLEAR_S, StarvationMonitor
from pipeline.store import ledger
from pipeline.types import Cause

OVERLOAD, CORRUPT, FAILED = Cause.OVERLOAD, Cause.CORRUPT, Cause.FAILED


def blind_s(segmented_s: list[float], lost: dict[float, Cause], until_s: int, fps: int = 10) -> dict[Cause, float]:
    """By cause, of a camera that sends from 0 s to `until_s`."""
    counts = dict.fromkeys(Cause, 0)
    watch = StarvationMonitor(0.0, counts)
    total = dict.fromkeys(Cause, 0.0)
    for number in range(1, until_s * fps + 1):
        now_s = number / fps
        if now_s in lost:
            counts[lost[now_s]] += 1
        for blindness in watch.update(max([s for s in segmented_s if s <= now_s], default=0.0), counts, now_s):
            total[blindness.cause] += blindness.duration_s
    return {cause: round(seconds, 3) for cause, seconds in total.items() if seconds}


@pytest.mark.parametrize(
    ("segmented_s", "lost", "expected"),
    [
        (
            [0.5, 1.0, 1.5, 2.0, 3.5, 5.0, 6.5, 8.0, 9.5],
            {1.2: OVERLOAD, 4.0: OVERLOAD},
            {},
        ),  # drops, but it is segmented
        ([1.0, 7.0, 8.5, 10.0], {2.0: OVERLOAD, 3.0: OVERLOAD}, {OVERLOAD: 6.0}),  # the whole gap, not what exceeds
        ([1.0, 7.0, 8.5, 10.0], {2.0: CORRUPT, 2.5: CORRUPT, 3.0: OVERLOAD}, {CORRUPT: 6.0}),  # what took most of them
        ([1.0], {8.0: FAILED}, {FAILED: 9.0}),  # still under way; known late, counted whole
        ([1.0], {}, {}),  # nothing was lost: it waits
        ([], {1.0: OVERLOAD}, {OVERLOAD: 10.0}),  # never segmented at all
    ],
)
def test_gaps_are_blind_from_their_beginning(segmented_s, lost, expected):
    assert blind_s(segmented_s, lost, until_s=10) == expected


def test_a_camera_that_sends_seldom_is_blind_only_if_frames_were_lost():
    nothing = dict.fromkeys(Cause, 0)
    watch = StarvationMonitor(0.0, nothing)
    assert not any(watch.update(second - 1, nothing, second) for second in range(10, 100, 10))


def test_the_cause_is_told_while_it_lasts_and_does_not_flutter():
    lost = dict.fromkeys(Cause, 0)
    watch = StarvationMonitor(0.0, lost)
    told = []
    for tenth in range(1, 400):  # segmented every 0.2 s, then every 3 s from 10 to 25 s, then often again
        now_s = tenth / 10
        lost[OVERLOAD] += 1
        rare = 10 <= now_s < 25
        watch.update((now_s - 10) // 3 * 3 + 10 if rare else now_s // 0.2 * 0.2, lost, now_s)
        if not told or told[-1][1] is not watch.cause:
            told.append((now_s, watch.cause))
    causes, times_s = [cause for _, cause in told], [now_s for now_s, _ in told]
    assert causes == [None, OVERLOAD, None]
    assert 10 + BLIND_S < times_s[1] < 10 + BLIND_S + 0.3
    assert 24 + CLEAR_S < times_s[2] < 25 + CLEAR_S + 0.3


def test_a_start_is_counted_but_not_told():
    watch = StarvationMonitor(0.0, {OVERLOAD: 0})
    assert watch.update(0.0, {OVERLOAD: 50}, 5.0) and watch.cause is None
    watch.update(5.1, {OVERLOAD: 50}, 5.2)
    assert watch.update(5.1, {OVERLOAD: 90}, 8.0) and watch.cause is OVERLOAD


def test_a_camera_without_inference_is_blind_by_overload_and_a_killed_worker_takes_nothing_of_it_along(
    tmp_path: Path,
):
    """The real capture worker, without a segmentation worker."""
    config = tmp_path / "site.yaml"
    camera = {"id": "cam", "uri": "demo:scene?fps=15", "band": "infrared"}
    config.write_text(yaml.safe_dump({"cameras": [camera], "run_dir": str(tmp_path / "run")}))
    path = tmp_path / "run" / "ledgers" / "cam.ledger"

    def wait_until_blind(at_least_s: float) -> ledger.Account:
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            if path.exists() and path.stat().st_size == ledger.SIZE_BYTES:
                account = ledger.read(path)
                if account.blind_ns[OVERLOAD] >= at_least_s * 1e9:
                    return account
            time.sleep(0.05)  # a file can only be read again
        raise AssertionError("not blind")

    with Running("worker", "capture", config, "--camera", "cam") as worker:
        account = wait_until_blind(BLIND_S)
        assert account.balanced and account.dropped[OVERLOAD] > BLIND_S * 5 and not account.segmented
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    kept = ledger.read(path)
    assert kept.blind_ns[OVERLOAD] >= account.blind_ns[OVERLOAD]
    with Running("worker", "capture", config, "--camera", "cam"):
        wait_until_blind(kept.blind_ns[OVERLOAD] / 1e9 + 1)
