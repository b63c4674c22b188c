"""What people read in a package: derived from its sidecar and events, always the same way.

In: the sidecar, and the events' JSON.  Out: `track.csv`, `track.geojson` (only where the camera has a pose),
`verdicts.csv`, `README.txt` and `verify.py`.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from importlib import resources

import msgspec

from pipeline.evidence.sidecars import Sidecar, read_sidecar
from pipeline.evidence.signing import public_pem
from pipeline.evidence.times import utc
from pipeline.evidence.track_paths import BoxAt, TrackPath
from pipeline.geodesy import destination
from pipeline.types import Event, EventKind

LINE_M = 5000.0  # length of a bearing line
LINE_PERIOD_NS = 1_000_000_000
VERDICTS = (EventKind.ALERT_ACKNOWLEDGED, EventKind.ALERT_REVIEWED, EventKind.ALERT_REOPENED)


def readable_files(alert: str, sidecar: bytes | None, payloads: Sequence[bytes], key: str) -> dict[str, bytes]:
    """Return the files by name.

    Args:
        alert: its id.
        sidecar: its newest one, or None: the alert has not ended.
        payloads: its events, and those of its camera.
        key: the public key of the signed head.

    Raises:
        EvidenceError: the sidecar cannot be read.
        msgspec.DecodeError: an event cannot be read.
    """
    seen = read_sidecar(sidecar, f"sidecar of {alert}") if sidecar is not None else None
    events = [msgspec.json.decode(payload, type=Event) for payload in payloads]
    files = {
        "README.txt": _readme(alert, seen, events, key),
        "verify.py": resources.files("pipeline.evidence").joinpath("verify_package.txt").read_text(),
        "verdicts.csv": _csv(*_verdicts(events)),
        "key.pem": public_pem(key).decode(),
    }
    if seen is not None:
        head = ("track", "track_id", "label", "time_utc", *seen.columns)
        files["track.csv"] = _csv(head, _boxes(seen.tracks))
        if seen.pose is not None:
            files["track.geojson"] = json.dumps(_geojson(seen, seen.pose), indent=1) + "\n"
    return {name: text.encode() for name, text in files.items()}


def _csv(head: Sequence[str], rows: Iterator[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def _verdicts(events: Sequence[Event]) -> tuple[Sequence[str], Iterator[Sequence[object]]]:
    """Return head and rows; who gave a verdict is known since users have names."""
    given = [event for event in events if event.kind in VERDICTS]
    names = ["by"] if any(event.by for event in given) else []
    rows = (
        (utc(event.time_utc_ns), event.kind, event.verdict or "", event.note or "", *[event.by or ""] * len(names))
        for event in given
    )
    return ("time_utc", "event", "verdict", "note", *names), rows


def _boxes(tracks: Sequence[TrackPath]) -> Iterator[Sequence[object]]:
    for track in tracks:
        if track.camera is not None:  # pixels of another camera
            continue
        for box in track.boxes:
            values = ("" if value is None else value for value in msgspec.structs.astuple(box))
            yield track.ulid, track.id, track.label, utc(box.time_utc_ns), *values


def _geojson(sidecar: Sidecar, pose: dict[str, float]) -> dict[str, object]:
    """Return the camera as a point, and lines along the bearings of its tracks, one a second.

    A line shows a direction: where on it the target was is not known.
    """
    camera = [pose["lon"], pose["lat"], pose["height_m"]]
    features = [_feature("Point", camera, {"camera": sidecar.camera} | pose)]
    for track in sidecar.tracks:
        if track.camera is not None:  # whose pose is another one
            continue
        for box, azimuth_deg in _each_second(track.boxes):
            lat, lon = destination(pose["lat"], pose["lon"], azimuth_deg, LINE_M)
            about = {
                "track": track.ulid,
                "label": track.label,
                "time_utc": utc(box.time_utc_ns),
                "azimuth_deg": azimuth_deg,
                "elevation_deg": box.elevation_deg,
                "meaning": "bearing line from the camera; the range is unknown",
            }
            features.append(_feature("LineString", [camera[:2], [lon, lat]], about))
    return {"type": "FeatureCollection", "features": features}


def _each_second(boxes: Sequence[BoxAt]) -> Iterator[tuple[BoxAt, float]]:
    """Yield boxes with their azimuths, a second apart, with the last one."""
    next_ns = 0
    for box in boxes:
        if box.azimuth_deg is not None and (box.time_utc_ns >= next_ns or box is boxes[-1]):
            next_ns = box.time_utc_ns + LINE_PERIOD_NS
            yield box, box.azimuth_deg


def _feature(kind: str, coordinates: object, properties: object) -> dict[str, object]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def _readme(alert: str, sidecar: Sidecar | None, events: Sequence[Event], key: str) -> str:
    own = [event for event in events if event.alert == alert]
    first = min((event.time_utc_ns for event in own), default=0)
    last = max((event.time_utc_ns for event in own if event.kind not in VERDICTS), default=0)
    template = resources.files("pipeline.evidence").joinpath("package_readme.txt").read_text()
    made = sidecar.program if sidecar is not None else None
    return template.format(
        alert=alert,
        camera=own[0].camera if own else "",
        first=utc(first),
        last=utc(last),
        dasnet=made.dasnet if made is not None else "not known yet",
        checkpoint=made.checkpoint_sha256 if made is not None else "not known yet",
        key=key,
    )
