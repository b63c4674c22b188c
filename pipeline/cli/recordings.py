"""Commands over recorded video and images."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import CheckpointOption, DeviceOption, EngineOption, OutOption, ThresholdOption, app


@app.command(epilog="Example: `dasnet replay tests/data/clips --out out`")
def replay(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Videos, folders or image sequences; with --ray also s3:// and http://."
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Output folder; created if needed; with --ray also s3://.")
    ],
    checkpoint: CheckpointOption = None,
    threshold: ThresholdOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    band: Annotated[str, typer.Option(help="visible, infrared, or auto: infrared for grey frames.")] = "auto",
    scale: Annotated[
        float | None, typer.Option(min=0.05, max=8, help="Resize factor before inference; default: the checkpoint's.")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="'X,Y X,Y X,Y'", help="Privacy mask: a polygon in which detections are discarded."),
    ] = None,
    within: Annotated[
        str | None, typer.Option("--region", metavar="X0,Y0,X1,Y1", help="Region of interest, in frame pixels.")
    ] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, help="Frame rate of image sequences; default: 25.")] = None,
    stream: Annotated[
        int | None, typer.Option(min=0, help="Video stream of a file; default: FFmpeg's best stream.")
    ] = None,
    start_time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Wall-clock time of the first frame, ISO 8601; default: the file's."),
    ] = None,
    pose: Annotated[
        str | None,
        typer.Option(
            metavar="LAT,LON,HEIGHT,AZIMUTH,ELEVATION,HFOV", help="Camera pose, degrees and m: tracks.geojson."
        ),
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="First frame to process, 0-based.")] = 0,
    end: Annotated[int | None, typer.Option(min=1, help="First frame not to process.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Process every n-th frame.")] = 1,
    video: Annotated[bool, typer.Option("--video/--no-video", help="Write annotated.mp4.")] = True,
    from_detections: Annotated[
        bool, typer.Option("--from-detections", help="Run only tracking, on the detections stored in DIR.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Calibration of the camera, written by `dasnet assess`.")
    ] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Also write tracks, events and detections to DIR/parquet.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(metavar="auto|HOST:PORT", help="Replay on a Ray cluster what is not done yet."),
    ] = None,
) -> None:
    """Run the pipeline on recordings: every frame, deterministically."""
    from pipeline.bulk.storage import is_uri, local_path, shown
    from pipeline.errors import ConfigError
    from pipeline.replay.options import ReplayOptions, camera_pose, polygon, region
    from pipeline.replay.options import start_time as parsed_time
    from pipeline.replay.run import run_replay

    options = ReplayOptions(
        checkpoint=checkpoint,
        threshold=threshold,
        device=device,
        engine=engine,
        band=band,
        scale=scale,
        ignore=tuple(polygon(text) for text in ignore or ()),
        region=region(within) if within else None,
        fps=fps,
        stream=stream,
        start_utc_ns=parsed_time(start_time) if start_time else None,
        pose=camera_pose(pose) if pose else None,
        start=start,
        end=end,
        stride=stride,
        video=video,
        from_detections=from_detections,
        calibration=calibration,
        parquet=parquet,
    )
    if ray is not None:
        from pipeline.bulk.run import run_bulk_replay

        raise typer.Exit(run_bulk_replay(places, out, options, ray))
    elsewhere = next(filter(is_uri, [*places, out]), None)
    if elsewhere is not None:
        raise ConfigError(
            f"{shown(elsewhere)}: must be a path of a recording; with --ray also s3://, http:// and others"
        )
    raise typer.Exit(run_replay([local_path(place) for place in places], local_path(out), options))


@app.command(epilog="Example: `dasnet predict photo.jpg --out out`")
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    out: OutOption,
    checkpoint: CheckpointOption = None,
    threshold: ThresholdOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    band: Annotated[str, typer.Option(help="visible, infrared, or auto: infrared for grey images.")] = "auto",
) -> None:
    """Segment images; write a mask, an overlay and the boxes of each."""
    from pipeline.replay.predict import run_predict

    raise typer.Exit(run_predict(images, out, checkpoint, threshold, device, engine, band))
