"""`dasnet evaluate-clips`: replay labelled clips through the whole pipeline and compute track metrics.

In: folders of labelled videos, in the format of `tests/data` (labels.json.gz and clips/) or of Anti-UAV.  Out: tables
by sensor, class, camera and set, and a JSON file.  Detections are stored and reused as long as recording, checkpoint,
threshold and engine are the same, so that tracking can be repeated in seconds.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint import Loaded, load
from model.engine.engine import Engine
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import DasnetError
from pipeline.replay.options import ReplayOptions
from pipeline.replay.outputs import read_detections
from pipeline.replay.recording import Replay, content_id
from training.datasets import SPLITS, Clip
from training.evaluation.clip_metrics import DRONE, evaluate_clip, median_apparent_px, read_track_rows
from training.evaluation.clip_report import ClipReport
from training.evaluation.clip_results import ClipResult, total
from training.evaluation.clip_sets import REPLAYS, labelled_clips
from training.evaluation.clip_tables import tables
from training.evaluation.label_margins import label_margin_px
from training.evaluation.range_ladder import SCALES, Shrinking, shrunk_clip

QUICK_CLIPS = 16
ALL_SPLITS = "all"


@dataclass(frozen=True)
class ClipEvaluationOptions:
    """Options of `dasnet evaluate-clips`."""

    splits: list[str]  # of the data, or ALL_SPLITS
    data: list[Path]
    checkpoint: Path | None = None  # None: the shipped one
    out: Path = REPLAYS
    engine: str = "auto"
    quick: bool = False  # QUICK_CLIPS fixed clips
    ladder: bool = False  # drone clips also at smaller scales
    json: Path | None = None
    share: float = 1.0  # of each frame's pixels that the network processes
    ray: str | None = None  # auto, or HOST:PORT of a Ray cluster's head


def run_evaluate_clips(options: ClipEvaluationOptions) -> None:
    """Print the tables and write the JSON file; raise DasnetError or ModelError for unreadable data or checkpoints."""
    splits = SPLITS if ALL_SPLITS in options.splits else options.splits
    clips = labelled_clips([folder.absolute() for folder in options.data], splits)
    report = evaluate_clips(spread_clips(clips) if options.quick else clips, options)
    print(tables(report.clips))
    recorded = total(one for one in report.clips if one.scale == 1)
    print(f"\nmissed: {', '.join(recorded.missed) or 'none'}")
    print(f"alarmed: {', '.join(recorded.alarmed) or 'none'}")
    if options.json:
        report.write(options.json)


def spread_clips(clips: list[tuple[str, Clip]]) -> list[tuple[str, Clip]]:
    """Return every n-th clip, which covers all classes and sensors."""
    return clips[:: max(1, len(clips) // QUICK_CLIPS)][:QUICK_CLIPS]


def evaluate_clips(clips: list[tuple[str, Clip]], options: ClipEvaluationOptions) -> ClipReport:
    """Return the results of clips, given with their sets; raise DasnetError where one cannot be replayed."""
    checkpoint = checkpoint_path(options.checkpoint)
    loaded = load(checkpoint)
    ladder = SCALES if options.ladder else ()
    todo = [
        (set_name, clip, scale)
        for set_name, clip in clips
        for scale in (1.0, *(ladder if clip.clip_class == DRONE else ()))
    ]
    results = []
    with Engine(loaded, kind=options.engine) as engine:
        folder = options.out / loaded.metadata.sha256[:12] / engine.name
        if options.share < 1:
            folder /= f"share-{options.share:g}"
        if options.ray is not None:
            from training.evaluation.clip_tasks import evaluate_on_ray

            where = folder.absolute(), checkpoint.absolute()
            results = evaluate_on_ray(options.ray, todo, *where, options.engine, options.share)
            todo = []
        for number, (set_name, clip, scale) in enumerate(todo, 1):
            results.append(evaluate_scaled(set_name, clip, scale, folder, loaded, engine, options.share))
            print(f"\r{number}/{len(todo)} {clip.name:<24}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return ClipReport(loaded.metadata.sha256, engine.name, results)


def evaluate_scaled(
    set_name: str, clip: Clip, scale: float, folder: Path, loaded: Loaded, engine: Engine, share: float
) -> ClipResult:
    """Replay a clip at a scale of the range ladder, 1 as recorded, into a folder of this engine; return its result.

    Raise DasnetError where it cannot be replayed.
    """
    metadata = loaded.metadata
    name = clip.name if scale == 1 else f"{clip.name}@{scale:g}"
    transform = None if scale == 1 else Shrinking(clip.name, scale)
    thresholds = metadata.thresholds[clip.sensor]
    stored = _is_stored(folder / name, clip.path, thresholds.threshold)
    how = ReplayOptions(band=clip.sensor, video=False, from_detections=stored, share=share)
    replay = Replay(clip.path, name, clip.path.name, folder / name, loaded, engine, how, transform)
    summary = replay.run(lambda *_: None)
    if summary.error:
        raise DasnetError(summary.error)
    rows = read_track_rows((folder / name / "tracks.txt").read_text().splitlines())
    shown = clip if scale == 1 else shrunk_clip(clip, scale)
    label_px = label_margin_px(clip) * scale
    box_px = thresholds.box_margin_px / metadata.preprocessing.scale[clip.sensor]
    metrics = evaluate_clip(shown, rows, summary.frames, label_px, box_px)
    apparent_px = median_apparent_px(shown, label_px)
    return ClipResult(clip.name, set_name, clip.camera, clip.sensor, clip.clip_class, scale, apparent_px, metrics)


def _is_stored(folder: Path, recording: Path, threshold: float) -> bool:
    try:
        header, _ = read_detections(folder / "detections.jsonl")
    except (DasnetError, OSError):
        return False
    same = header.session == content_id(recording) and header.threshold == threshold
    return same and (folder / "summary.json").exists()
