"""Read the metadata of a checkpoint from its file and validate it like a configuration.

In: the JSON object of the file's header.  Out: `Metadata`.  Every error gives the file, the key, the value and what is
expected.  Imports no torch.
"""

import json
import math
import re
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
    Fusion,
    JudgeConfig,
    Metadata,
    Preprocessing,
    Range,
    Thresholds,
)

MAX_HEADER_BYTES = 16 << 20
MAX_METADATA_BYTES = 4 << 20
KEYS = ("network", "arguments", "classes", "preprocessing", "judge", "thresholds", "training", "evaluation")
# Keys of files written before version 0.2, which are still read.
OLD_KEYS = {"decision": "thresholds"}
DROPPED_KEYS = ("classifier", "closer_look")  # of the single-crop classifier, which the judge replaced
OLD_THRESHOLD_KEYS = {
    "keep_share": "continue_area_ratio",
    "uav_evidence": "uav_log_odds",
    "distractor_evidence": "distractor_log_odds",
}
ARGUMENTS = {
    "in_channels": Range(1, 16),
    "start_out_channels": Range(1, 1024),
    "num_class": Range(1, len(CLASSES) + 1),
    "size": Range(1, 12),
    "padding": Range(1, 1),
}
Section = TypeVar("Section", Preprocessing, JudgeConfig, Fusion, Thresholds)


class _Fault(Exception):
    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key}: {reprlib.repr(value)}; must be {expected}")


