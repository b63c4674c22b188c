"""FFmpeg's packets in, pictures out; and a container that can be closed while another thread reads it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.container import InputContainer
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.capture.frame_numbers import FrameNumbers, Stamp
from pipeline.capture.source import DecodedFrame, Receipt
from pipeline.capture.streams import choose, describe, upright
from pipeline.capture.timestamps import TimestampMapper
from pipeline.errors import ImageError, SourceError
from pipeline.imaging.agc import AutomaticGainControl
from pipeline.imaging.frame_size import FFMPEG_LIMIT, require_frame_size
from pipeline.imaging.image_header import jpeg_sizes

ASSUMED_FPS = 25.0  # where a source tells neither times nor rate: FFmpeg's own assumption
MAX_FPS = 1000.0  # what is above is a clock rate taken for a frame rate
MAX_RECEIPTS = 256  # of packets whose pictures may still come
REPEAT_BYTES = 16  # a packet of MPEG-4 with less says that nothing changed
VP8_SHOWN = 0x10  # in a packet's first byte
CUT_ANYWHERE = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v")  # formats without an index

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # which has no parameters when it runs


def quiet_log() -> None:
    """Let FFmpeg's warnings reach the logger `libav` and go no further.

    They are the only report of lost packets: see LossLog.  They must not be printed as they are: they can hold an
    address with its password.
    """
    logger = logging.getLogger("libav")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)


class LossLog(logging.Handler):
    """Hears FFmpeg say, to the thread that made this, that data was lost or that a picture is not what was sent.

    The pictures do not tell: FFmpeg conceals what is missing and seldom marks it.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()  # others in this process read other streams
        self._heard = False
        logging.getLogger("libav").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            lost = "missed" in (text := record.getMessage()) or "bad cseq" in text
            self._heard = self._heard or lost or record.levelno >= logging.ERROR

    def take(self) -> bool:
        """Whether anything was heard since this was last asked."""
        heard, self._heard = self._heard, False
        return heard

    def close(self) -> None:
        logging.getLogger("libav").removeHandler(self)
        super().close()


def nominal_fps(stream: VideoStream) -> float:
    """0.0 where the stream does not tell."""
    for rate in (stream.guessed_rate, stream.average_rate):
        if rate and 0 < rate <= MAX_FPS:
            return float(rate)
    return 0.0


def pixels(frame: VideoFrame) -> NDArray[Any]:
    """HxWx3 uint8 RGB; HxW uint8 of a grey frame, or uint16 if it has more than 8 bits.  Upright."""
    if not frame.format.name.startswith("gray"):
        layout = "rgb24"
    else:
        layout = "gray" if frame.format.components[0].bits == 8 else "gray16le"
    return upright(np.ascontiguousarray(frame.reformat(format=layout, threads=1).to_ndarray()), frame)


