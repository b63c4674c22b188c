"""The JSON file of `dasnet evaluate-clips`; files are pooled and compared.

    dasnet evaluate-clips hard --data FOLDER --checkpoint before.safetensors --json before.json
    dasnet evaluate-clips hard --data FOLDER --checkpoint after.safetensors --json after.json
    python3 scripts/clip_report.py after.json --against before.json

Several files are pooled, for cross-validation: each fold's clips by the checkpoint that was not trained on them.
"""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import ConfigError
from training.command_line import exit_code, program
from training.evaluation.clip_metrics import RATIOS
from training.evaluation.clip_results import (
    ClipResult,
    as_row,
    by_size,
    compared,
    figure,
    from_row,
    grouped,
    total,
)
from training.evaluation.clip_tables import difference_table, tables
from training.evaluation.label_margins import LABEL_MARGIN_PX


@dataclass(frozen=True)
class ClipReport:
    """Results of all clips, and what they were measured with."""

    checkpoint: str  # SHA-256; several, separated by spaces, where reports were pooled
    engine: str
    clips: list[ClipResult]

    def write(self, path: Path) -> None:
        """Write the JSON file: a row per clip and scale, and all that follows from them; unknown values are null."""
        recorded = grouped(one for one in self.clips if one.scale == 1)
        ladder = grouped(one for one in self.clips if one.metrics.drone_clips)
        content = {
            "dasnet": __version__,
            "checkpoint": self.checkpoint,
            "engine": self.engine,
            "label_margin_px": LABEL_MARGIN_PX,
            "groups": {name: _group(results) for name, results in recorded.items()},
            "ladder": {name: _sizes(results) for name, results in ladder.items()} if _has_ladder(self.clips) else {},
            "clips": [as_row(one) for one in self.clips],
        }
        path.write_text(json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _has_ladder(results: Iterable[ClipResult]) -> bool:
    return any(one.scale != 1 for one in results)


def _group(results: Sequence[ClipResult]) -> dict[str, Any]:
    one = total(results)
    figures = {name: asdict(figure(name, results)) for name in RATIOS}
    counts = {name: value for name, value in vars(one).items() if name != "delays_s"}
    return {"counts": counts, "figures": figures, "delay_s": one.delay_s, "by_size": _sizes(results)}


def _sizes(results: Sequence[ClipResult]) -> dict[str, Any]:
    return {size: asdict(one) for size, one in by_size(results).items()}


def _without_nan(value: Any) -> Any:
    """Return JSON content with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_report(path: Path) -> ClipReport:
    """Return a report; raise ConfigError where the file is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return ClipReport(content["checkpoint"], content["engine"], [from_row(row) for row in content["clips"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"results {path}: cannot be read ({error!r}); expected the JSON file of `dasnet evaluate-clips`"
        ) from error


def pooled(paths: Sequence[Path]) -> ClipReport:
    """Return the reports of several files as one; raise ConfigError where two hold the same clip."""
    reports = {path: read_report(path) for path in paths}
    place: dict[tuple[object, ...], Path] = {}
    for path, report in reports.items():
        for one in report.clips:
            if (other := place.setdefault((*one.recording, one.scale), path)) != path:
                raise ConfigError(f"results {path}: clip {one.name} is in {other} too; expected each clip once")
    checkpoints = dict.fromkeys(report.checkpoint for report in reports.values())
    engines = dict.fromkeys(report.engine for report in reports.values())
    clips = [one for report in reports.values() for one in report.clips]
    return ClipReport(" ".join(checkpoints), " ".join(engines), clips)


def main() -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files of `dasnet evaluate-clips`")
    parser.add_argument("--against", type=Path, nargs="+", default=[], help="earlier results, to compare with")
    parser.add_argument("--json", type=Path, help="write the pooled results to this file")
    options = parser.parse_args()
    return exit_code(lambda: run(options.results, options.against, options.json))


def run(paths: Sequence[Path], against: Sequence[Path], out: Path | None) -> None:
    """Print the tables of pooled results, and of the differences; raise ConfigError for unusable files."""
    report = pooled(paths)
    print(tables(report.clips))
    if out:
        report.write(out)
    if against:
        differences, others = compared(pooled(against).clips, report.clips)
        print(f"\n{difference_table(differences)}")
        if others:
            print(f"\nnot compared, since only one side has them: {', '.join(others)}")


if __name__ == "__main__":
    sys.exit(main())
