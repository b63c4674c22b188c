"""The tracks and alerts of a camera, for the host that processes it next.  Pure.

What is left out begins anew there: tracks that are not confirmed yet, how a target moved (its kinematics), how long it
has been in a zone, cool-downs of rules, and which alerts of other cameras a target is part of.
"""

import msgspec

from pipeline.alerting.incidents import IncidentState
from pipeline.errors import WireError
from pipeline.tracking.evidence import EvidenceState
from pipeline.types import FrameRef

VERSION = 1
CONTINUE_S = 10.0  # a camera that nobody processed for longer has none of its targets where they are expected


class TrackletState(msgspec.Struct, frozen=True):
    """A confirmed track."""

    number: int
    ulid: str
    first: FrameRef
    last: FrameRef
    xyxy: tuple[float, float, float, float]
    size_px: tuple[float, float]  # smoothed: width, height
    motion: tuple[float, ...]  # x, y, vx, vy, variances of position and velocity, their covariance
    hits: int
    score_sum: float
    reported: bool
    farthest_px: tuple[float, float]  # from home, and on the screen
    camera_motion_frames: int
    evidence: EvidenceState


class CameraTracks(msgspec.Struct, frozen=True):
    """What the next owner of a camera needs."""

    next: int  # number of the next track
    classes: tuple[str, ...]
    last_pts_s: float  # of the newest frame
    tracklets: list[TrackletState]
    incidents: list[IncidentState]
    labelled: list[int]  # numbers of tracks that were reported as distractors
    version: int = VERSION


_decoder = msgspec.json.Decoder(CameraTracks)


def encoded(tracks: CameraTracks) -> bytes:
    """Return the tracks as JSON."""
    return msgspec.json.encode(tracks)


def decoded(data: bytes) -> CameraTracks:
    """Return the tracks.  Raise WireError where another version wrote them, or nobody."""
    try:
        tracks = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise WireError(f"tracks of the last owner: {error}") from None
    if tracks.version != VERSION:
        raise WireError(f"tracks of the last owner of version {tracks.version}: must be {VERSION}")
    return tracks


def rebased(ref: FrameRef, pts_s: float, session: str) -> FrameRef:
    """Return a frame of an earlier session as one of this session, at this presentation time."""
    return msgspec.structs.replace(ref, session=session, seq=0, pts_s=pts_s)
