"""When a busy device receives its next batch: at once, or a little later and fuller.  Pure.

An idle device never waits.  While it computes, a batch that it cannot begin yet may wait for the frames of other
cameras: for as long as the previous one is expected to take, and while the oldest frame can still be tracked within
the latency objective.
"""

EXECUTION_SMOOTHING = 0.2  # weight of the newest batch in the moving average of execution times
BATCH_SHARE = 0.5  # of the objective, until a frame's batch is done; the rest is for tracking and alerting


class BatchingPolicy:
    """Decide how long a batch may wait for more frames."""

    def __init__(self, objective_s: float, max_batch_size: int) -> None:
        self._objective_s = objective_s
        self._max_batch_size = max_batch_size
        self._execution_s = 0.0  # moving average

    def executed(self, execution_s: float) -> None:
        """Update the expected execution time with that of a finished batch."""
        is_first = self._execution_s == 0.0
        self._execution_s += (1.0 if is_first else EXECUTION_SMOOTHING) * (execution_s - self._execution_s)

    def wait_s(self, in_flight: int, waiting: int, expected: int, running_s: float, oldest_age_s: float) -> float:
        """Return how long to wait for more frames; 0: submit now.

        Args:
            in_flight: batches that the device has.
            waiting: frames for the next batch.
            expected: cameras that may send a frame at any moment.
            running_s: time since the newest batch was submitted.
            oldest_age_s: time since the oldest waiting frame was received.
        """
        if not in_flight or not expected or waiting >= self._max_batch_size:
            return 0.0
        device_free_s = self._execution_s - running_s
        slack_s = BATCH_SHARE * self._objective_s - oldest_age_s - self._execution_s
        return max(0.0, min(device_free_s, slack_s))
