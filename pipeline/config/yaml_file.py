"""A YAML file that a person wrote in; plain values, and the line of every key, out.

What YAML allows and nobody means is refused at once, naming the line: a key that stands twice, infinite numbers, and
aliases or nesting that would fill the memory.  No text made here quotes a value, which may be a secret.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 100_000  # aliases counted as what they stand for
MAX_INTEGER = 2**63 - 1
CHARACTERS_A_NODE = 100  # a long text counts as several
_TAG = "tag:yaml.org,2002:"
MERGE, _MAPPING, _SEQUENCE = f"{_TAG}merge", f"{_TAG}map", f"{_TAG}seq"
_SCALARS = ("str", "int", "float", "bool", "null", "timestamp")

Key = tuple[str | int, ...]

_PLAIN_NAME = re.compile(r"[\w .-]{1,64}|<<")
_PUNCTUATION = re.compile(r"'([^'\w]{1,3}|<[a-z ]+>)'|\"'\"")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a hundred times as fast, where PyYAML was built with it


class Document(NamedTuple):
    value: Any
    lines: dict[Key, int]  # 1-based, of mapping keys and list items; none for what a merge (<<) brought in

    def line(self, key: Key) -> int | None:
        """The line of the key, or of the nearest one around it."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key)


class _Fault(Exception):
    def __init__(self, line: int | None, text: str) -> None:
        super().__init__(text)
        self.line = line


def read_yaml(path: Path) -> Document:
    """Raise ConfigError with one line that says where and what."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise ConfigError(f"{path}: cannot be read (is not UTF-8 text)") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: cannot be read (must have at most {MAX_BYTES} bytes)")
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Document:
    """As `read_yaml`; `source` is named where the file would be."""
    try:
        _refuse_bombs(text)
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
    raise ConfigError(f"{place}: {problem}")  # here, without the context of an error whose text quotes the file


def dotted(key: Key) -> str:
    """The key as people write it, e.g. `cameras[0].uri`.  What is no name may be a piece of a secret: `***`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _PLAIN_NAME.fullmatch(str(part)) else "***"
            text += f".{shown}" if text else str(shown)
    return text or "the file"


def _refuse_bombs(text: str) -> None:
    """Before anything is built: depth and size, aliases counted as what they stand for."""
    open_nodes: list[tuple[str | None, int, int]] = []  # anchor, nodes within, depth below
    known: dict[str, tuple[int, int]] = {}  # of finished nodes, by anchor: nodes, height
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
            anchor, nodes, height = event.anchor, 1 + len(event.value) // CHARACTERS_A_NODE, 0
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _, _ in open_nodes):
                raise _Fault(line, "an alias stands inside of what it refers to; must refer to what stands before")
            anchor, (nodes, height) = None, known.get(event.anchor or "", (1, 0))  # an unknown one is refused later
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
        raise _Fault(line, f"too many values, aliases counted as what they stand for; must be {MAX_NODES} or less")
    if depth > MAX_DEPTH:
        raise _Fault(line, f"is nested too deeply; must be {MAX_DEPTH} levels or less")


def _inspect(loader: Any, node: yaml.Node, key: Key, lines: dict[Key, int]) -> None:
    """Note the lines of all keys; refuse one that stands twice, and what no plain value can be made of."""
    if isinstance(node, yaml.ScalarNode):
        _constructed(loader, node, key)
    elif node.tag not in (_MAPPING, _SEQUENCE):
        raise _Fault(_line(node), f"{_named(key)}has an unknown tag; must be a plain value")
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
            raise _Fault(_line(name), f"{_named(key)}holds a key that is a list or mapping; must be a name")
        inner, line = (*key, name.value), _line(name)
        is_merge = name.tag == MERGE  # what it brings in may be replaced
        meant = MERGE if is_merge else _constructed(loader, name, inner)
        if meant in seen:
            numbers = f"lines {seen[meant]} and {line}" if seen[meant] != line else f"line {line}"
            raise _Fault(line, f"{dotted(inner)}: stands twice, in {numbers}; must stand once")
        seen[meant] = line
        if not is_merge:
            lines[inner] = line
        _inspect(loader, value, inner, lines)


def _constructed(loader: Any, node: yaml.ScalarNode, key: Key) -> Any:
    line, name, kind = _line(node), _named(key), node.tag.removeprefix(_TAG)
    if kind not in _SCALARS:
        raise _Fault(line, f"{name}has an unknown tag; must be a plain value")
    try:
        value = loader.construct_object(node)
    except (ValueError, ArithmeticError, LookupError, AttributeError):  # too many digits, a date that is none
        raise _Fault(line, f"{name}is no {kind} that can be read; must be in quotes, if a text") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _Fault(line, f"{name}must be a finite number")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise _Fault(line, f"{name}must be an integer of {MAX_INTEGER} or less")
    return value


def _named(key: Key) -> str:
    return f"{dotted(key)}: " if key else ""


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _yaml_fault(error: yaml.YAMLError) -> tuple[int | None, str]:
    """Line, and what is wrong without what is written there, but for punctuation."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return None, "is not valid YAML: it holds characters that are not allowed"
    problem = _PUNCTUATION.sub(lambda found: found[0].replace("'", "\0").replace('"', "\0"), error.problem or "")
    problem = re.sub(r"(['\"]).*['\"]", "a name", problem).replace("\0", "'")
    mark = error.problem_mark
    return mark.line + 1, f"is not valid YAML: {problem} (column {mark.column + 1})"
