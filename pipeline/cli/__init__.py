"""`dasnet`: the command line.  Commands import their modules when they run, which keeps capture workers small.

Exit codes: 0 success, 1 failure (also of part of the input), 2 invalid usage or configuration.
"""

# isort: off
from pipeline.cli.application import app, main
from pipeline.cli import site, users, audit, rules, evidence, recordings, learning  # in the order of the help
# isort: on

__all__ = ["app", "audit", "evidence", "learning", "main", "recordings", "rules", "site", "users"]
