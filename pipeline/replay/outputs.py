"""The text files of one replayed input, in its folder DIR/<stem>/.

In: the stages' results for each frame.  Out: tracks.txt (MOTChallenge), detections.jsonl (exact: tracking again from it
gives the same bytes), events.jsonl, summary.json; `track_table` and `video` write the others.  Each is written as
`<name>.partial` and renamed when closed, also by an error: the results of a broken input are kept as valid files, and
summary.json says that they are incomplete.  A `.partial` left behind means that the process was killed, or the disk
full.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DasnetError, SourceError
from pipeline.replay.output_file import LinesFile, partial
from pipeline.replay.summary import Summary, printable, printable_summary
from pipeline.types import Band, Detections, Event, FrameRef, Mask, Track, TrackState

VERSION = 3  # of detections.jsonl
MAX_LINE_BYTES = 1 << 26  # dasnet writes no longer line
_JSON = msgspec.json.Encoder()
_T = TypeVar("_T")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of detections.jsonl.

    `frames` is the number that the source declares; `start`, `end` and `stride` are 0-based frame numbers as given, an
    `end` of None being that of the source; `start_utc_ns` is None if unknown; `checkpoint` is its SHA-256.
    """

    version: int = VERSION
    source: str
    camera: str
    session: str
    band: Band
    width: int
    height: int
    fps: float | None
    frames: int | None
    classes: tuple[str, ...]
    checkpoint: str
    engine: str
    threshold: float
    start: int = 0
    end: int | None = None
    stride: int = 1
    start_utc_ns: int | None = None


class _Version(msgspec.Struct):
    version: int


class _Ref(msgspec.Struct):
    """A FrameRef, except for what the header contains."""

    seq: int
    pts_s: float
    received_mono_ns: int
    received_utc_ns: int
    ntp_ns: int | None


class _Line(msgspec.Struct):
    """A frame in detections.jsonl.  A mask is [left, top, width, height, packed bits in base64] in mask pixels."""

    ref: _Ref
    size_px: tuple[int, int]
    xyxy: list[list[float]]
    score: list[float]
    mask_score: list[float]
    motion_score: list[float]
    novelty: list[float]
    class_scores: list[list[float]]
    area: list[float]
    centroid: list[list[float]]
    masks: list[Mask]
    mask_scale: tuple[float, float]
    camera_shift_px: tuple[float, float] | None


class TracksWriter(LinesFile):
    """Writes MOTChallenge rows: frame (1-based), id, left, top, width, height, score, -1, -1, -1."""

    def write(self, ref: FrameRef, tracks: Iterable[Track]) -> None:
        """Write those of a frame's tracks that are confirmed targets, visible in it."""
        for track in sorted(tracks, key=lambda track: track.id):
            if track.state is TrackState.CONFIRMED and track.is_target:
                left, top, right, bottom = track.xyxy
                box = ",".join(f"{round(value, 2) + 0.0:.2f}" for value in (left, top, right - left, bottom - top))
                self.add(f"{ref.seq + 1},{track.id},{box},{track.score:.4f},-1,-1,-1".encode())


class EventsWriter(LinesFile):
    """Writes one JSON object per event."""

    def write(self, event: Event) -> None:
        """Append an event."""
        self.add(_JSON.encode(event))


class DetectionsWriter(LinesFile):
    """Writes every segmented frame, also without detections.  `read_detections` returns the same, to the bit."""

    def __init__(self, path: Path, header: Header) -> None:
        super().__init__(path)
        self._expected = header.camera, header.session, header.band, header.classes
        self.add(_JSON.encode(msgspec.structs.replace(header, source=printable(header.source))))

    def write(self, detections: Detections) -> None:
        """Append a frame.  Raise ValueError if it does not fit the header."""
        ref, one, expected = detections.ref, _shortest, self._expected
        own = ref.camera, ref.session, detections.band, detections.classes
        if expected != own:
            raise ValueError(f"frame {ref.seq}: {own}; the header has {expected}")
        line = _Line(
            _Ref(ref.seq, ref.pts_s, ref.received_mono_ns, ref.received_utc_ns, ref.ntp_ns), detections.size_px,
            [one(row) for row in detections.xyxy], one(detections.score),
            one(detections.mask_score), one(detections.motion_score), one(detections.novelty),
            [one(row) for row in detections.class_scores], one(detections.area_px),
            [one(row) for row in detections.centroid],
            detections.masks, detections.mask_scale, detections.camera_shift_px,
        )  # fmt: skip
        self.add(_JSON.encode(line))


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """Return the shortest decimals that round to these float32 values (0.93, not 0.9300000071525574)."""
    if not np.isfinite(values).all():
        raise ValueError(f"cannot be stored as JSON: {values}")
    return [short if np.float32(short := float(str(value))) == value else float(value) for value in values]


