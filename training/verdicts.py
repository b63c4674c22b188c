"""`dasnet label SITE.yaml --from-store`: what operators said of alerts, as labelled clips for training and evaluation.

In: a site's store, clips and sidecars.  Out, in DIR: `clips/<alert>.mp4` and `labels.json.gz`, as
`training.datasets.dronedet` reads them.  A frame's box is that of the alert's track, linear between the recorded ones;
frames in which the target was not detected for long have no object.
"""

import gzip
import json
import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av

from pipeline.config import file
from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.evidence.sidecars import read_sidecar
from pipeline.evidence.track_paths import BoxAt, TrackPath
from pipeline.store.alert import Alert
from pipeline.store.clips import read_record, record_path, video_path
from pipeline.store.reader import StoreReader
from pipeline.types import TrackState, Verdict
from training.datasets.dronedet import LABELS_FILE

CLASS_OF = {Verdict.UAV: "drone", Verdict.BIRD: "bird", Verdict.AIRCRAFT: "airplane"}
MAX_ALERTS = 100_000
MAX_GAP_S = 0.35  # between two recorded boxes that a frame lies between: they are at most 10 a second


def run_label_from_store(site: Path, out: Path) -> int:
    """Export every reviewed alert; print how many, and why others are left out; return the exit code."""
    config = file.load(site)
    with StoreReader(config.store_path) as reader:
        reviewed = [alert for alert in reader.alerts(MAX_ALERTS) if alert.verdict is not None]
    if not reviewed:
        raise ConfigError(f"{config.store_path}: no alert has a verdict; expected at least one, given on the page")
    (out / "clips").mkdir(parents=True, exist_ok=True)
    labels: dict[str, object] = {}
    omitted: Counter[str] = Counter()
    for alert in reviewed:
        entry = _entry(config, alert)
        if isinstance(entry, str):
            omitted[entry] += 1
            continue
        shutil.copyfile(video_path(config.clips_path, alert.id), video_path(out / "clips", alert.id))
        labels[alert.id] = entry
    (out / LABELS_FILE).write_bytes(gzip.compress(json.dumps(labels).encode(), mtime=0))
    print(f"{len(labels)} clips with labels: {out}")
    for reason, count in sorted(omitted.items()):
        print(f"left out: {count}, {reason}")
    return 0 if labels else 1


def _entry(config: Config, alert: Alert) -> dict[str, object] | str:
    """Return the labels of an alert's clip, or why there are none."""
    bands = {camera.id: camera.band for camera in config.cameras}
    label = CLASS_OF.get(alert.verdict) if alert.verdict is not None else None
    if label is None:
        return f"verdict {alert.verdict}: no class of the network"
    if alert.camera not in bands:
        return "camera not in the configuration any more"
    clip, sidecar = video_path(config.clips_path, alert.id), config.evidence_path / f"{alert.id}.json"
    if not clip.exists():
        return "no clip"
    if not sidecar.exists():
        return "no sidecar with the track's boxes"
    record, tracks = (
        read_record(record_path(config.clips_path, alert.id)),
        read_sidecar(sidecar.read_bytes(), sidecar.name).tracks,
    )
    times_s = [record.zero_pts_s + time_s for time_s in _times_s(clip)]
    frames = [list(_objects(tracks, time_s, label)) for time_s in times_s]
    if not any(frames):
        return "the track's boxes are not in its clip"
    length_s = times_s[-1] - times_s[0]
    return {
        "sensor": bands[alert.camera].value,
        "camera": alert.camera,
        "clip_class": label,
        "split": "train",
        "fps": round((len(times_s) - 1) / length_s, 3) if length_s > 0 else 1.0,
        "width": record.size_px[0],
        "height": record.size_px[1],
        "frames": frames,
    }


def _times_s(clip: Path) -> list[float]:
    """Return when the frames of a clip are shown, in order, seconds of the file."""
    with av.open(str(clip)) as container:
        packets: Any = container.demux(video=0)
        return sorted(float(packet.pts * packet.time_base) for packet in packets if packet.size)


def _objects(tracks: Sequence[TrackPath], time_s: float, label: str) -> Iterator[dict[str, object]]:
    for track in tracks:
        if track.camera is not None:  # a second camera's, which is not in the clip
            continue
        xyxy = _box(track.boxes, time_s)
        if xyxy is not None:
            x0, y0, x1, y1 = xyxy
            yield {"id": track.id, "class": label, "box": [round(each, 2) for each in (x0, y0, x1 - x0, y1 - y0)]}


def _box(boxes: Sequence[BoxAt], time_s: float) -> tuple[float, ...] | None:
    """Return the box at a time, between two detections that are near to each other, or None."""
    seen = [box for box in boxes if box.state is not TrackState.COASTING]
    place = bisect_left(seen, time_s - 1e-3, key=lambda box: box.pts_s)
    if place == len(seen):
        return None
    after = seen[place]
    if abs(after.pts_s - time_s) < 2e-3:
        return after.x0, after.y0, after.x1, after.y1
    if place == 0 or after.pts_s - (before := seen[place - 1]).pts_s > MAX_GAP_S:
        return None
    share = (time_s - before.pts_s) / (after.pts_s - before.pts_s)
    ends = zip((before.x0, before.y0, before.x1, before.y1), (after.x0, after.y0, after.x1, after.y1), strict=True)
    return tuple(one + share * (other - one) for one, other in ends)
