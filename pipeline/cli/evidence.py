"""Commands of the evidence log."""

import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import ConfigArgument, account_name, app
from pipeline.errors import ConfigError

evidence = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Evidence of alerts.")
app.add_typer(evidence, name="evidence")


AlertArgument = Annotated[str, typer.Argument(metavar="ALERT", help="Id of the alert, as in its events.")]


@evidence.command(epilog="Example: `dasnet evidence verify site.yaml --key evidence.key`")
def verify(
    what: Annotated[
        Path,
        typer.Argument(metavar="WHAT", help="The site's YAML file, a run folder, or an exported folder or zip file."),
    ],
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="KEY", help="Public key that must have signed: a file or 64 digits; may be repeated."
        ),
    ] = None,
    heads: Annotated[
        Path | None,
        typer.Option(
            "--heads", metavar="FILE", help="A copy of the run folder's `heads.jsonl` that was kept elsewhere."
        ),
    ] = None,
) -> None:
    """Verify the evidence log, and the files and events that it names. Exit code 1: something does not fit."""
    from pipeline.config.file import load
    from pipeline.evidence.signing import read_public
    from pipeline.evidence.verify import verify_run
    from pipeline.evidence.verify_package import is_package, verify_package

    keys = [read_public(text) for text in key or ()]
    if is_package(what):
        report = verify_package(what, keys)
    elif what.is_dir():
        report = verify_run(what, what / "store.sqlite", keys, heads)
    else:
        config = load(what)
        report = verify_run(config.run_dir, config.store_path, keys, heads)
    print("\n".join(report.lines()))
    raise typer.Exit(1 if report.findings else 0)


@evidence.command(epilog="Example: `dasnet evidence export site.yaml 01K7Z3NDEKTSV4RRFFQ69G5FAV --out alert.zip`")
def export(
    config: ConfigArgument,
    alert: AlertArgument,
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="A new folder, or a new file that ends in .zip.")],
) -> None:
    """Export the evidence of one alert, with the proof of it, for somebody who does not have dasnet."""
    from pipeline.config.file import load
    from pipeline.evidence import package

    loaded = load(config)
    remarks = package.export(loaded.run_dir, loaded.store_path, alert, out)
    print("\n".join([*remarks, f"{out}: written; verify it with `dasnet evidence verify {out}`"]))


@evidence.command(epilog="Example: `dasnet evidence pin site.yaml 01K7Z3NDEKTSV4RRFFQ69G5FAV`")
def pin(config: ConfigArgument, alert: AlertArgument) -> None:
    """Keep an alert with its clip, snapshots and events, whatever retention deletes."""
    _pin(config, alert, time.time_ns())


@evidence.command(epilog="Example: `dasnet evidence unpin site.yaml 01K7Z3NDEKTSV4RRFFQ69G5FAV`")
def unpin(config: ConfigArgument, alert: AlertArgument) -> None:
    """Let retention delete an alert again."""
    _pin(config, alert, None)


def _pin(config: Path, alert: str, time_utc_ns: int | None) -> None:
    from pipeline.config.file import load
    from pipeline.store import reviews
    from pipeline.store.actions import Actor

    if not reviews.pin(load(config).store_path, alert, time_utc_ns, Actor(account_name())):
        raise ConfigError(f"no alert {alert!r} in the store; must be the id of an alert")
    print(f"{alert}: {'unpinned' if time_utc_ns is None else 'pinned'}")
