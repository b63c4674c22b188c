"""FFmpeg's packets in, decoded frames out."""

import logging
import threading
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.capture.frame_numbers import FrameNumbers, Stamp
from pipeline.capture.source import DecodedFrame, Receipt
from pipeline.capture.streams import upright
from pipeline.capture.timestamps import TimestampMapper
from pipeline.errors import ImageError
from pipeline.imaging.agc import AutomaticGainControl
from pipeline.imaging.frame_size import require_frame_size
from pipeline.imaging.image_header import jpeg_sizes

ASSUMED_FPS = 25.0  # for a source with neither time stamps nor a frame rate, as FFmpeg assumes
MAX_FPS = 1000.0  # a higher value is a clock rate mistaken for a frame rate
MAX_RECEIPTS = 256  # of packets whose frames may still come
REPEAT_BYTES = 16  # a smaller MPEG-4 packet repeats the frame before it
VP8_SHOW_FRAME = 0x10  # in a packet's first byte
PLANAR_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")
NEUTRAL_CHROMA, MAX_CHROMA = 128, 2  # encoding changes the chroma of a grey image by a level or two
UNINDEXED_FORMATS = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v")  # such a stream may start anywhere

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # not generic at run time


def quiet_log() -> None:
    """Let FFmpeg's warnings reach the logger `libav` and go no further.

    They are the only report of lost packets: see LossLog.  They must not be printed: they can contain an address with
    its password.
    """
    logger = logging.getLogger("libav")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)


class LossLog(logging.Handler):
    """Records that FFmpeg logged, in the thread that created this, that data was lost or a frame damaged.

    The frames themselves seldom show it: FFmpeg conceals missing data and rarely marks it.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()  # other threads read other streams
        self._found = False
        logging.getLogger("libav").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Note a message about lost data."""
        if record.thread == self._thread:
            lost = "missed" in (text := record.getMessage()) or "bad cseq" in text
            self._found = self._found or lost or record.levelno >= logging.ERROR

    def take(self) -> bool:
        """Return whether data was lost since the last call."""
        found, self._found = self._found, False
        return found

    def close(self) -> None:
        """Stop listening."""
        logging.getLogger("libav").removeHandler(self)
        super().close()


def nominal_fps(stream: VideoStream) -> float:
    """Return the stream's frame rate; 0.0 if it is not stated."""
    for rate in (stream.guessed_rate, stream.average_rate):
        if rate and 0 < rate <= MAX_FPS:
            return float(rate)
    return 0.0


def pixels(frame: VideoFrame) -> NDArray[Any]:
    """Return the upright image: HxWx3 uint8 RGB, or HxW of a frame without colours, uint8 or (above 8 bits) uint16."""
    if not frame.format.name.startswith("gray"):
        layout = "gray" if _is_colourless(frame) else "rgb24"
    else:
        layout = "gray" if frame.format.components[0].bits == 8 else "gray16le"
    return upright(np.ascontiguousarray(frame.reformat(format=layout, threads=1).to_ndarray()), frame)


def _is_colourless(frame: VideoFrame) -> bool:
    """Return whether it is a grey image encoded with colours, as thermal cameras send: a third of the data suffices."""
    if frame.format.name not in PLANAR_FORMATS:
        return False
    for plane in frame.planes[1:]:
        chroma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:, : plane.width]
        if chroma.max() > NEUTRAL_CHROMA + MAX_CHROMA or chroma.min() < NEUTRAL_CHROMA - MAX_CHROMA:
            return False
    return True


