"""Changes zones and privacy masks of a camera in the text of a site's YAML file.  Pure.

Only the changed entries are rewritten: every other byte, comments too, stays as it is.  The result is parsed and must
differ from before in nothing else; where that cannot be (aliases, anchors), the change is rejected.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.config.yaml_file import parse_yaml
from pipeline.errors import ConfigError
from pipeline.geometry import Point

Polygon = Sequence[Point]
ZONES, IGNORE = "zones", "ignore"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Areas:
    """What is drawn on a camera's frame, in frame pixels: zones by name, and privacy masks."""

    zones: Mapping[str, Polygon]
    ignore: Sequence[Polygon]


@dataclass(frozen=True)
class _Edit:
    """Characters `start` to `end` of the text become `new`."""

    start: int
    end: int
    new: str


def areas_in(text: str, source: str, camera: str) -> Areas:
    """Return a camera's areas as the text has them; errors name `source`.  Raise ConfigError."""
    entry = _entry(parse_yaml(text, source).value, source, camera)
    try:
        zones = {str(name): _pairs(points) for name, points in (entry.get(ZONES) or {}).items()}
        return Areas(zones, [_pairs(points) for points in entry.get(IGNORE) or ()])
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(f"{source}: zones or ignore of camera {camera!r}: must be lists of points [x, y]") from None


def with_areas(text: str, source: str, camera: str, areas: Areas) -> str:
    """Return the text with other areas of a camera.  Raise ConfigError."""
    expected = _unshared(parse_yaml(text, source).value)
    entry = _entry(expected, source, camera)
    for key, value in ((ZONES, _lists(areas.zones)), (IGNORE, [_points(each) for each in areas.ignore])):
        if value or key in entry:
            entry[key] = value
    by_hand = ConfigError(
        f"{source}: camera {camera!r} shares zones or ignore by an alias; must be changed in the file"
    )
    node = _camera_node(text, camera)
    if node is None:
        raise by_hand
    edits = _Editor(text, node).edits(areas)
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end), reverse=True):
        text = text[: edit.start] + edit.new + text[edit.end :]
    try:
        result = parse_yaml(text, source).value
    except ConfigError:
        raise by_hand from None
    if _without_empty(result) != _without_empty(expected):
        raise by_hand
    return text


