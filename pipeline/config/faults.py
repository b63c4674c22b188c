"""Faults of a file that pydantic found, as lines for people: file, line, key, value, and what is expected."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from pipeline.config.uri import public_uri
from pipeline.config.yaml_file import Document, Key, dotted

_PYDANTIC_SUBJECT = re.compile(r"^\w+ should ")  # as in "Input should be a valid number"


def explain(path: Path, document: Document, fault: Any, model: type[BaseModel]) -> str:
    """Return one line: file, key, what is expected, and the value as written, so that no expanded secret is shown.

    Args:
        path: the file.
        document: its content.
        fault: one of pydantic's errors.
        model: what the file must hold.
    """
    key: Key = fault["loc"]
    written = document.value
    for part in key:
        try:
            written = written[part]
        except (KeyError, IndexError, TypeError):
            written = None
            break
    prefix = place(path, document, key)
    if fault["type"] == "extra_forbidden":
        # An unquoted comma within braces ends a password; what follows is not meant as a key.
        name = dotted(key) if written is not None else dotted((*key[:-1], "a key without a value"))
        return f"{prefix}{name}: unknown key; must be one of {', '.join(_section(model, key[:-1]).model_fields)}"
    if fault["type"] == "missing":
        return f"{prefix}{dotted(key)}: is required"
    message = _PYDANTIC_SUBJECT.sub("must ", fault["msg"].removeprefix("Value error, "))
    return f"{prefix}{dotted(key)}: {message}{_given(key, written)}"


def _given(key: Key, written: Any) -> str:
    if written is None or isinstance(written, dict | list):
        return ""
    is_address = key[-1:] == ("uri",) or (isinstance(written, str) and ":" in written)
    return f" (given: {public_uri(str(written)) if is_address else str(written)!r})"


def place(path: Path, document: Document, key: Key) -> str:
    """Return file and line of a key, as a prefix."""
    line = document.line(key)
    return f"{path}: " if line is None else f"{path}:{line}: "


def _section(model: type[BaseModel], key: Key) -> type[BaseModel]:
    """Return the model of the section at `key`."""
    section = model
    for name in key:
        if isinstance(name, str):
            section = next(_models_in(section.model_fields[name].annotation))
    return section


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
