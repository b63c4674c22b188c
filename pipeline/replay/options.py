"""The options of `dasnet replay`, and the texts that some of them are parsed from."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.capture.wall_clock import utc_ns
from pipeline.config.camera import MIN_REGION_PX, Pose
from pipeline.errors import ConfigError
from pipeline.imaging.band import named_band

POSE = ("lat", "lon", "height_m", "azimuth_deg", "elevation_deg", "hfov_deg")
Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ReplayOptions:
    """The command-line options; see `dasnet replay --help`."""

    checkpoint: Path | None = None
    threshold: float | None = None
    device: str = "auto"
    engine: str = "auto"
    band: str = "auto"
    scale: float | None = None
    ignore: tuple[Polygon, ...] = ()
    region: tuple[int, int, int, int] | None = None
    fps: float | None = None
    stream: int | None = None
    start_utc_ns: int | None = None
    start: int = 0
    end: int | None = None
    stride: int = 1
    video: bool = True
    parquet: bool = False
    from_detections: bool = False
    calibration: Path | None = None
    pose: Pose | None = None  # of the camera, for all of the recordings
    share: float = 1.0  # of each frame's pixels that the network processes

    def check(self) -> None:
        """Raise ConfigError for options that contradict each other, and for an unknown band."""
        if self.end is not None and self.end <= self.start:
            raise ConfigError(f"--end {self.end} is not after --start {self.start}")
        if self.band != "auto":
            named_band(self.band)
        if self.from_detections and self.threshold is not None:
            raise ConfigError("--threshold cannot be changed with --from-detections: the masks are already made")
        if self.from_detections and (self.ignore or self.region):
            raise ConfigError(
                "--ignore and --region cannot be changed with --from-detections: the masks are already made"
            )

    def frame_count(self, source_frames: int | None) -> int | None:
        """Return how many of a source's frames are replayed; None if their number is unknown."""
        if source_frames is None:
            return None
        end = source_frames if self.end is None else min(source_frames, self.end)
        return max(0, -(-(end - self.start) // self.stride))

    def selects(self, number: int) -> bool:
        """Return whether the frame of that number, before `end`, is replayed."""
        return number >= self.start and (number - self.start) % self.stride == 0


def polygon(text: str) -> Polygon:
    """Parse `0,0 100,0 100,50`.  Raise ConfigError."""
    try:
        points = tuple((float(x), float(y)) for x, y in (point.split(",") for point in text.split()))
    except ValueError:
        points = ()
    if len(points) < 3:
        raise ConfigError(f"--ignore {text!r}: must be three or more points in frame pixels, as in '0,0 100,0 100,50'")
    return points


def region(text: str) -> tuple[int, int, int, int]:
    """Parse `x0,y0,x1,y1`.  Raise ConfigError."""
    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError:
        x0 = y0 = x1 = y1 = 0
    if not (0 <= x0 <= x1 - MIN_REGION_PX and 0 <= y0 <= y1 - MIN_REGION_PX):
        raise ConfigError(f"--region {text!r}: must be x0,y0,x1,y1 in frame pixels, {MIN_REGION_PX} or more apart")
    return x0, y0, x1, y1


def camera_pose(text: str) -> Pose:
    """Parse `lat,lon,height_m,azimuth_deg,elevation_deg,hfov_deg`.  Raise ConfigError."""
    parts = text.split(",")
    try:
        if len(parts) != len(POSE):
            raise ConfigError(f"--pose {text!r}: must be {','.join(POSE)}, as in 52.52,13.405,40,270,5,30")
        return Pose.model_validate(dict(zip(POSE, map(str.strip, parts), strict=True)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, said = first["loc"][0], first["msg"].removeprefix("Input should be ")
        raise ConfigError(f"--pose {text!r}: {key} {first['input']!r}: must be {said}") from None


def start_time(text: str, option: str = "--start-time") -> int:
    """Parse an ISO 8601 time with a time zone into ns since 1970.  Raise ConfigError."""
    try:
        return utc_ns(text)
    except ValueError:
        raise ConfigError(
            f"{option} {text!r}: must be an ISO 8601 time with its zone, as in 2026-05-04T03:02:01Z or ...+02:00"
        ) from None
