"""tracks.csv: every confirmed track of every label, from its first sighting on."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.replay.output_file import LinesFile
from pipeline.types import FrameRef, Track, TrackState

COLUMNS = ("frame", "time_s", "time_utc", "id", "label", "x", "y", "w", "h", "score", "state")
MAX_TENTATIVE_ROWS = 20_000  # kept of a track that is not confirmed yet; of a longer one, the latest


class TrackTableWriter(LinesFile):
    """Writes a row for each track of each frame; those of a tentative track when it is confirmed.

    So the rows of one track are in the order of frames, those of different tracks may not be.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._tentative: dict[int, list[bytes]] = {}
        self.add(",".join(COLUMNS).encode())

    def write(self, ref: FrameRef, time_utc: str | None, tracks: Iterable[Track]) -> None:
        """Write a frame's tracks.

        Args:
            ref: of the frame.
            time_utc: its wall-clock time, ISO 8601; None: unknown.
            tracks: all tracks of the frame, lost ones too.
        """
        for track in sorted(tracks, key=lambda track: track.id):
            if track.state is TrackState.LOST:
                self._tentative.pop(track.id, None)
                continue
            row = _row(ref, time_utc, track)
            if track.state is TrackState.TENTATIVE:
                rows = self._tentative.setdefault(track.id, [])
                rows.append(row)
                del rows[:-MAX_TENTATIVE_ROWS]
                continue
            for earlier in self._tentative.pop(track.id, ()):
                self.add(earlier)
            self.add(row)


def _row(ref: FrameRef, time_utc: str | None, track: Track) -> bytes:
    left, top, right, bottom = track.xyxy
    box = ",".join(f"{round(value, 2) + 0.0:.2f}" for value in (left, top, right - left, bottom - top))
    when = f"{ref.seq + 1},{ref.pts_s:.3f},{time_utc or ''}"
    return f"{when},{track.id},{track.label},{box},{track.score:.4f},{track.state.value}".encode()