class Decoder:
    """Decodes the packets of one stream, and gives each frame the receipt of its own packet.

    From a frame with missing data to the next complete keyframe, frames are not intact: they are predicted from it.

    Args:
        stream: the stream, whose packets are passed to `frames`.
        fps: nominal frame rate; 0.0 if unknown.
        by_count: presentation times are frame number / fps, whatever the stream says.
        losses: decoding errors of a live camera, whose stream is decoded in this thread; None for a recording.
    """

    def __init__(self, stream: VideoStream, fps: float, by_count: bool = False, losses: LossLog | None = None) -> None:
        self._stream = stream
        self._timestamps = TimestampMapper(1 / (fps or ASSUMED_FPS), by_count)
        self._losses = losses
        # AVI has no presentation times, and FFmpeg guesses them wrongly where frames are reordered.
        container, reordered = stream.container.format.name, bool(stream.codec_context.has_b_frames)
        self._numbers = FrameNumbers(
            guessed=reordered and container == "avi", starts_anywhere=container in UNINDEXED_FORMATS
        )
        self._interlaced = False
        self._agc = AutomaticGainControl()
        self._intact = True
        self._receipts: dict[int | None, Receipt | None] = {}
        self._newest: Receipt | None = None
        self.decoded = 0
        self.bad_packets = 0
        self.damaged = 0  # frames decoded with missing data
        self.too_large = ""  # the frame size for which a JPEG was not decoded

    @property
    def count(self) -> int:
        """Return the frames of a recording so far, lost and skipped ones included."""
        return self._numbers.count

    @property
    def lost(self) -> int:
        """Return the number of frames, or of a camera packets, that could not be decoded."""
        return self._numbers.lost if self._losses is None else self.bad_packets

    @property
    def next_s(self) -> float:
        """Return the expected time of the frame after the newest one."""
        return self._timestamps.next_s

    def frames(self, packet: VideoPacket | None, receipt: Receipt | None) -> list[DecodedFrame]:
        """Return the frames that this packet completes, except those without a receipt; without a packet, the rest."""
        if packet is not None:
            self._register(packet, receipt)
        started_ns = time.perf_counter_ns()
        try:
            decoded = self._stream.decode(packet)
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
        decode_ns = (time.perf_counter_ns() - started_ns) // max(1, len(decoded))
        frames = (self._frame(frame, decode_ns, concealed) for frame in decoded)
        return [frame for frame in frames if frame is not None]

    def restart(self) -> None:
        """Flush the decoder before a keyframe that follows a gap."""
        self._stream.codec_context.flush_buffers()
        self._receipts.clear()
        self._numbers.restart()

    def skip(self) -> None:
        """Count a frame that is not decoded."""
        self._numbers.skip()
        self._timestamps.skip()

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
        """Count frames that are missing after the last packet as lost: a decoder with several threads hides them."""
        lost = self.lost
        self._numbers.finish(interlaced=self._interlaced)
        self.bad_packets += self.lost > lost

    def _register(self, packet: VideoPacket, receipt: Receipt | None) -> None:
        if self._losses is None and not self._is_hidden(packet):
            self._numbers.sent(packet.pts, packet.dts, keyframe=packet.is_keyframe)
        self._receipts[packet.pts] = self._newest = receipt
        if len(self._receipts) > MAX_RECEIPTS:  # damaged packets never become frames
            del self._receipts[next(iter(self._receipts))]

    def _is_hidden(self, packet: VideoPacket) -> bool:
        """Return whether a packet shows no frame of its own: the frame before it is repeated, and none is lost."""
        codec = self._stream.codec_context.name
        if codec == "vp8" and packet.size >= 3:  # RFC 6386, section 9.1
            tag = int.from_bytes(memoryview(packet)[:3], "little")
            return not tag & VP8_SHOW_FRAME and 0 < tag >> 5 <= packet.size
        return packet.is_discard or (codec == "mpeg4" and packet.size < REPEAT_BYTES)

    def _frame(self, frame: VideoFrame, decode_ns: int, concealed: bool) -> DecodedFrame | None:
        self.decoded += 1
        self.damaged += frame.is_corrupt
        self._interlaced = self._interlaced or frame.interlaced_frame
        receipt = self._receipts.pop(frame.pts, self._newest)
        self._count_swallowed(frame)
        if self._losses is not None and receipt is not None:
            number = self.decoded - 1
            stamp = frame.dts if frame.pts is None else frame.pts
            pts_s = self._timestamps.live_time(self._seconds(stamp), receipt.mono_ns / 1e9)
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
        image = self._agc(pixels(frame), pts_s)
        decode_ns += time.perf_counter_ns() - started_ns
        stamp_s = self._seconds(frame.dts if frame.pts is None else frame.pts)
        return DecodedFrame(
            image,
            number,
            pts_s,
            receipt.mono_ns,
            receipt.utc_ns,
            receipt.ntp_ns,
            decode_ns,
            self._intact,
            None if stamp_s is None else float(stamp_s),
        )

    def _count_swallowed(self, frame: VideoFrame) -> None:
        """Count a camera's packets that gave no frame, as after a lost keyframe, without an error of the decoder."""
        if self._losses is None or frame.pts is None:
            return
        swallowed = [pts for pts in self._receipts if pts is not None and pts < frame.pts]
        receipts = [self._receipts.pop(pts) for pts in swallowed]
        self._intact = self._intact and all(receipt is None or receipt.complete for receipt in receipts)
        if not self._interlaced:  # whose frames may take two packets
            self.bad_packets += len(receipts)

    def _numbered(self, frame: VideoFrame) -> tuple[int, float] | None:
        """Return its number and time after those of frames lost before it; None if it comes too late."""
        numbered = self._numbers.shown(frame.pts, interlaced=self._interlaced)
        if numbered is None:
            return None
        if numbered.clock_reset:
            self._timestamps.reset()
        for stamp in numbered.lost:
            self._timestamps.recorded_time(self._seconds(stamp))
        return numbered.number, self._timestamps.recorded_time(self._seconds(numbered.stamp))

    def _seconds(self, stamp: Stamp) -> Fraction | None:
        unit_s = self._stream.time_base
        return None if stamp is None or unit_s is None else stamp * unit_s
