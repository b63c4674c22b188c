"""What a site keeps, where and for how long: `store`, `retention`, `recording`, `evidence` and `log`."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline.config.section import Section, SitePath


class StoreConfig(Section):
    """The SQLite database of events, tracks and alerts."""

    path: SitePath | None = None
    """The database file; default: `store.sqlite` in the run folder."""


class RetentionConfig(Section):
    """Automatic deletion: snapshots and clips first, then old events, tracks and closed alerts; never open alerts."""

    days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Maximum age in days."""
    max_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    """Maximum total size of snapshots, clips, store and `events.jsonl`, in GB."""
    min_free_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Disk space to keep free, in GB; default: 2, or a tenth of the disk where it is smaller than 20 GB."""


class RecordingConfig(Section):
    """Clips of alerts, from each camera's own packets, in the run folder's `clips`; see [Recording](recording.md)."""

    enabled: bool = True
    """Keep the newest packets of each camera in memory, and write a clip of each alert."""
    pre_s: Annotated[float, Field(ge=0, le=300)] = 5.0
    """Time before the first detection of an alert's track, in seconds; the clip starts at a keyframe before it."""
    post_s: Annotated[float, Field(ge=0, le=300)] = 5.0
    """Time after the end of an alert, in seconds."""
    max_s: Annotated[float, Field(ge=1, le=3600)] = 120.0
    """Maximum length of a clip, from `pre_s` before the first detection on, in seconds; must exceed `pre_s`."""
    ring_mb: Annotated[float, Field(ge=1, le=4096)] = 32.0
    """Maximum memory per camera, in MB."""

    @field_validator("max_s")
    @classmethod
    def _reaches_the_first_detection(cls, max_s: float, info: ValidationInfo) -> float:
        pre_s = info.data.get("pre_s", 0.0)
        if max_s <= pre_s:
            raise ValueError(f"must be greater than recording.pre_s ({pre_s:g})")
        return max_s


class EvidenceConfig(Section):
    """The evidence log, in the run folder's `evidence`; see [Evidence](evidence.md)."""

    key: SitePath | None = None
    """The secret key that signs the log, as `dasnet keys FOLDER` makes it; default: `evidence.key_secret` in the run
    folder. It is made where it is missing."""


class LogConfig(Section):
    """Logging."""

    format: Literal["console", "json"] = "console"
    """Format on stderr; the log file holds JSON."""
    file: SitePath | None = None
    """The log file; default: `dasnet.log` in the run folder."""
