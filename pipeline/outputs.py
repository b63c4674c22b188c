"""The files of one replayed input, in its folder DIR/<stem>/.

In: what the stages make of each frame.  Out: tracks.txt (MOTChallenge), detections.jsonl (exact: tracking again from it
gives the same bytes), events.jsonl, annotated.mp4, summary.json.  Each is written as `<name>.partial` and moved to its
place when closed, also when an error closes it: what was read of a broken input is kept, as valid files, and
summary.json says that it is not all.  A `.partial` left behind means that the process was killed, or the disk full.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self, TypeVar

import av
import cv2
import msgspec
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.errors import DasnetError, SourceError
from pipeline.types import Detections, Event, FrameRef, Mask, Track, TrackState

VERSION = 1  # of detections.jsonl
LONGEST_LINE_BYTES = 1 << 26  # what is longer is no line of ours
VIDEO_CLOCK = Fraction(1, 90_000)
VIDEO_OPTIONS = {"crf": "20", "preset": "veryfast", "threads": "1"}  # one thread: the same bytes on every machine
RESERVED_NAMES = ("report.html",)  # lies beside the folders
_JSON = msgspec.json.Encoder()
_T = TypeVar("_T")


class Percentiles(msgspec.Struct, frozen=True):
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        """Of at least one sample; to a thousandth."""
        p50, p95, p99 = np.percentile(np.array(samples, float), (50, 95, 99)).round(3).tolist()
        return cls(p50, p95, p99)


class ModelSummary(msgspec.Struct, frozen=True):
    network: str
    sha256: str  # of the checkpoint
    classes: tuple[str, ...]


class TrackSummary(msgspec.Struct, frozen=True):
    """A track that was confirmed, or was labelled as a sure distractor.  Frames are 1-based, as in tracks.txt."""

    id: int
    label: str
    first_frame: int
    last_frame: int
    first_s: float
    last_s: float
    hits: int
    score: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """summary.json."""

    source: str
    frames: int  # searched
    tracks: int  # confirmed targets: the ids of tracks.txt
    alerts: int
    first_detection_s: float | None
    latency_ms: dict[str, Percentiles]  # by stage
    model: ModelSummary
    engine: str
    complete: bool  # the input was read to its end, or to the end asked for
    error: str | None = None
    start_s: float = 0.0  # presentation times of the first and the last frame searched
    end_s: float = 0.0
    fps: float | None = None
    size_px: tuple[int, int] | None = None  # width, height
    per_track: tuple[TrackSummary, ...] = ()


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of detections.jsonl."""

    version: int = VERSION
    source: str
    camera: str
    session: str
    width: int
    height: int
    fps: float | None
    frames: int | None  # in the source, where it says so
    classes: tuple[str, ...]
    checkpoint: str  # sha256
    engine: str
    threshold: float
    start: float | None = None  # as asked for; None: all of it
    end: float | None = None
    stride: int = 1


class _Version(msgspec.Struct):
    version: int


class _Ref(msgspec.Struct):
    """The rest of a FrameRef is in the header."""

    seq: int
    pts_s: float
    received_mono_ns: int
    received_utc_ns: int
    ntp_ns: int | None


class _Line(msgspec.Struct):
    """A frame in detections.jsonl.  A mask is [left, top, width, height, packed bits in base64], in mask pixels."""

    ref: _Ref
    size_px: tuple[int, int]
    xyxy: list[list[float]]
    score: list[float]
    class_scores: list[list[float]]
    area: list[float]
    centroid: list[list[float]]
    masks: list[Mask]
    mask_scale: tuple[float, float]
    camera_shift_px: tuple[float, float] | None


