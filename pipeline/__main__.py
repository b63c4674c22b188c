"""The `dasnet` command, also as `python -m pipeline`.  Signals are handled before anything large is imported."""

import sys

if sys.argv[1:2] == ["worker"] and sys.argv[-1] == "-":  # started by the supervisor
    from pipeline.runtime.parent import die_with_supervisor

    die_with_supervisor()  # before anything else is imported: that takes long

from pipeline.runtime.interruption import end_quietly


def main() -> None:
    """Run the command line; see `pipeline.cli`."""
    end_quietly()
    from pipeline.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
