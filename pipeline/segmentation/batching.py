"""When a device that is busy is given its next batch: at once, or a little later and fuller.  Pure.

A device that is idle never waits.  While it computes, a batch that it cannot begin anyway may wait for the frames of
other cameras: for as long as the one before it is expected to take, and while the oldest frame can still be tracked
within the objective.
"""

SMOOTHING = 0.2  # of the time that a batch takes
SHARE = 0.5  # of the objective, for all that happens until a frame's batch is done; the rest is for what follows


class BatchWindow:
    def __init__(self, objective_s: float, most: int) -> None:
        """`most`: frames in a batch."""
        self._objective_s = objective_s
        self._most = most
        self._execution_s = 0.0  # of a batch, smoothed

    def done(self, execution_s: float) -> None:
        """A batch took so long."""
        first = self._execution_s == 0.0
        self._execution_s += (1.0 if first else SMOOTHING) * (execution_s - self._execution_s)

    def wait_s(self, flying: int, waiting: int, expected: int, running_s: float, oldest_age_s: float) -> float:
        """0: submit now.

        `flying`: batches that the device has, the last of which has been `running_s` there; `waiting`: frames that are
        here, the oldest of which was received `oldest_age_s` ago; `expected`: of cameras that may send one any moment.
        """
        if not flying or not expected or waiting >= self._most:
            return 0.0
        device_s = self._execution_s - running_s  # until it can begin with another
        slack_s = SHARE * self._objective_s - oldest_age_s - self._execution_s
        return max(0.0, min(device_s, slack_s))
