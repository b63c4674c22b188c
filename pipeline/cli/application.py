"""The application that the commands register with, the options that they share, and how errors end it."""

import getpass
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from pipeline import stdio
from pipeline.errors import DasnetError
from pipeline.redaction import redact

# Must be set before torch is imported: its CPU allocator then asks for huge pages, which halves inference time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Counter-UAV video surveillance: cameras or recordings in, UAV tracks and alerts out.",
)

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The site's YAML file.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder; created if needed.")]
CheckpointOption = Annotated[Path | None, typer.Option(help="The checkpoint, or dasnet or dasnet-s; default: dasnet.")]
ThresholdOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Segmentation threshold; default: the checkpoint's.")
]
DeviceOption = Annotated[str, typer.Option(help="Inference device: auto, cpu, cuda, cuda:N.")]
HostOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The edge host whose cameras run here, or one of `hosts`; default: the only inference host.",
    ),
]
EngineOption = Annotated[str, typer.Option(help="Inference engine: auto, native, torch, cuda, reference.")]


def account_name() -> str:
    """Return the name of whoever runs the command, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in a container
        return ""


def main() -> None:
    """Run a command; report a known error as one line on stderr with its exit code, any other as a traceback.

    Secrets are redacted in both.
    """
    from model.errors import ModelError  # cheap: imports no torch

    stdio.protect()
    try:
        app(prog_name="dasnet")
    except (DasnetError, ModelError) as error:
        print(redact(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception:
        if "structlog" in sys.modules and sys.modules["structlog"].is_configured():
            raise  # the log records it
        print(redact(traceback.format_exc()), file=sys.stderr)
        sys.exit(1)
