"""Commands over the rules of a site, and whether it is armed."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import ConfigArgument, account_name, app

rules = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Test the rules of a site.")
app.add_typer(rules, name="rules")


@rules.command(name="test", epilog="Example: `dasnet rules test site.yaml out`")
def test_rules(
    config: ConfigArgument,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Output folders of `dasnet replay`; or run folders, store.sqlite or events.jsonl, which tell less.",
        ),
    ],
    camera: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The site's camera that recorded them; default: as they say, or the only one."),
    ] = None,
    start_time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Wall-clock time of the first frame, ISO 8601; default: the recording's."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Leave out stored events before this time; needs a run folder or its events."
        ),
    ] = None,
    disarmed: Annotated[bool, typer.Option("--disarmed", help="Test the rules as they are while disarmed.")] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all alerts as JSON.")] = None,
) -> None:
    """Replay recorded tracks through the rules of a site; print which alerts appear, disappear or change."""
    from pipeline.replay.options import start_time as parsed_time
    from pipeline.replay.rules_test import RulesTestOptions, run_rules_test

    start_utc_ns = parsed_time(start_time) if start_time else None
    since_utc_ns = parsed_time(since, "--since") if since else 0
    options = RulesTestOptions(camera, start_utc_ns, disarmed, json, since_utc_ns)
    raise typer.Exit(run_rules_test(config, paths, options))


@app.command(epilog="Example: `dasnet arm site.yaml`")
def arm(config: ConfigArgument) -> None:
    """Arm a site: its rules with `needs_arming` apply, at once and after every restart, until it is disarmed."""
    from pipeline.runtime.arming import set_armed_site
    from pipeline.store.actions import Actor

    print(set_armed_site(config, armed=True, by=Actor(account_name())))


@app.command(epilog="Example: `dasnet disarm site.yaml`")
def disarm(config: ConfigArgument) -> None:
    """Disarm a site: its rules with `needs_arming` do not apply, until it is armed again."""
    from pipeline.runtime.arming import set_armed_site
    from pipeline.store.actions import Actor

    print(set_armed_site(config, armed=False, by=Actor(account_name())))
