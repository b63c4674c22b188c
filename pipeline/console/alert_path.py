"""Where the tracks of an alert were, from its sidecars."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.evidence.log import EvidenceError
from pipeline.evidence.sidecars import COLUMNS, Sidecar, read_sidecar
from pipeline.evidence.track_paths import TrackPath


class AlertPath(msgspec.Struct, frozen=True):
    """Reply with the boxes of an alert's tracks over time; none before the alert's sidecar is written."""

    session: str  # of their frames; empty: unknown
    tracks: list[TrackPath]
    columns: tuple[str, ...] = COLUMNS  # of `tracks[].boxes`
    incomplete: str = ""  # why boxes are missing
    camera: str = ""  # of the tracks that name none


def alert_path(folder: Path, alert: str) -> AlertPath:
    """Return what the sidecars in this folder say of an alert: it has several where it was active again."""
    session, tracks, incomplete, camera = "", [], "", ""
    for sidecar in _sidecars(folder, alert):
        events = [msgspec.json.decode(event, type=_OfSession) for event in sidecar.events]
        session = next((event.session for event in events if event.session), session)
        tracks += sidecar.tracks
        incomplete = sidecar.tracks_incomplete or incomplete
        camera = sidecar.camera
    return AlertPath(session, tracks, incomplete=incomplete, camera=camera)


def _sidecars(folder: Path, alert: str) -> Iterator[Sidecar]:
    name, number = f"{alert}.json", 2
    while True:
        path = folder / name
        try:
            yield read_sidecar(path.read_bytes(), name)
        except (OSError, EvidenceError):  # there is none, or none of this version
            return
        name, number = f"{alert}-{number}.json", number + 1


class _OfSession(msgspec.Struct):
    session: str