class Decoder:
    """CreditScheduler the packets of one stream into pictures, and gives each the receipt of its own packet.

    From one with data missing to the next whole keyframe, pictures are not intact: each is made from those before.
    `by_count`: presentation times are picture number / fps, whatever the stream says.
    `losses`: of a camera, whose stream is decoded in this thread: where decoding errors are heard.
    """

    def __init__(self, stream: VideoStream, fps: float, by_count: bool = False, losses: LossLog | None = None) -> None:
        self._stream = stream
        self._clock = TimestampMapper(1 / (fps or ASSUMED_FPS), by_count)
        self._losses = losses
        # AVI has no presentation times, and FFmpeg's guesses are wrong where frames are reordered.
        container, reordered = stream.container.format.name, bool(stream.codec_context.has_b_frames)
        self._numbers = FrameNumbers(guessed=reordered and container == "avi", cut=container in CUT_ANYWHERE)
        self._interlaced = False
        self._gain = AutomaticGainControl()
        self._intact = True
        self._receipts: dict[int | None, Receipt | None] = {}
        self._newest: Receipt | None = None
        self.decoded = 0
        self.bad_packets = 0
        self.damaged = 0  # pictures decoded with data missing
        self.too_large = ""  # what a JPEG declared that was not decoded for it

    @property
    def count(self) -> int:
        """Frames of a recording so far, those lost or left out included."""
        return self._numbers.count

    @property
    def lost(self) -> int:
        """Frames that could not be decoded; of a camera: packets."""
        return self._numbers.lost if self._losses is None else self.bad_packets

    @property
    def next_s(self) -> float:
        """When the picture after the newest one is expected."""
        return self._clock.next_s

    def pictures(self, packet: VideoPacket | None, receipt: Receipt | None) -> list[DecodedFrame]:
        """The pictures that this packet completes, but for those without a receipt.  No packet: all that remain."""
        if packet is not None:
            self._expect(packet, receipt)
        started_ns = time.perf_counter_ns()
        try:
            frames = self._stream.decode(packet)
        except EndOfFile:
            return []
        except FFmpegError:
            self.bad_packets += 1
            self._numbers.failed()
            self._intact = False
            self.too_large = self.too_large or self._size_fault(packet)
            return []
        concealed = self._losses is not None and self._losses.take()
        self._intact = self._intact and not concealed
        decode_ns = (time.perf_counter_ns() - started_ns) // max(1, len(frames))
        made = (self._picture(frame, decode_ns, concealed) for frame in frames)
        return [picture for picture in made if picture is not None]

    def restart(self) -> None:
        """Forget what was decoded: a gap follows, then a keyframe."""
        self._stream.codec_context.flush_buffers()
        self._receipts.clear()
        self._numbers.restart()

    def leave_out(self) -> None:
        """A picture passes that is not decoded."""
        self._numbers.passed()
        self._clock.leave_out()

    def _size_fault(self, packet: VideoPacket | None) -> str:
        if packet is None or self._stream.codec_context.name != "mjpeg":
            return ""
        try:
            for size_px in jpeg_sizes(bytes(packet)):
                require_frame_size(*size_px)
        except ImageError as error:
            return str(error)
        return ""

    def finish(self) -> None:
        """The last packet was decoded: frames that have not come are lost, which a decoder of several threads hides."""
        lost = self.lost
        self._numbers.finish(interlaced=self._interlaced)
        self.bad_packets += self.lost > lost

    def _expect(self, packet: VideoPacket, receipt: Receipt | None) -> None:
        if self._losses is None and not self._is_hidden(packet):
            self._numbers.sent(packet.pts, packet.dts, keyframe=packet.is_keyframe)
        self._receipts[packet.pts] = self._newest = receipt
        if len(self._receipts) > MAX_RECEIPTS:  # damaged packets never become pictures
            del self._receipts[next(iter(self._receipts))]

    def _is_hidden(self, packet: VideoPacket) -> bool:
        """Whether it shows no frame of its own, which is no loss: the frame before it stays."""
        codec = self._stream.codec_context.name
        if codec == "vp8" and packet.size >= 3:  # RFC 6386, section 9.1
            tag = int.from_bytes(memoryview(packet)[:3], "little")
            return not tag & VP8_SHOWN and 0 < tag >> 5 <= packet.size
        return packet.is_discard or (codec == "mpeg4" and packet.size < REPEAT_BYTES)

    def _picture(self, frame: VideoFrame, decode_ns: int, concealed: bool) -> DecodedFrame | None:
        self.decoded += 1
        self.damaged += frame.is_corrupt
        receipt = self._receipts.pop(frame.pts, self._newest)
        if self._losses is not None and receipt is not None:
            number = self.decoded - 1
            stamp = frame.dts if frame.pts is None else frame.pts
            pts_s = self._clock.live(self._seconds(stamp), receipt.mono_ns / 1e9)
        else:
            numbered = self._numbered(frame)
            if numbered is None:
                return None
            number, pts_s = numbered
        if concealed or frame.is_corrupt or (receipt is not None and not receipt.complete):
            self._intact = False
        elif frame.key_frame:
            self._intact = True
        if receipt is None:
            return None
        started_ns = time.perf_counter_ns()
        image = self._gain(pixels(frame), pts_s)
        decode_ns += time.perf_counter_ns() - started_ns
        return DecodedFrame(
            image, number, pts_s, receipt.mono_ns, receipt.utc_ns, receipt.ntp_ns, decode_ns, self._intact
        )

    def _numbered(self, frame: VideoFrame) -> tuple[int, float] | None:
        """Its number and time, after those of the frames that were lost before it; None: it comes too late."""
        self._interlaced = self._interlaced or frame.interlaced_frame
        numbered = self._numbers.shown(frame.pts, interlaced=self._interlaced)
        if numbered is None:
            return None
        if numbered.set_back:
            self._clock.set_back()
        for stamp in numbered.lost:
            self._clock.recorded(self._seconds(stamp))
        return numbered.number, self._clock.recorded(self._seconds(numbered.stamp))

    def _seconds(self, stamp: Stamp) -> Fraction | None:
        unit_s = self._stream.time_base
        return None if stamp is None or unit_s is None else stamp * unit_s


class OpenVideo:
    """A container that is read in steps.  It is never closed during a step: FFmpeg would crash."""

    def __init__(self, name: str, container: InputContainer, stream: VideoStream) -> None:
        """Raise SourceError where `name`'s frames are declared larger than is decoded."""
        codec = stream.codec_context
        try:
            if codec.width or codec.height:  # otherwise it is not declared, and the decoder alone can tell
                require_frame_size(codec.width, codec.height)
        except ImageError as error:
            container.close()
            raise SourceError(f"{name}: {error}") from None
        codec.options = codec.options | FFMPEG_LIMIT
        self.stream = describe(stream)
        self.other_streams = [describe(other) for other in container.streams.video if other.index != stream.index]
        self._container = container
        self._stream = stream
        self._demuxed: Iterator[VideoPacket] = container.demux(stream)
        self._busy = threading.RLock()
        self._closing = threading.Event()
        self._closed = False

    @property
    def codec(self) -> str:
        return str(self._stream.codec_context.codec.canonical_name)

    def _steps(self, step: Callable[[], list[DecodedFrame] | None]) -> Iterator[DecodedFrame]:
        """What the steps give, until one gives None or the container is closed."""
        while True:
            with self._busy:
                if self._closing.is_set():
                    return
                try:
                    batch = step()
                except SourceError:
                    if self._closing.is_set():  # nobody waits for it any more
                        return
                    raise
            if batch is None:
                return
            yield from batch

    def close(self) -> None:
        self._closing.set()
        with self._busy:
            if self._closed:
                return
            self._closed = True
            # Puts the decoder's threads to rest.  One that logs while the interpreter's lock is held to free it would
            # wait for that lock for ever.
            self._stream.codec_context.flush_buffers()
            self._container.close()


def choose_stream(container: InputContainer, index: int | None) -> VideoStream:
    """As `choose`.  Closes the container and raises ValueError where there is nothing to choose."""
    try:
        stream = choose(container.streams.video, index)
        if stream is None:
            raise ValueError("holds no video")
    except ValueError:
        container.close()
        raise
    return stream


def open_container(place: str, options: dict[str, str] | None = None, **others: Any) -> InputContainer:
    """Raises FFmpegError, whose text and `filename` hold the whole address: show its `strerror` only.

    What is decoded in order to learn what the streams are is limited in size too.
    """
    container: InputContainer = av.open(place, options=(options or {}) | FFMPEG_LIMIT, **others)
    return container
