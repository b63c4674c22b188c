"""`dasnet rules test`: recorded tracks in; which alerts a site's rules would change, out."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model.description import read_thresholds
from pipeline.checkpoints import checkpoint_path, checkpoint_sha256
from pipeline.config.calibration import calibrations_of
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError, DasnetError
from pipeline.redaction import redact
from pipeline.replay.rule_comparison import Comparison, compare, report
from pipeline.replay.rule_inputs import DETECTIONS, Site, find_inputs, from_detections, from_events
from pipeline.runtime.progress import ProgressDisplay
from pipeline.tracking.camera_settings import orientations_of, policies_of, rules_of


@dataclass(frozen=True)
class RulesTestOptions:
    """The command-line options; see `dasnet rules test --help`."""

    camera: str | None = None
    start_utc_ns: int | None = None
    disarmed: bool = False
    json: Path | None = None
    since_utc_ns: int = 0


def run_rules_test(path: Path, inputs: Sequence[Path], options: RulesTestOptions) -> int:
    """Test the rules of a configuration file.  Return 1 if an input was broken; the others are tested all the same."""
    config = load(path)
    site = _site(config, options)
    if options.camera is not None:
        config.camera(options.camera)
    comparisons: list[Comparison] = []
    failures = 0
    files = find_inputs(inputs)
    with ProgressDisplay("recordings") as progress:
        progress.start("testing rules")
        for number, file in enumerate(files, 1):
            try:
                comparisons += _compared(file, site)
            except ConfigError:
                raise
            except DasnetError as error:
                print(redact(f"error: {error}"), file=sys.stderr)
                failures += 1
            progress.advance(number, len(files))
    print(report(comparisons))
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(comparisons), indent=2) + b"\n")
    return int(failures > 0)


def _site(config: Config, options: RulesTestOptions) -> Site:
    checkpoint = checkpoint_path(config.model.checkpoint)
    sha256 = checkpoint_sha256(checkpoint)
    return Site(
        rules_of(config),
        policies_of(config, calibrations_of(config, sha256)),
        orientations_of(config),
        read_thresholds(checkpoint),
        sha256,
        not options.disarmed,
        options.camera,
        options.start_utc_ns,
        options.since_utc_ns,
    )


def _compared(file: Path, site: Site) -> list[Comparison]:
    if file.name == DETECTIONS:
        return [Comparison(str(file.parent), True, compare(*from_detections(file, site)))]
    compared = from_events(file, site)
    return [Comparison(f"{file}: {camera}", False, compare(*events)) for camera, events in compared.items()]
