"""Plain mappings, as YAML gives them, to dataclasses whose annotations say what is allowed.

In: a mapping, and where it is from.  Out: the dataclass.  A field may be a bool, int, float, str, list, dict, a Literal
of strings, another dataclass, or one of several, told apart by their field `kind`.
"""

import math
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pipeline.errors import ConfigError

T = TypeVar("T")


def parsed(kind: type[T], content: object, source: str) -> T:
    """A dataclass from a mapping whose keys are its fields and whose values are of their types."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: is {type(content).__name__}; allowed: a mapping of settings")
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    for key, value in content.items():
        if key not in known:
            raise ConfigError(f"{source}: unknown key {key!r} = {value!r}; allowed: {', '.join(sorted(known))}")
    missing = [n for n, item in known.items() if item.default is item.default_factory is MISSING and n not in content]
    if missing:
        raise ConfigError(f"{source}: {missing[0]} is missing; allowed: {hints[missing[0]].__name__}")
    return kind(**{key: _value(hints[key], value, source, key) for key, value in content.items()})


def _value(wanted: Any, value: Any, source: str, key: str) -> Any:
    if get_origin(wanted) is UnionType:  # one of several mappings, told apart by their kind
        kinds = {get_type_hints(option)["kind"].__args__[0]: option for option in get_args(wanted)}
        named = value.get("kind") if isinstance(value, dict) else value
        if not isinstance(value, dict) or named not in kinds:
            raise ConfigError(f"{source}: {key}.kind = {named!r}; allowed: {', '.join(kinds)}")
        wanted = kinds[named]
    if isinstance(wanted, type) and is_dataclass(wanted):
        return parsed(wanted, value, f"{source}: {key}")
    if get_origin(wanted) is Literal:
        require(value in get_args(wanted), source, key, value, ", ".join(get_args(wanted)))
        return value
    plain = get_origin(wanted) or wanted
    if plain is float and isinstance(value, str | int) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            value = float(value)  # YAML 1.1 reads 1e-4, without a point, as text
    is_right = isinstance(value, plain) and (plain is bool or not isinstance(value, bool))
    if isinstance(value, float):
        require(math.isfinite(value), source, key, value, "a finite number")
    require(is_right, source, key, value, plain.__name__)
    return value


def require(holds: bool, source: str, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{source}: {key} = {value!r}; allowed: {allowed}")
