"""The network, where it runs, and how fast it must be: `model` and `objective`."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Section, SitePath

Fraction = Annotated[float, Field(ge=0, le=1)]
MIN_SHARE = 0.005
Share = Annotated[float, Field(ge=MIN_SHARE, le=1)]


class Model(Section):
    """The segmentation network, and where it runs."""

    checkpoint: SitePath | None = None
    """A checkpoint of dasnet or of the original DAS-Net, or the name of a shipped one: `dasnet`, the default, or
    `dasnet-s`, a smaller network."""
    threshold: Fraction | None = None
    """Segmentation threshold: object probability above which a pixel is foreground; default: the checkpoint's."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    role: Literal["alert", "record"] = "alert"
    """Operating point: `alert`, few false alarms, or `record`, nothing missed."""
    engine: str = "auto"
    """Inference engine: `auto`, or one listed by `dasnet replay --help`; `dasnet doctor` shows what `auto` selects."""
    share: Literal["auto"] | Share = "auto"
    """Share of each live frame's pixels that the network processes; `auto`: all, or what keeps up with the cameras."""


class Objective(Section):
    """How soon: the latency objective bounds queueing and batching; the metrics count what misses it."""

    capture_to_track_ms: Annotated[float, Field(gt=0)] = 500.0
    """Time from the reception of a frame to its tracks, in milliseconds."""
    scan_revisit_s: Annotated[float, Field(gt=0)] = 15.0
    """Time for which a place of the view may wait for the network while it processes a share of the frames, in s; a
    camera is partly blind (cause `budget`) by what waits longer."""
