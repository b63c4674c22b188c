"""An open video container that can be closed while another thread reads it, and the packets that it passes on."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.capture.decoding import VideoPacket
from pipeline.capture.packet_tap import PacketTap
from pipeline.capture.source import DecodedFrame, PacketSink
from pipeline.capture.streams import choose, describe
from pipeline.errors import ImageError, SourceError
from pipeline.imaging.frame_size import FFMPEG_LIMIT, require_frame_size


class OpenVideo:
    """A container that is read in steps and never closed during one, in which FFmpeg would crash.

    `on_packet` is called with every packet from the first keyframe on, in the thread that reads.
    """

    on_packet: PacketSink | None = None

    def __init__(self, name: str, container: InputContainer, stream: VideoStream) -> None:
        """Raise SourceError if the declared frame size of `name` exceeds the limit."""
        codec = stream.codec_context
        try:
            if codec.width or codec.height:  # otherwise the size is known after decoding only
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
        self._tap = PacketTap(stream)
        self._busy = threading.RLock()
        self._closing = threading.Event()
        self._closed = False

    @property
    def codec(self) -> str:
        """Return FFmpeg's name of the codec."""
        return str(self._stream.codec_context.codec.canonical_name)

    def _pass_on(self, packet: VideoPacket) -> None:
        """Pass a packet on, once the decoder has seen it and knows the frame size."""
        coded = None if self.on_packet is None else self._tap.coded(packet)
        if self.on_packet is not None and coded is not None:
            self.on_packet(coded)

    def _steps(self, step: Callable[[], list[DecodedFrame] | None]) -> Iterator[DecodedFrame]:
        """Yield the frames of each step, until one returns None or the container is closed."""
        while True:
            with self._busy:
                if self._closing.is_set():
                    return
                try:
                    batch = step()
                except SourceError:
                    if self._closing.is_set():  # the reader has stopped
                        return
                    raise
            if batch is None:
                return
            yield from batch

    def close(self) -> None:
        """Close the container after the current step, from any thread."""
        self._closing.set()
        with self._busy:
            if self._closed:
                return
            self._closed = True
            # Stops the decoder's threads: one that logs while the container is freed under the interpreter's lock would
            # deadlock.
            self._stream.codec_context.flush_buffers()
            self._container.close()


def choose_stream(container: InputContainer, index: int | None) -> VideoStream:
    """Return the stream that `choose` chooses; otherwise close the container and raise ValueError."""
    try:
        stream = choose(container.streams.video, index)
        if stream is None:
            raise ValueError("contains no video")
    except ValueError:
        container.close()
        raise
    return stream


def open_container(place: str, options: dict[str, str] | None = None, **others: Any) -> InputContainer:
    """Open a container whose frames are limited in size, also while its streams are probed.

    Raise FFmpegError, whose text and `filename` contain the whole address: show only its `strerror`.
    """
    container: InputContainer = av.open(place, options=(options or {}) | FFMPEG_LIMIT, **others)
    return container
