"""The generated part of docs/configuration.md: a table for each section of a site's file, from the models.

In: the models' JSON schema, and the text below each attribute.  Out: Markdown.  `make_docs.py` writes it into the page.
"""

import ast
import inspect
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.config import camera, console, hosts, model, models, onvif, rules, sink, sinks, storage, tactical
from pipeline.config.models import Config

MODULES = (camera, onvif, rules, sink, sinks, tactical, storage, console, model, hosts, models)
KEY_HEAD = ("key", "value", "default", "meaning")

Schema = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; cells may hold anything but line breaks."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Return inline code, or nothing for nothing."""
    return f"`{text}`" if text else ""


def configuration() -> str:
    """Return one table per section of a site's file."""
    schema = Config.model_json_schema()
    texts: dict[tuple[str, str], str] = {}
    for module in MODULES:
        texts |= attribute_docstrings(Path(str(module.__file__)).read_text(encoding="utf-8"))
    describe(schema, Config, texts)
    for name, section in schema["$defs"].items():
        model = next((getattr(module, name) for module in MODULES if hasattr(module, name)), None)
        describe(section, model, texts)
    plain: list[list[str]] = []
    sections: list[str] = []  # headings, texts and tables
    for name, entry in schema["properties"].items():
        item, key = resolved(schema, entry), name
        if item.get("type") == "array":
            item, key = resolved(schema, item["items"]), f"{name}[]"
        if "oneOf" in item:
            sections += union(schema, key, item)
            continue
        if "properties" not in item:
            plain.append(key_row(name, entry, required=name in schema.get("required", ())))
            continue
        default = entry.get("default")
        rows = list(key_rows(schema, key, item, default if isinstance(default, dict) else {}))
        text = entry.get("description") or item.get("description", "").replace("\n", " ")
        sections += [f"## `{key}`", text, table(KEY_HEAD, rows)]
    return "\n\n".join([*sections, "## Other keys", table(KEY_HEAD, plain)])


def union(schema: Schema, key: str, item: Schema) -> Iterator[str]:
    """Yield a table of the keys that the members of a union share, and one of each member's own."""
    members = [resolved(schema, choice) for choice in item["oneOf"]]
    shared = {name: members[0]["properties"][name] for name in sink.BaseSinkConfig.model_fields}
    yield f"## `{key}`"
    yield inspect.getdoc(sink.BaseSinkConfig) or ""
    yield table(KEY_HEAD, list(key_rows(schema, key, {"properties": shared}, {})))
    for member in members:
        own = {name: entry for name, entry in member["properties"].items() if shared.get(name) != entry}
        yield f"### `type: {own.pop('type')['const']}`"
        yield member["description"]
        yield table(KEY_HEAD, list(key_rows(schema, key, member | {"properties": own}, {})))


def attribute_docstrings(source: str) -> dict[tuple[str, str], str]:
    """Return the text below each attribute by class and key.  pydantic could read them too, at each start."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return {
        (node.name, attribute.target.id.rstrip("_")): str(text.value.value)
        for node in classes
        for attribute, text in pairwise(node.body)
        if isinstance(attribute, ast.AnnAssign) and isinstance(attribute.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def describe(section: Schema, model: type[BaseModel] | None, texts: dict[tuple[str, str], str]) -> None:
    """Add the descriptions of a section's keys, also of those that it inherits."""
    for name, entry in section.get("properties", {}).items():
        for parent in model.__mro__ if model else ():
            if (parent.__name__, name) in texts:
                entry["description"] = texts[parent.__name__, name]
                break


def key_rows(schema: Schema, prefix: str, section: Schema, defaults: Schema) -> Iterator[list[str]]:
    """Yield a row for each key of a section, and of the sections in it."""
    for name, entry in section["properties"].items():
        nested = resolved(schema, entry)
        if "properties" in nested:
            yield key_row(f"{prefix}.{name}", {"description": nested.get("description", "")})
            yield from key_rows(schema, f"{prefix}.{name}", nested, {})
            continue
        if name in defaults:
            entry = {**entry, "default": defaults[name]}
        yield key_row(f"{prefix}.{name}", entry | {"kind": nested}, required=name in section.get("required", ()))


def key_row(key: str, entry: Schema, *, required: bool = False) -> list[str]:
    """Return the cells of one key."""
    default = "**required**" if required else code(shown(entry.get("default")))
    return [f"`{key}`", kind(entry.get("kind", entry)), default, entry.get("description", "").replace("\n", " ")]


def resolved(schema: Schema, entry: Schema) -> Schema:
    """Return what a reference, or the part of a choice that is not null, stands for."""
    if "$ref" in entry:
        found: Schema = schema["$defs"][entry["$ref"].rpartition("/")[2]]
        return found
    choices = [choice for choice in entry.get("anyOf", ()) if choice.get("type") != "null"]
    return resolved(schema, choices[0]) if len(choices) == 1 else entry


def kind(entry: Schema) -> str:
    """Return what a value must be, in words."""
    if "const" in entry:
        return code(str(entry["const"]))
    if "enum" in entry:
        return ", ".join(code(str(value)) for value in entry["enum"])
    if "anyOf" in entry:
        return " or ".join(dict.fromkeys(kind(choice) for choice in entry["anyOf"] if choice.get("type") != "null"))
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}
    name = {"path": "path", "ipvanynetwork": "network"}.get(
        entry.get("format", ""), names.get(entry.get("type", ""), "")
    )
    if entry.get("type") == "array":
        name = "list"
    return name + bounds(entry)


def bounds(entry: Schema) -> str:
    """Return the range of a number."""
    texts = (("minimum", ">= {}"), ("exclusiveMinimum", "> {}"), ("maximum", "<= {}"), ("exclusiveMaximum", "< {}"))
    found = [text.format(f"{entry[name]:g}") for name, text in texts if name in entry]
    return f" {', '.join(found)}" if found else ""


def shown(value: Any) -> str:
    """Return a default as YAML would have it; nothing where there is none."""
    if value in (None, [], {}):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
