"""Read a YAML file into plain values, with the line of every key.

Duplicate keys, infinite numbers, and aliases or nesting that would exhaust the memory are rejected, naming the line.
No message quotes a value, which may be a secret.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 100_000  # with aliases expanded
MAX_INTEGER = 2**63 - 1
CHARACTERS_PER_NODE = 100  # a long string counts as several nodes
_TAG = "tag:yaml.org,2002:"
MERGE, _MAPPING, _SEQUENCE = f"{_TAG}merge", f"{_TAG}map", f"{_TAG}seq"
_SCALARS = ("str", "int", "float", "bool", "null", "timestamp")

Key = tuple[str | int, ...]

_PLAIN_NAME = re.compile(r"[\w .-]{1,64}|<<")
_PUNCTUATION = re.compile(r"'([^'\w]{1,3}|<[a-z ]+>)'|\"'\"")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 100 times as fast, where available


class Document(NamedTuple):
    """The content of a YAML file."""

    value: Any
    lines: dict[Key, int]  # 1-based, of mapping keys and list items, except those inserted by a merge (<<)

    def line(self, key: Key) -> int | None:
        """Return the line of the key, or of the nearest enclosing one."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key)


class _Fault(Exception):
    def __init__(self, line: int | None, text: str) -> None:
        super().__init__(text)
        self.line = line


def read_yaml(path: Path) -> Document:
    """Read a file.

    Raises:
        ConfigError: With one line: the place, and what is expected.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise ConfigError(f"{path}: cannot be read (must be UTF-8 text)") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: cannot be read (must have at most {MAX_BYTES} bytes)")
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Document:
    """Parse a text like `read_yaml`; messages name `source` instead of a file."""
    try:
        _reject_bombs(text)
        loader = _LOADER(text)
        node = loader.get_single_node()
        lines: dict[Key, int] = {}
        if node is None:
            return Document(None, lines)
        _inspect(loader, node, (), lines)
        return Document(loader.construct_document(node), lines)
    except _Fault as fault:
        line, problem = fault.line, str(fault)
    except yaml.YAMLError as error:
        line, problem = _yaml_fault(error)
    place = source if line is None or "\n" not in text else f"{source}:{line}"
    raise ConfigError(f"{place}: {problem}")  # outside `except`: YAML's error quotes the file


def dotted(key: Key) -> str:
    """Return the key as people write it, e.g. `cameras[0].uri`; parts that may belong to a secret become `***`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _PLAIN_NAME.fullmatch(str(part)) else "***"
            text += f".{shown}" if text else str(shown)
    return text or "the file"


def _reject_bombs(text: str) -> None:
    """Limit depth and size, with aliases expanded, before any value is constructed."""
    open_nodes: list[tuple[str | None, int, int]] = []  # anchor, number of nodes within, depth below
    known: dict[str, tuple[int, int]] = {}  # by anchor of a finished node: number of nodes, height
    for event in yaml.parse(text, Loader=_LOADER):
        assert event.start_mark is not None
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1, 0))
            _bound(line, 1, len(open_nodes))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, nodes, height = open_nodes.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, nodes, height = event.anchor, 1 + len(event.value) // CHARACTERS_PER_NODE, 0
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _, _ in open_nodes):
                raise _Fault(line, "an alias is inside the node it refers to; must refer to an earlier node")
            anchor, (nodes, height) = None, known.get(event.anchor or "", (1, 0))  # unknown ones are rejected later
        else:
            continue
        if anchor is not None:
            known[anchor] = nodes, height
        if open_nodes:
            outer, within, below = open_nodes[-1]
            open_nodes[-1] = outer, within + nodes, max(below, height + 1)
            _bound(line, within + nodes, len(open_nodes) + height)


def _bound(line: int, nodes: int, depth: int) -> None:
    if nodes > MAX_NODES:
        raise _Fault(line, f"too many values (aliases expanded); must be at most {MAX_NODES}")
    if depth > MAX_DEPTH:
        raise _Fault(line, f"nested too deeply; must be at most {MAX_DEPTH} levels")


def _inspect(loader: Any, node: yaml.Node, key: Key, lines: dict[Key, int]) -> None:
    """Record the lines of all keys; reject duplicates and nodes that are not plain values."""
    if isinstance(node, yaml.ScalarNode):
        _constructed(loader, node, key)
    elif node.tag not in (_MAPPING, _SEQUENCE):
        raise _Fault(_line(node), f"{_prefix(key)}unknown tag; must be a plain value")
    elif isinstance(node, yaml.MappingNode):
        _inspect_mapping(loader, node, key, lines)
    else:
        for index, item in enumerate(node.value):
            lines[(*key, index)] = _line(item)
            _inspect(loader, item, (*key, index), lines)


def _inspect_mapping(loader: Any, node: yaml.MappingNode, key: Key, lines: dict[Key, int]) -> None:
    seen: dict[object, int] = {}
    for name, value in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise _Fault(_line(name), f"{_prefix(key)}a key is a list or mapping; must be a name")
        inner, line = (*key, name.value), _line(name)
        is_merge = name.tag == MERGE  # merged keys may be overridden
        meant = MERGE if is_merge else _constructed(loader, name, inner)
        if meant in seen:
            numbers = f"lines {seen[meant]} and {line}" if seen[meant] != line else f"line {line}"
            raise _Fault(line, f"{dotted(inner)}: duplicate key in {numbers}; must be unique")
        seen[meant] = line
        if not is_merge:
            lines[inner] = line
        _inspect(loader, value, inner, lines)


def _constructed(loader: Any, node: yaml.ScalarNode, key: Key) -> Any:
    line, name, kind = _line(node), _prefix(key), node.tag.removeprefix(_TAG)
    if kind not in _SCALARS:
        raise _Fault(line, f"{name}unknown tag; must be a plain value")
    try:
        value = loader.construct_object(node)
    except (ValueError, ArithmeticError, LookupError, AttributeError):  # too many digits, an impossible date
        raise _Fault(line, f"{name}must be a valid {kind}, or a string in quotes") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _Fault(line, f"{name}must be a finite number")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise _Fault(line, f"{name}must be an integer of at most {MAX_INTEGER}")
    return value


def _prefix(key: Key) -> str:
    return f"{dotted(key)}: " if key else ""


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _yaml_fault(error: yaml.YAMLError) -> tuple[int | None, str]:
    """Return the line and the problem, quoting nothing of the file but punctuation."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return None, "invalid YAML: holds characters that YAML does not allow"
    problem = _PUNCTUATION.sub(lambda found: found[0].replace("'", "\0").replace('"', "\0"), error.problem or "")
    problem = re.sub(r"(['\"]).*['\"]", "a name", problem).replace("\0", "'")
    mark = error.problem_mark
    return mark.line + 1, f"invalid YAML: {problem} (column {mark.column + 1})"
