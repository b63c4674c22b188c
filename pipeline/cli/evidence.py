"""Commands of the evidence log."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import app

evidence = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Evidence of alerts.")
app.add_typer(evidence, name="evidence")


@evidence.command(epilog="Example: `dasnet evidence verify site.yaml --key evidence.key`")
def verify(
    what: Annotated[Path, typer.Argument(metavar="WHAT", help="The site's YAML file, or a run folder.")],
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="KEY", help="Public key that must have signed: a file, or 64 digits; repeatable."
        ),
    ] = None,
) -> None:
    """Verify the evidence log, and the files and events that it names. Exit code 1: something does not fit."""
    from pipeline.config.file import load
    from pipeline.evidence.signing import read_public
    from pipeline.evidence.verify import verify_run

    keys = [read_public(text) for text in key or ()]
    if what.is_dir():
        report = verify_run(what, what / "store.sqlite", keys)
    else:
        config = load(what)
        report = verify_run(config.run_dir, config.store_path, keys)
    print("\n".join(report.lines()))
    raise typer.Exit(1 if report.findings else 0)