class _Lines:
    """A text file that takes its place when it is closed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = _partial(path).open("wb")

    def _add(self, line: bytes) -> None:
        self._file.write(line + b"\n")

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
            _partial(self._path).replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TracksWriter(_Lines):
    """MOTChallenge: frame (1-based), id, left, top, width, height, score, -1, -1, -1."""

    def write(self, ref: FrameRef, tracks: Iterable[Track]) -> None:
        """Of the tracks after this frame those that are confirmed targets, seen in it."""
        for track in sorted(tracks, key=lambda track: track.id):
            if track.state is TrackState.CONFIRMED and track.is_target:
                left, top, right, bottom = track.xyxy
                box = ",".join(f"{round(value, 2) + 0.0:.2f}" for value in (left, top, right - left, bottom - top))
                self._add(f"{ref.seq + 1},{track.id},{box},{track.score:.4f},-1,-1,-1".encode())


class EventsWriter(_Lines):
    def write(self, event: Event) -> None:
        self._add(_JSON.encode(event))


class DetectionsWriter(_Lines):
    """Every frame searched, also when nothing was found in it.  `read_detections` gives back the same, to the bit."""

    def __init__(self, path: Path, header: Header) -> None:
        super().__init__(path)
        self._header = header
        self._add(_JSON.encode(header))

    def write(self, detections: Detections) -> None:
        ref, header = detections.ref, self._header
        told = (ref.camera, ref.session, detections.classes)
        if told != (header.camera, header.session, header.classes):
            raise ValueError(
                f"frame {ref.seq} is of {told}; the header says {header.camera, header.session, header.classes}"
            )
        line = _Line(
            _Ref(ref.seq, ref.pts_s, ref.received_mono_ns, ref.received_utc_ns, ref.ntp_ns),
            detections.size_px,
            [_shortest(row) for row in detections.xyxy],
            _shortest(detections.score),
            [_shortest(row) for row in detections.class_scores],
            _shortest(detections.area_px),
            [_shortest(row) for row in detections.centroid],
            detections.masks,
            detections.mask_scale,
            detections.camera_shift_px,
        )
        self._add(_JSON.encode(line))


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """Numbers whose shortest decimal is the float32's own (0.93, not 0.9300000071525574), and that round to it."""
    if not np.isfinite(values).all():
        raise ValueError(f"not a number that can be stored: {values}")
    short = [float(str(value)) for value in values]
    return [a if np.float32(a) == b else float(b) for a, b in zip(short, values, strict=True)]


def read_detections(path: Path) -> tuple[Header, Iterator[Detections]]:
    """Raises DasnetError, which names file and line, at once or on the way, where the file is cut off or not ours."""
    try:
        with path.open("rb") as file:
            first = file.readline(LONGEST_LINE_BYTES)
    except OSError as error:
        raise SourceError(f"{path}: cannot be opened: {error.strerror}") from error
    version = _decode(path, 1, first, _Version).version
    if version != VERSION:
        raise DasnetError(f"{path}, line 1: version {version}; this dasnet reads version {VERSION}")
    header = _decode(path, 1, first, Header)
    return header, _read_frames(path, header)


def _read_frames(path: Path, header: Header) -> Iterator[Detections]:
    last_seq = -1
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE_BYTES), b""), start=1):
            if number == 1:
                continue
            read = _decode(path, number, line, _Line)
            try:
                if read.ref.seq <= last_seq:
                    raise ValueError(f"frame {read.ref.seq} comes after frame {last_seq}")
                yield _detections(read, header)
            except ValueError as error:
                raise DasnetError(f"{path}, line {number}: {error}") from error
            last_seq = read.ref.seq


def _decode(path: Path, number: int, line: bytes, kind: type[_T]) -> _T:
    try:
        if not line.endswith(b"\n"):
            raise msgspec.DecodeError("cut off before its end" if line else "the file is empty")
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DasnetError(f"{path}, line {number}: no detections.jsonl of dasnet, or damaged: {error}") from error