class _Editor:
    """Finds the edits of one camera's entry."""

    def __init__(self, text: str, camera: yaml.MappingNode) -> None:
        self._text = text
        self._camera = camera
        self._newline = "\r\n" if "\r\n" in text else "\n"

    def edits(self, areas: Areas) -> list[_Edit]:
        """Return the edits that give the camera these areas."""
        entries = {name.value: (name, value) for name, value in self._camera.value}
        edits: list[_Edit] = []
        added: list[tuple[str, Any]] = []
        for key, wanted in ((ZONES, dict(areas.zones)), (IGNORE, list(areas.ignore))):
            if key not in entries:
                added += [(key, wanted)] if wanted else []
            elif isinstance(wanted, dict) and wanted and self._is_block_map(entries[key][1]):
                edits += self._zone_edits(*entries[key], wanted)
            elif _value(entries[key][1]) != (_lists(wanted) if isinstance(wanted, dict) else [*map(_points, wanted)]):
                edits.append(self._changed(*entries[key], wanted))
        return edits + ([self._added(added)] if added else [])

    def _zone_edits(self, key: yaml.Node, zones: yaml.MappingNode, wanted: dict[str, Polygon]) -> list[_Edit]:
        present = {name.value: (name, value) for name, value in zones.value}
        edits = []
        for name, (name_node, value) in present.items():
            if name not in wanted or _value(value) != _points(wanted[name]):
                edits.append(self._changed(name_node, value, wanted.get(name, ())))
        indent = " " * zones.start_mark.column
        new = [f"{indent}{_name(name)}: {_flow(points)}{self._newline}" for name, points in wanted.items()
               if name not in present]  # fmt: skip
        at = self._line_end(key.end_mark.index)
        return edits + ([_Edit(at, at, "".join(new))] if new else [])

    def _changed(self, key: yaml.Node, value: yaml.Node, wanted: Any) -> _Edit:
        """Return the edit that gives a key another value; without a value it is removed, with its lines."""
        end = self._end(value)
        start = self._text.rfind("\n", 0, key.start_mark.index) + 1
        has_own_line = not self._text[start : key.start_mark.index].strip() and not self._camera.flow_style
        if not wanted and has_own_line:
            return _Edit(start, self._line_end(end), "")
        return _Edit(key.end_mark.index, end, f": {_flow(wanted)}")

    def _added(self, entries: list[tuple[str, Any]]) -> _Edit:
        last = self._end(self._camera)
        if self._camera.flow_style:
            at = self._end(self._camera.value[-1][1])
            return _Edit(at, at, "".join(f", {key}: {_flow(wanted)}" for key, wanted in entries))
        at, indent = self._line_end(last), " " * self._camera.start_mark.column
        lines = []
        for key, wanted in entries:
            if isinstance(wanted, dict):
                lines += [f"{key}:", *(f"  {_name(name)}: {_flow(points)}" for name, points in wanted.items())]
            else:
                lines += [f"{key}:", *(f"  - {_flow(points)}" for points in wanted)]
        first = "" if self._text[:at].endswith("\n") else self._newline
        return _Edit(at, at, first + "".join(f"{indent}{line}{self._newline}" for line in lines))

    def _is_block_map(self, node: yaml.Node) -> bool:
        return isinstance(node, yaml.MappingNode) and not node.flow_style and bool(node.value)

    def _end(self, node: yaml.Node) -> int:
        """Return where a node's own text ends: that of a block does not reach to the next node."""
        if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
            return self._end(node.value[-1][1])
        if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
            return self._end(node.value[-1])
        start = int(node.start_mark.index)
        return start + len(self._text[start : node.end_mark.index].rstrip())

    def _line_end(self, index: int) -> int:
        """Return where the next line begins."""
        found = self._text.find("\n", index)
        return len(self._text) if found < 0 else found + 1


def _entry(value: Any, source: str, camera: str) -> dict[str, Any]:
    cameras = value.get("cameras") if isinstance(value, dict) else None
    for entry in cameras if isinstance(cameras, list) else ():
        if isinstance(entry, dict) and entry.get("id") == camera:
            return entry
    raise ConfigError(f"{source}: no camera {camera!r}; must be an entry of cameras with this id")


def _camera_node(text: str, camera: str) -> yaml.MappingNode | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = dict(_keys(root)).get("cameras") if isinstance(root, yaml.MappingNode) else None
    for entry in entries.value if isinstance(entries, yaml.SequenceNode) else ():
        named = dict(_keys(entry)).get("id") if isinstance(entry, yaml.MappingNode) else None
        if isinstance(named, yaml.ScalarNode) and named.value == camera:
            return entry  # type: ignore[no-any-return]
    return None


def _unshared(value: Any) -> Any:
    """Return a copy in which what an alias refers to is a copy of its own."""
    if isinstance(value, dict):
        return {name: _unshared(each) for name, each in value.items()}
    return [_unshared(each) for each in value] if isinstance(value, list) else value


def _keys(node: yaml.MappingNode) -> list[tuple[str, yaml.Node]]:
    return [(name.value, value) for name, value in node.value if isinstance(name, yaml.ScalarNode)]


def _value(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node, Dumper=yaml.SafeDumper))


def _points(points: Any) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in points]


def _pairs(points: Any) -> list[Point]:
    return [(float(x), float(y)) for x, y in points]


def _lists(zones: Mapping[str, Polygon]) -> dict[str, list[list[float]]]:
    return {name: _points(points) for name, points in zones.items()}


def _without_empty(value: Any) -> Any:
    """Return a site without cameras' empty areas, which mean the same as none."""
    for entry in value["cameras"]:
        if isinstance(entry, dict):
            for key in (ZONES, IGNORE):
                if not entry.get(key, True):
                    del entry[key]
    return value


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_name(name)}: {_flow(points)}" for name, points in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_flow(each) for each in value) + "]"
    return str(int(value)) if value == int(value) else repr(round(value, 2))


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and yaml.safe_load(name) == name else f'"{name}"'
