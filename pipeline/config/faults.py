"""Faults of a file that pydantic found, as lines for people: file, line, key, value, and what is expected."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from pipeline.config.uri import REFERENCE, public_uri, public_url
from pipeline.config.yaml_file import Document, Key, dotted
from pipeline.redaction import is_secret_key

_PYDANTIC_SUBJECT = re.compile(r"^\w+ should ")  # as in "Input should be a valid number"


def explain(path: Path, document: Document, fault: Any, model: type[BaseModel]) -> str:
    """Return one line: file, key, what is expected, and the value as written, so that no expanded secret is shown.

    Args:
        path: the file.
        document: its content.
        fault: one of pydantic's errors.
        model: what the file must hold.
    """
    location = fault["loc"][:-1] if fault["loc"][-1:] == ("[key]",) else fault["loc"]  # of a key itself
    section, key = _located(model, location)
    kind, context = fault["type"], fault.get("ctx", {})
    if kind.startswith("union_tag"):
        key = (*key, context["discriminator"].strip("'"))
    written = _written(document.value, key)
    prefix = place(path, document, key)
    if kind == "extra_forbidden":
        # An unquoted comma within braces ends a password; what follows is not meant as a key.
        name = dotted(key) if written is not None else dotted((*key[:-1], "a key without a value"))
        return f"{prefix}{name}: unknown key; must be one of {', '.join(_keys(section))}"
    if kind in ("missing", "union_tag_not_found"):
        return f"{prefix}{dotted(key)}: is required"
    if kind == "union_tag_invalid":
        return f"{prefix}{dotted(key)}: must be one of {context['expected_tags']}{_given(key, written)}"
    message = _PYDANTIC_SUBJECT.sub("must ", fault["msg"].removeprefix("Value error, "))
    return f"{prefix}{dotted(key)}: {message}{_given(key, written)}"


def _keys(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _written(value: Any, key: Key) -> Any:
    """Return the value at `key`, or None where there is none."""
    for part in key:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _given(key: Key, written: Any) -> str:
    if written is None or isinstance(written, dict | list):
        return ""
    text, name = str(written), str(key[-1]) if key else ""
    if name == "url":
        return f" (given: {public_url(text)!r})"
    if is_secret_key(name) and REFERENCE.sub("", text):
        return ""
    is_address = name == "uri" or (isinstance(written, str) and ":" in written)
    return f" (given: {public_uri(text) if is_address else text!r})"


def place(path: Path, document: Document, key: Key) -> str:
    """Return file and line of a key, as a prefix."""
    line = document.line(key)
    return f"{path}: " if line is None else f"{path}:{line}: "


def _located(model: type[BaseModel], location: Key) -> tuple[type[BaseModel], Key]:
    """Return the section that holds a location, and its key: without the tags by which pydantic names union members."""
    sections: tuple[type[BaseModel], ...] = (model,)
    key: Key = ()
    section = model
    for part in location:
        if isinstance(part, str) and len(sections) > 1:
            sections = tuple(each for each in sections if get_args(each.model_fields["type"].annotation) == (part,))
            continue
        key = (*key, part)
        if isinstance(part, str):
            section = sections[0] if sections else section
            field = section.model_fields.get(part)
            sections = tuple(_models_in(field.annotation)) if field else ()
    return section, key


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
