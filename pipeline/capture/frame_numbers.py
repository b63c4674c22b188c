"""Numbers and time stamps of a recording's frames, from its packets: undecodable frames keep their numbers.

In: the packets in decoding order, and the decoder's frames.  Out: for each decoded frame its number, its time stamp,
and the time stamps of the lost frames before it.  Pure; time stamps are ticks of the stream's time base.
"""

from bisect import insort
from collections import deque
from typing import NamedTuple

MAX_WAITING = 256  # packets whose frames may still come
Stamp = int | None


class Numbered(NamedTuple):
    """A decoded frame's 0-based number, its time stamp, and those of the lost frames just before it."""

    number: int
    stamp: Stamp
    lost: list[Stamp]
    clock_reset: bool = False  # the stream's clock was set back since the decoded frame before


class FrameNumbers:
    """Numbers frames by presentation time stamps where the packets have them, otherwise in the decoder's order.

    Args:
        guessed: the presentation time stamps are FFmpeg's guesses (AVI with B-frames).  Frames in presentation order
            then have the packets' decoding time stamps, in order.
        starts_anywhere: the stream may start between keyframes; frames before its first keyframe are then not lost.
    """

    def __init__(self, *, guessed: bool = False, starts_anywhere: bool = False) -> None:
        self._guessed, self._starts_anywhere = guessed, starts_anywhere
        self._stamped = True  # every packet so far had a time stamp
        self._waiting: list[tuple[int, int]] = []  # sorted: clock epoch, time stamp
        self._before: list[tuple[int, int]] = []  # the same before the first keyframe
        self._late: deque[Stamp] = deque(maxlen=MAX_WAITING)  # time stamps of lost frames
        self._epoch = 0  # how often the stream's clock was set back
        self._shown_epoch = 0  # the same, as of the newest decoded frame
        self._last_dts: Stamp = None
        self._first_keyframe: tuple[int, int] | None = None
        self._failures = 0  # of the decoder, not yet attributed to packets
        self._forgotten = 0  # packets that waited too long
        self.count = 0  # frames so far, lost ones included
        self.lost = 0

    def sent(self, pts: Stamp, dts: Stamp, *, keyframe: bool) -> None:
        """Register a packet with a frame, before it is decoded."""
        self._guessed = self._guessed or (pts is None and dts is not None)
        stamp = dts if self._guessed else pts
        self._stamped = self._stamped and stamp is not None
        if not self._stamped or stamp is None:
            self._waiting.clear()
            return
        if dts is not None:
            self._epoch += keyframe and self._last_dts is not None and dts < self._last_dts
            self._last_dts = dts
        key = (self._epoch, stamp)
        if keyframe and self._first_keyframe is None:
            self._first_keyframe = key
        is_before = not self._guessed and (self._first_keyframe is None or key < self._first_keyframe)
        waiting = self._before if is_before else self._waiting
        insort(waiting, key)
        if len(waiting) > MAX_WAITING:
            del waiting[0]
            self._forgotten += not is_before

    def failed(self) -> None:
        """Register that the decoder failed to decode one of the packets."""
        self._failures += 1
        if (
            not self.count and not self._starts_anywhere
        ):  # perhaps the first keyframe, which then was not recognised as one
            self._waiting, self._before = sorted(self._before + self._waiting), []
            self._first_keyframe = self._waiting[0] if self._waiting else None

    def shown(self, stamp: Stamp, *, interlaced: bool = False) -> Numbered | None:
        """Number the next frame in presentation order; return None if it comes too late, after later frames.

        Fields of an `interlaced` frame may have packets of their own, so that only a failure proves a loss.
        """
        lost: list[Stamp]
        epoch = self._shown_epoch
        index = next((index for index, (_, waiting) in enumerate(self._waiting) if waiting == stamp), None)
        if self._guessed:
            taken = self._take(self._failures + 1)
            lost, stamp = taken[:-1], taken[-1] if taken else None
        elif index is None:
            if stamp is not None and stamp in self._late:
                return None
            lost = [None for _ in range(self._failures)]
        else:
            lost = [*[None] * self._forgotten, *self._take(index + 1)[:-1]]
            self._forgotten = 0
            if interlaced:
                lost = lost[len(lost) - min(self._failures, len(lost)) :]
        self._failures = max(0, self._failures - len(lost))
        self._late += lost
        self._before.clear()
        self._lose(len(lost))
        self.count += 1
        return Numbered(self.count - 1, stamp, lost, self._shown_epoch > epoch)

    def skip(self) -> None:
        """Count a frame that is not decoded."""
        self.count += 1

    def restart(self) -> None:
        """Count frames that the decoder has not returned before it is flushed."""
        self.count += len(self._waiting)
        self._waiting.clear()
        self._failures = self._forgotten = 0

    def finish(self, *, interlaced: bool = False) -> None:
        """Count what is missing after the last frame."""
        certain = self._stamped and not self._guessed and not interlaced
        self._lose(len(self._waiting) + self._forgotten if certain else self._failures)
        self._waiting.clear()
        self._failures = self._forgotten = 0

    def _lose(self, frames: int) -> None:
        self.count += frames
        self.lost += frames

    def _take(self, count: int) -> list[Stamp]:
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        self._shown_epoch = taken[-1][0] if taken else self._shown_epoch
        return [stamp for _, stamp in taken]
