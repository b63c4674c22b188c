"""The metadata of a checkpoint as its file describes it -> `Metadata`, validated like a configuration.

Whatever a file holds, the error names the file, the key, the value and what is expected.  Imports no torch.
"""

import json
import reprlib
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from model.errors import CheckpointError
from model.metadata import (
    BANDS,
    CLASSES,
    CLUTTER,
    METADATA_KEY,
    BandThresholds,
    ClassifierConfig,
    Metadata,
    Preprocessing,
    Range,
    Thresholds,
)

MAX_HEADER_BYTES = 16 << 20
MAX_METADATA_BYTES = 4 << 20
KEYS = ("network", "arguments", "classes", "preprocessing", "closer_look", "decision", "training", "evaluation")
ARGUMENTS = {
    "in_channels": Range(1, 16),
    "start_out_channels": Range(1, 1024),
    "num_class": Range(1, len(CLASSES) + 1),
    "size": Range(1, 12),
    "padding": Range(1, 1),
}
Section = TypeVar("Section", Preprocessing, ClassifierConfig, Thresholds)


class _Fault(Exception):
    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key}: {reprlib.repr(value)}; must be {expected}")


def parse(path: Path, text: str) -> dict[str, Any]:
    """Return the JSON object that the header holds.  Raise CheckpointError."""
    try:
        if len(text) > MAX_METADATA_BYTES:
            raise ValueError(f"it is longer than {MAX_METADATA_BYTES} bytes")
        described = json.loads(text, object_pairs_hook=_once)
        if not isinstance(described, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError, MemoryError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise CheckpointError(f"checkpoint {path}: metadata that is no JSON of this version ({reason})") from error
    return described


def read_description(path: Path) -> dict[str, Any]:
    """What the header says, without reading the weights; empty for a file of the original.  Raise CheckpointError."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes; must be at most {MAX_HEADER_BYTES}")
            header = json.loads(file.read(size))
        text = header.get("__metadata__", {}).get(METADATA_KEY, "{}")
        if not isinstance(text, str):
            raise ValueError(f"{METADATA_KEY} in its header is no text")
    except (OSError, ValueError, AttributeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"checkpoint {path}: is damaged or no safetensors file ({error})") from error
    return parse(path, text)


def read_thresholds(path: Path) -> BandThresholds:
    """The thresholds of a checkpoint, without reading its weights.  Raise CheckpointError."""
    described = read_description(path)
    try:
        return _decisions(described.get("decision", {}))
    except _Fault as fault:
        raise CheckpointError(f"checkpoint {path}: {fault}") from None


def validated(path: Path, described: dict[str, Any], network: str, outputs: int) -> Metadata:
    """Return the metadata; what the file does not say follows from its weights: `network`, and its `outputs`.

    Raise CheckpointError.
    """
    try:
        return _metadata(described, network, outputs)
    except _Fault as fault:
        raise CheckpointError(f"checkpoint {path}: {fault}") from None


def _metadata(described: dict[str, Any], network: str, outputs: int) -> Metadata:
    _known(described, KEYS, "")
    name = described.get("network", network)
    if not isinstance(name, str):
        raise _Fault("network", name, "a network's name")
    arguments = _arguments(described.get("arguments", {"num_class": outputs}))
    classes = _names("classes", described.get("classes", CLASSES[:outputs]))
    if len(classes) != arguments.get("num_class", 1):
        raise _Fault("classes", classes, f"{arguments.get('num_class', 1)}, as arguments.num_class says")
    looks = described.get("closer_look")
    closer_look = None if looks is None else _section(ClassifierConfig, looks, "closer_look")
    if closer_look is not None:
        if not set(classes) <= set(closer_look.classes):
            raise _Fault("closer_look.classes", closer_look.classes, f"at least {', '.join(classes)}")
        if closer_look.enlarged_px % 32:
            raise _Fault("closer_look.enlarged_px", closer_look.enlarged_px, "a multiple of 32")
    return Metadata(
        network=name,
        arguments=arguments,
        classes=classes,
        preprocessing=_section(Preprocessing, described.get("preprocessing", {}), "preprocessing"),
        closer_look=closer_look,
        decision=_decisions(described.get("decision", {})),
        training=_training(described.get("training", {})),
        evaluation=_object("evaluation", described.get("evaluation", {})),
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that stands twice would silently replace the first."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands in it twice")
    return content


def _known(content: dict[str, Any], keys: tuple[str, ...], prefix: str) -> None:
    for key in content:
        if key not in keys:
            raise _Fault(f"{prefix}{key[:64]}", content[key], f"one of the keys {', '.join(keys)}")


def _object(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Fault(key, value, "an object")
    return value


def _section(kind: type[Section], described: object, key: str) -> Section:
    content = _object(key, described)
    _known(content, tuple(each.name for each in fields(kind)), f"{key}.")
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{name: _value(hints[name], value, f"{key}.{name}") for name, value in content.items()})


def _value(hint: Any, value: object, key: str) -> Any:
    """As the type of a field says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _number(key, value, arguments[1], whole=arguments[0] is int)
    if origin is Literal:
        if value not in arguments:
            raise _Fault(key, value, f"one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        return _names(key, value)
    if origin is dict:
        content = _object(key, value)
        if set(content) != set(BANDS):
            raise _Fault(key, value, f"a number for each of {', '.join(BANDS)}")
        return {band: _value(arguments[1], number, f"{key}.{band}") for band, number in content.items()}
    if not isinstance(value, bool):
        raise _Fault(key, value, "true or false")
    return value


def _number(key: str, value: object, allowed: Range, *, whole: bool) -> Any:
    kinds = int if whole else (int, float)
    expected = f"a {'whole ' if whole else ''}number from {allowed.least:g} to {allowed.most:g}"
    if isinstance(value, bool) or not isinstance(value, kinds) or not allowed.least <= value <= allowed.most:
        raise _Fault(key, value, expected)  # NaN is within no range
    return value


def _names(key: str, value: object) -> tuple[str, ...]:
    known = (*CLASSES, CLUTTER)
    if not isinstance(value, list | tuple) or not value or not all(name in known for name in value):
        raise _Fault(key, value, f"a list of {', '.join(known)}")
    if len(set(value)) != len(value) or (len(value) > 1 and CLASSES[0] not in value):
        raise _Fault(key, value, f"different, with {CLASSES[0]} among several")
    return tuple(value)


def _decisions(described: object) -> BandThresholds:
    content = _object("decision", described)
    _known(content, BANDS, "decision.")
    return {band: _section(Thresholds, content.get(band, {}), f"decision.{band}") for band in BANDS}


def _arguments(described: object) -> dict[str, Any]:
    content = _object("arguments", described)
    _known(content, (*ARGUMENTS, "upsample"), "arguments.")
    for name, value in content.items():
        if name == "upsample":
            if value is not True:
                raise _Fault("arguments.upsample", value, "true")
        else:
            _number(f"arguments.{name}", value, ARGUMENTS[name], whole=True)
    return content


def _training(described: object) -> dict[str, Any]:
    """Anything that a training wants to say of itself; what is compared later has its type."""
    content = _object("training", described)
    for name in ("seed", "step"):
        value = content.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise _Fault(f"training.{name}", value, "a whole number")
    return content
