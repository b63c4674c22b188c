"""Command-line arguments that the evaluation programs share."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from training.command_line import exit_code, program
from training.datasets import SPLITS
from training.evaluation.clip_sets import REPLAYS


def parse_with_data(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, with `--data` for the folder of labelled clips."""
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("DASNET_CLIPS"), help="folder of the labelled clips"
    )
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data FOLDER, or DASNET_CLIPS, is required")
    return options


def parse_with_replays(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, with data sets, checkpoint, and the folder of replays of `dasnet evaluate-clips`."""
    parser.add_argument(
        "--data", type=Path, action="append", help="folder of labelled clips; several times for several"
    )
    parser.add_argument("--evaluation", type=Path, default=REPLAYS, help="output folder of `dasnet evaluate-clips`")
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    options = parser.parse_args()
    options.data = options.data or [Path(part) for part in os.environ.get("DASNET_CLIPS", "").split(os.pathsep) if part]
    if not options.data:
        parser.error("--data FOLDER, or DASNET_CLIPS, is required")
    return options


def run_plot(description: str | None, run: Callable[[list[str], Path, Path | None, list[Path], Path], None]) -> int:
    """Run a program that plots stored replays: `run(sets, plot, checkpoint, data, evaluation)`."""
    parser = program(description)
    parser.add_argument("sets", nargs="+", metavar="SET", choices=SPLITS, help=f"of {', '.join(SPLITS)}")
    parser.add_argument("plot", type=Path)
    options = parse_with_replays(parser)
    return exit_code(lambda: run(options.sets, options.plot, options.checkpoint, options.data, options.evaluation))
