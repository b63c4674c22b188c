"""The sockets between the workers.

Socket files are relative to the run folder, the workers' working directory: the length of a socket's path is limited
to about a hundred bytes, that of a run folder is not.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoints:
    """Bound by the segmentation worker, the track worker (two), the supervisor (two) and each capture worker."""

    segmentation: str = "ipc://segmentation.sock"  # DEALER/ROUTER: frames and credit
    results: str = "ipc://results.sock"  # PUSH/PULL: detections, camera states
    live: str = "ipc://live.sock"  # PUB/SUB: previews and tracks for the console
    heartbeat: str = "ipc://heartbeat.sock"  # PUSH/PULL: heartbeats with metrics
    reload: str = "ipc://reload.sock"  # REQ/REP: `dasnet reload`

    @staticmethod
    def clips(camera: str) -> str:
        """Return the socket of a camera's capture worker: PUSH/PULL, requests for clips."""
        return f"ipc://clips-{camera}.sock"

    @staticmethod
    def video(camera: str) -> str:
        """Return the socket of a camera's capture worker: DEALER/ROUTER, its own video for the console."""
        return f"ipc://video-{camera}.sock"
