"""What the programs of training share: a parser from their docstring, and how known errors end them."""

import argparse
import sys
from collections.abc import Callable

from model.errors import ModelError
from pipeline.errors import DasnetError


def program(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose description is a module's docstring."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def exit_code(work: Callable[[], None]) -> int:
    """Return 0, or report a known failure in one line and return its exit code."""
    try:
        work()
    except (DasnetError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
