"""Numbers and time stamps of a recording's frames, by its packets: a frame that cannot be decoded keeps its own.

In: the packets in decoding order, and what the decoder makes of them.  Out: for each decoded frame its number, its
stamp, and the stamps of the frames before it that were lost.  Pure; stamps are ticks of the stream's time base.
"""

from bisect import insort
from collections import deque
from typing import NamedTuple

MAX_WAITING = 256  # packets whose frames may still come
Stamp = int | None


class Numbered(NamedTuple):
    number: int  # 0-based
    stamp: Stamp
    lost: list[Stamp]  # of the frames just before it that cannot be decoded
    set_back: bool = False  # the stream's clock, since the frame before these


class FrameNumbers:
    """By presentation time stamps where the packets have them, else by the order in which frames come.

    `guessed`: the presentation time stamps are FFmpeg's guesses (AVI with B-frames).  Frames in presentation order then
    have the packets' decoding time stamps, in order.
    `cut`: the stream may begin anywhere.  What is shown before its first keyframe is then no loss.
    """

    def __init__(self, *, guessed: bool = False, cut: bool = False) -> None:
        self._guessed, self._cut = guessed, cut
        self._stamped = True  # every packet so far had a stamp
        self._waiting: list[tuple[int, int]] = []  # sorted: clock, stamp
        self._before: list[tuple[int, int]] = []  # the same before the first keyframe
        self._late: deque[Stamp] = deque(maxlen=MAX_WAITING)  # stamps of lost frames
        self._clock = 0  # how often the stream's clock was set back
        self._taken_clock = 0  # the same, as of the frame that was shown last
        self._last_dts: Stamp = None
        self._first: tuple[int, int] | None = None  # keyframe
        self._failures = 0  # reported by the decoder for packets not yet known
        self._forgotten = 0  # packets that waited too long
        self.count = 0  # frames so far, lost ones included
        self.lost = 0

    def sent(self, pts: Stamp, dts: Stamp, *, keyframe: bool) -> None:
        """A packet with a frame goes to the decoder."""
        self._guessed = self._guessed or (pts is None and dts is not None)
        stamp = dts if self._guessed else pts
        self._stamped = self._stamped and stamp is not None
        if not self._stamped or stamp is None:
            self._waiting.clear()
            return
        if dts is not None:
            self._clock += keyframe and self._last_dts is not None and dts < self._last_dts
            self._last_dts = dts
        key = (self._clock, stamp)
        if keyframe and self._first is None:
            self._first = key
        is_before = not self._guessed and (self._first is None or key < self._first)
        waiting = self._before if is_before else self._waiting
        insort(waiting, key)
        if len(waiting) > MAX_WAITING:
            del waiting[0]
            self._forgotten += not is_before

    def failed(self) -> None:
        """The decoder could not decode one of the packets."""
        self._failures += 1
        if not self.count and not self._cut:  # perhaps the first keyframe, and hence not known as one
            self._waiting, self._before = sorted(self._before + self._waiting), []
            self._first = self._waiting[0] if self._waiting else None

    def shown(self, stamp: Stamp, *, interlaced: bool = False) -> Numbered | None:
        """The next frame in presentation order.  None: it comes too late, after others that are shown after it.

        `interlaced`: its fields may have come in packets of their own, so that only a failure says that one was lost.
        """
        lost: list[Stamp]
        clock = self._taken_clock
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
        return Numbered(self.count - 1, stamp, lost, self._taken_clock > clock)

    def passed(self) -> None:
        """A frame is left out before it is decoded."""
        self.count += 1

    def restart(self) -> None:
        """The decoder forgets what it has not shown yet."""
        self.count += len(self._waiting)
        self._waiting.clear()
        self._failures = self._forgotten = 0

    def finish(self, *, interlaced: bool = False) -> None:
        """No frame comes any more."""
        certain = self._stamped and not self._guessed and not interlaced
        self._lose(len(self._waiting) + self._forgotten if certain else self._failures)
        self._waiting.clear()
        self._failures = self._forgotten = 0

    def _lose(self, frames: int) -> None:
        self.count += frames
        self.lost += frames

    def _take(self, count: int) -> list[Stamp]:
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        self._taken_clock = taken[-1][0] if taken else self._taken_clock
        return [stamp for _, stamp in taken]