def parse(path: Path, text: str) -> dict[str, Any]:
    """Return the JSON object that the header holds, under the current keys.  Raise CheckpointError."""
    try:
        if len(text) > MAX_METADATA_BYTES:
            raise ValueError(f"it is longer than {MAX_METADATA_BYTES} bytes")
        described = json.loads(text, object_pairs_hook=_unique_keys)
        if not isinstance(described, dict):
            raise ValueError("it is not an object")
        described = _with_current_keys(described)
    except (ValueError, RecursionError, MemoryError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise CheckpointError(f"checkpoint {path}: metadata is not JSON of this version ({reason})") from error
    return described


def read_description(path: Path) -> dict[str, Any]:
    """Return the header's metadata without reading the weights; empty for a `.pth` file.  Raise CheckpointError."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"header of {size} bytes; must be at most {MAX_HEADER_BYTES}")
            header = json.loads(file.read(size))
        text = header.get("__metadata__", {}).get(METADATA_KEY, "{}")
        if not isinstance(text, str):
            raise ValueError(f"{METADATA_KEY} in its header is not text")
    except (OSError, ValueError, AttributeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"checkpoint {path}: damaged or not a safetensors file ({error})") from error
    return parse(path, text)


def read_thresholds(path: Path) -> BandThresholds:
    """Return the thresholds of a checkpoint without reading its weights.  Raise CheckpointError."""
    return validated_thresholds(f"checkpoint {path}", read_description(path).get("thresholds", {}))


def validated_thresholds(origin: str, described: object) -> BandThresholds:
    """Return the validated thresholds by band.  Raise CheckpointError, which begins with the origin."""
    try:
        return _thresholds(described)
    except _Fault as fault:
        raise CheckpointError(f"{origin}: {fault}") from None


def validated(path: Path, described: dict[str, Any], network: str, outputs: int) -> Metadata:
    """Return the validated metadata, or raise CheckpointError.

    `network` and `outputs`, derived from the weights, stand in where the file does not name its network or classes.
    """
    try:
        return _metadata(described, network, outputs)
    except _Fault as fault:
        raise CheckpointError(f"checkpoint {path}: {fault}") from None


def _metadata(described: dict[str, Any], network: str, outputs: int) -> Metadata:
    _require_known(described, KEYS, "")
    name = described.get("network", network)
    if not isinstance(name, str):
        raise _Fault("network", name, "a network's name")
    arguments = _arguments(described.get("arguments", {"num_class": outputs}))
    classes = _names("classes", described.get("classes", CLASSES[:outputs]))
    if len(classes) != arguments.get("num_class", 1):
        raise _Fault("classes", classes, f"{arguments.get('num_class', 1)}, as arguments.num_class says")
    section = described.get("judge")
    judge = None if section is None else _section(JudgeConfig, section, "judge")
    if judge is not None and not set(classes) <= set(judge.classes):
        raise _Fault("judge.classes", judge.classes, f"at least {', '.join(classes)}")
    return Metadata(
        network=name,
        arguments=arguments,
        classes=classes,
        preprocessing=_section(Preprocessing, described.get("preprocessing", {}), "preprocessing"),
        judge=judge,
        thresholds=_thresholds(described.get("thresholds", {})),
        training=_training(described.get("training", {})),
        evaluation=_require_finite("evaluation", _object("evaluation", described.get("evaluation", {}))),
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object, or raise ValueError for a duplicate key, which would silently replace the first."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("it has a duplicate key")
    return content


def _with_current_keys(described: dict[str, Any]) -> dict[str, Any]:
    described = _renamed({key: value for key, value in described.items() if key not in DROPPED_KEYS}, OLD_KEYS)
    if isinstance(described.get("thresholds"), dict):
        described["thresholds"] = {
            band: _renamed(section, OLD_THRESHOLD_KEYS) if isinstance(section, dict) else section
            for band, section in described["thresholds"].items()
        }
    return described


def _renamed(content: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    for old, new in names.items():
        if old in content and new in content:
            raise ValueError(f"it has both {new} and {old}, the old name of the same key")
    return {names.get(key, key): value for key, value in content.items()}


def _require_known(content: dict[str, Any], keys: tuple[str, ...], prefix: str) -> None:
    for key in content:
        if key not in keys:
            raise _Fault(f"{prefix}{key[:64]}", content[key], f"one of the keys {', '.join(keys)}")


def _object(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Fault(key, value, "an object")
    return value


def _section(kind: type[Section], described: object, key: str) -> Section:
    content = _object(key, described)
    _require_known(content, tuple(each.name for each in fields(kind)), f"{key}.")
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{name: _value(hints[name], value, f"{key}.{name}") for name, value in content.items()})


def _value(hint: Any, value: object, key: str) -> Any:
    """Return the value as the field's type, or raise _Fault."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated and isinstance(arguments[1], re.Pattern):
        return _texts(key, value, arguments[1])
    if origin is Annotated:
        return _number(key, value, arguments[1], whole=arguments[0] is int)
    if hint is Fusion:
        return _section(Fusion, value, key)
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


def _number(key: str, value: object, limits: Range, *, whole: bool) -> Any:
    kinds = int if whole else (int, float)
    expected = f"a {'whole ' if whole else ''}number from {limits.least:g} to {limits.most:g}"
    if isinstance(value, bool) or not isinstance(value, kinds) or not limits.least <= value <= limits.most:
        raise _Fault(key, value, expected)  # NaN is within no range
    return value


def _texts(key: str, value: object, pattern: re.Pattern[str]) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise _Fault(key, value, "a list of WIDTHxHEIGHT")
    for text in value:
        if not isinstance(text, str) or not pattern.fullmatch(text):
            raise _Fault(key, text, "WIDTHxHEIGHT, e.g. 320x256")
    return tuple(value)


def _names(key: str, value: object) -> tuple[str, ...]:
    known = (*CLASSES, CLUTTER)
    if not isinstance(value, list | tuple) or not value or not all(name in known for name in value):
        raise _Fault(key, value, f"a list of {', '.join(known)}")
    if len(set(value)) != len(value) or (len(value) > 1 and CLASSES[0] not in value):
        raise _Fault(key, value, f"different, with {CLASSES[0]} among several")
    return tuple(value)


def _thresholds(described: object) -> BandThresholds:
    content = _object("thresholds", described)
    _require_known(content, BANDS, "thresholds.")
    return {band: _section(Thresholds, content.get(band, {}), f"thresholds.{band}") for band in BANDS}


def _arguments(described: object) -> dict[str, Any]:
    content = _object("arguments", described)
    _require_known(content, (*ARGUMENTS, "upsample"), "arguments.")
    for name, value in content.items():
        if name == "upsample":
            if value is not True:
                raise _Fault("arguments.upsample", value, "true")
        else:
            _number(f"arguments.{name}", value, ARGUMENTS[name], whole=True)
    return content


def _require_finite(key: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return a free-form record, all of whose numbers must be finite."""
    waiting: list[tuple[str, object]] = [(key, content)]
    for place, value in waiting:
        if isinstance(value, dict):
            waiting += [(f"{place}.{name}", item) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{place}[{number}]", item) for number, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            raise _Fault(place, value, "finite")
    return content


def _training(described: object) -> dict[str, Any]:
    """Return the free-form training record; only the keys that are compared later are validated."""
    content = _require_finite("training", _object("training", described))
    for name in ("seed", "step"):
        value = content.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise _Fault(f"training.{name}", value, "a whole number")
    return content