def _detections(line: _Line, header: Header) -> Detections:
    ref, count = line.ref, len(line.score)
    times = (ref.pts_s, ref.received_mono_ns, ref.received_utc_ns, ref.ntp_ns)
    if len(line.masks) not in (0, count):
        raise ValueError(f"{len(line.masks)} masks for {count} detections")
    if any(len(mask.bits) != (mask.width * mask.height + 7) // 8 for mask in line.masks):
        raise ValueError("the bits of a mask do not fit its width and height")
    return Detections(
        FrameRef(header.camera, header.session, ref.seq, *times),
        line.size_px,
        header.classes,
        _array("xyxy", line.xyxy, count, 4),
        _array("score", line.score, count),
        _array("class_scores", line.class_scores, count, len(header.classes)),
        _array("area", line.area, count),
        _array("centroid", line.centroid, count, 2),
        line.masks,
        line.mask_scale,
        line.camera_shift_px,
    )


def _array(name: str, values: list[float] | list[list[float]], *shape: int) -> NDArray[np.float32]:
    array = np.array(values, np.float32) if values else np.zeros((0, *shape[1:]), np.float32)
    if array.shape != shape:
        raise ValueError(f"{name} is of shape {array.shape}, not {shape}")
    return array


class VideoWriter:
    """annotated.mp4: H.264, each picture shown at its own time, counted from the first.  No picture, no file."""

    def __init__(self, path: Path, fps: float | Fraction | None) -> None:
        """fps: the source's, for the length of the last picture and the encoder's rate; None: unknown."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._rate = Fraction(fps or 25).limit_denominator(1001)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._first_s, self._last_pts = 0.0, -1

    def write(self, picture: NDArray[np.uint8], pts_s: float) -> None:
        """picture: HxWx3 RGB.  The first one's size is the video's: others are fitted to it."""
        if self._container is None or self._stream is None:
            self._first_s = pts_s
            self._container, self._stream = self._open(picture.shape[1], picture.shape[0])
        width, height = self._stream.width, self._stream.height
        down, across = height - picture.shape[0], width - picture.shape[1]
        if (down, across) in ((0, 0), (0, 1), (1, 0), (1, 1)):  # yuv420p needs even sizes
            picture = np.pad(picture, ((0, down), (0, across), (0, 0)), mode="edge")
        else:
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        self._last_pts = max(round((pts_s - self._first_s) / VIDEO_CLOCK), self._last_pts + 1)
        frame.pts, frame.time_base = self._last_pts, VIDEO_CLOCK
        frame.duration = round(1 / (self._rate * VIDEO_CLOCK))
        self._container.mux(self._stream.encode(frame))

    def _open(self, width_px: int, height_px: int) -> tuple[OutputContainer, VideoStream]:
        url = f"file:{_partial(self._path).resolve()}"  # else FFmpeg takes a colon in a name for a protocol
        container = av.open(url, "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"})
        stream = container.add_stream("libx264", rate=self._rate, options=VIDEO_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width_px + width_px % 2, height_px + height_px % 2, "yuv420p"
        context = stream.codec_context
        context.time_base = VIDEO_CLOCK
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return container, stream

    def close(self) -> None:
        container, self._container = self._container, None
        if container is None or self._stream is None:
            if self._last_pts < 0:
                self._path.unlink(missing_ok=True)  # of an earlier replay
            return
        try:
            container.mux(self._stream.encode(None))
        finally:
            container.close()
        _partial(self._path).replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_summary(path: Path, summary: Summary) -> None:
    _partial(path).write_bytes(msgspec.json.format(_JSON.encode(summary), indent=2) + b"\n")
    _partial(path).replace(path)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def folder_names(paths: Iterable[Path | str]) -> list[str]:
    """A folder's name for each input: its stem, with -2, -3 ... where an earlier input or another's stem has it.

    Names that differ in case alone count as equal, as on some file systems.  What is no Unicode is replaced.
    """
    stems = [printable(Path(path).stem.strip(".") and Path(path).stem or Path(path).resolve().stem) for path in paths]
    taken = {name.casefold() for name in RESERVED_NAMES}
    waiting = taken | {stem.casefold() for stem in stems}
    names: list[str] = []
    for stem in stems:
        name, number = stem, 2
        while name.casefold() in (taken if name == stem else waiting | taken):
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def printable(name: str) -> str:
    """A file name may hold bytes that are no text, which no JSON or HTML file can."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
