"""The command that shows the audit log."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline.cli.application import ConfigArgument, app


@app.command(epilog="Example: `dasnet audit site.yaml --user anna --limit 20`")
def audit(
    config: ConfigArgument,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="What this user did; default: all.")] = None,
    alert: Annotated[str | None, typer.Option(metavar="ID", help="What was done with this alert.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="The newest ones; older ones are left out.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what people did on the console: who, when, from which address, what, and on which alert; oldest first."""
    import msgspec

    from pipeline.config.file import load
    from pipeline.store.history_reader import ActionFilter, HistoryReader

    with HistoryReader(load(config).store_path) as reader:
        found = reader.search_actions(ActionFilter(user, alert), limit)[::-1]
    for action in found:
        if as_json:
            print(msgspec.json.encode(action).decode())
            continue
        time = datetime.fromtimestamp(action.time_utc_ns / 1e9, UTC).isoformat(timespec="seconds")
        who = f"{action.user or '-'} from {action.address or 'this host'}"
        print("  ".join(filter(None, (time, who, action.kind, action.alert, _printable(action.detail)))))


def _printable(text: str) -> str:
    """Return a note without what a terminal would obey."""
    return "".join(each if each.isprintable() else "�" for each in text)