def read_detections(path: Path) -> tuple[Header, Iterator[Detections]]:
    """Return the header and an iterator over the frames.

    Both raise DasnetError, with file and line, where the file is cut off or not a detections.jsonl of this version.
    """
    try:
        with path.open("rb") as file:
            first = file.readline(MAX_LINE_BYTES)
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
        file.readline(MAX_LINE_BYTES)
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=2):
            read = _decode(path, number, line, _Line)
            try:
                detections = _detections(read, header)
                if read.ref.seq <= last_seq:
                    raise ValueError(f"frame {read.ref.seq} comes after frame {last_seq}")
            except ValueError as error:
                raise DasnetError(f"{path}, line {number}: {error}") from error
            last_seq = read.ref.seq
            yield detections


def _decode(path: Path, number: int, line: bytes, kind: type[_T]) -> _T:
    try:
        if not line.endswith(b"\n"):
            raise msgspec.DecodeError("cut off before its end" if line else "the file is empty")
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DasnetError(f"{path}, line {number}: not a detections.jsonl of dasnet, or damaged: {error}") from error


def _detections(line: _Line, header: Header) -> Detections:
    ref, count, classes = line.ref, len(line.score), header.classes
    if len(line.masks) not in (0, count):
        raise ValueError(f"{len(line.masks)} masks for {count} detections")
    if any(len(mask.bits) != (mask.width * mask.height + 7) // 8 for mask in line.masks):
        raise ValueError("the bits of a mask do not fit its width and height")
    times = (ref.pts_s, ref.received_mono_ns, ref.received_utc_ns, ref.ntp_ns)
    return Detections(
        FrameRef(header.camera, header.session, ref.seq, *times), header.band, line.size_px, classes,
        _array("xyxy", line.xyxy, count, 4), _array("score", line.score, count),
        _array("mask_score", line.mask_score, count), _array("motion_score", line.motion_score, count),
        _array("novelty", line.novelty, count),
        _array("class_scores", line.class_scores, count, len(classes)),
        _array("area", line.area, count), _array("centroid", line.centroid, count, 2),
        line.masks, line.mask_scale, line.camera_shift_px,
    )  # fmt: skip


def _array(name: str, values: list[float] | list[list[float]], *shape: int) -> NDArray[np.float32]:
    array = np.array(values, np.float32) if values else np.zeros((0, *shape[1:]), np.float32)
    if array.shape != shape:
        raise ValueError(f"{name} is of shape {array.shape}, not {shape}")
    return array


def write_summary(path: Path, summary: Summary) -> None:
    """Write summary.json."""
    text = _JSON.encode(printable_summary(summary))
    partial(path).write_bytes(msgspec.json.format(text, indent=2) + b"\n")
    partial(path).replace(path)


def folder_names(paths: Iterable[Path | str]) -> list[str]:
    """Return a folder name for each input: its stem, with -2, -3 ... where that is taken or is another input's stem."""
    named = [Path(path) if Path(path).stem.strip(".") else Path(path).resolve() for path in paths]  # "." is not a name
    stems = [printable(path.stem) or "input" for path in named]
    folded = {stem.casefold() for stem in stems}  # some file systems do not distinguish upper and lower case
    taken, names = {"report.html", "parquet"}, []
    for stem in stems:
        name, number = stem, 2
        while name.casefold() in taken or (name != stem and name.casefold() in folded):
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names
