"""The time limits that depend on each other keep their order."""

from pipeline import timeouts
from pipeline.capture.live import FRAME_TIMEOUT_S, OPEN_TIMEOUT_S, READ_TIMEOUT_S
from pipeline.capture.worker import BACKOFF_S, CREDENTIALS_BACKOFF_S


def test_capture_makes_progress_before_its_watchdog_expires() -> None:
    longest_s = max(OPEN_TIMEOUT_S + 2 * READ_TIMEOUT_S, FRAME_TIMEOUT_S, *BACKOFF_S, CREDENTIALS_BACKOFF_S * 1.25)
    assert longest_s < timeouts.CAPTURE_WATCHDOG_TIMEOUT_S


def test_a_batch_fails_before_the_cameras_give_up_its_frames() -> None:
    assert timeouts.RESULT_SEND_TIMEOUT_S < timeouts.BATCH_DEADLINE_S < timeouts.OUTCOME_TIMEOUT_S
    assert timeouts.BATCH_DEADLINE_S < timeouts.DEVICE_HANG_TIMEOUT_S
    assert timeouts.CREDIT_REQUEST_PERIOD_S < timeouts.OUTCOME_TIMEOUT_S
    assert timeouts.CLOCK_REQUEST_PERIOD_S < timeouts.INFERENCE_HOST_TIMEOUT_S


def test_a_silent_worker_counts_as_down_before_it_is_killed() -> None:
    assert 2 * timeouts.HEARTBEAT_PERIOD_S < timeouts.CAMERA_SILENCE_TIMEOUT_S < timeouts.WORKER_SILENCE_TIMEOUT_S
    assert timeouts.WORKER_SILENCE_TIMEOUT_S < timeouts.CAPTURE_SILENCE_TIMEOUT_S < timeouts.HEARTBEAT_TIMEOUT_S
    assert timeouts.HEARTBEAT_TIMEOUT_S < timeouts.FIRST_HEARTBEAT_TIMEOUT_S < timeouts.RELOAD_TIMEOUT_S


def test_a_worker_exits_by_itself_before_the_supervisor_kills_it() -> None:
    drained_s = sum(timeouts.TRACKING_DRAIN_TIMEOUTS_S.values())
    assert timeouts.CLIP_DRAIN_TIMEOUT_S < timeouts.WORKER_EXIT_TIMEOUT_S
    assert drained_s < timeouts.WORKER_EXIT_TIMEOUT_S < timeouts.WORKER_STOP_TIMEOUT_S
