"""Checkpoints: a network's weights with all that is needed to rebuild and run it.

Ours are safetensors files whose header holds the metadata as JSON (architecture, classes, preprocessing, decision
thresholds, training configuration, evaluation).  The original's are `.pth` files with a "model_state_dict"; they have
one class and are fed frames stretched to 512x512.  Nothing is ever unpickled.  The classifier of found targets, where
there is one, lies in the same file, its tensors' names after "classifier.".
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.classifier import STAGES, TargetClassifier
from model.errors import CheckpointError, ModelError
from model.metadata import BANDS, CLASSES, METADATA_KEY, CloserLook, Metadata, Preprocessing, decisions, describe
from model.registry import build, recognise

CLASSIFIER_PREFIX = "classifier."


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, in evaluation mode, and its metadata."""

    network: nn.Module
    metadata: Metadata
    path: Path
    classifier: TargetClassifier | None = None


def load(path: str | Path) -> Loaded:
    """Rebuild the network of a checkpoint, ours or the original's.

    Raises CheckpointError naming the file and what is wrong with it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({error.strerror})") from error
    try:
        tensors, described = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except CheckpointError:
        raise
    except Exception as error:  # the readers raise whatever the bytes provoke
        raise CheckpointError(
            f"checkpoint {path}: is damaged or no checkpoint ({type(error).__name__}); allowed: a .safetensors file "
            "written by dasnet, or a .pth file of plain tensors with a 'model_state_dict'"
        ) from error
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER_PREFIX)}
    metadata = _metadata(path, described, own)
    try:
        network = build(metadata.network, **metadata.arguments)
    except ModelError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from error
    _fill(path, network, own)
    beside = {name.removeprefix(CLASSIFIER_PREFIX): tensors[name] for name in tensors.keys() - own.keys()}
    digest = hashlib.sha256(content).hexdigest()
    return Loaded(network.eval(), replace(metadata, sha256=digest), path, _classifier(path, metadata, beside))


def save(
    path: str | Path,
    network: nn.Module,
    metadata: Metadata,
    classifier: TargetClassifier | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write weights, as `dtype`, and metadata as one safetensors file, whole or not at all.  Computed with are always
    float32; what is kept as float16 is rounded finer than any engine's bfloat16.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights: dict[str, Tensor] = dict(network.state_dict())
    if classifier is not None:
        weights |= {CLASSIFIER_PREFIX + name: tensor for name, tensor in classifier.state_dict().items()}
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in weights.items()
    }
    partial = path.with_suffix(path.suffix + ".partial")
    save_file(tensors, partial, metadata={METADATA_KEY: describe(metadata)})
    partial.replace(path)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys()
            return {name: file.get_tensor(name).float() for name in names}, json.loads(header.get(METADATA_KEY, "{}"))
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path}: is damaged or no safetensors file ({error})") from error


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, dict) and "model_state_dict" in content:
        tensors = content["model_state_dict"]
        described = {"classes": content["classes"]} if "classes" in content else {}
    else:
        tensors, described = content, {}
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"checkpoint {path}: holds no weights; allowed: a 'model_state_dict' of tensors")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}, described


def _metadata(path: Path, described: dict[str, Any], tensors: dict[str, Tensor]) -> Metadata:
    network, outputs = recognise(tensors)  # the original's files do not name their network
    classes = tuple(described.get("classes", CLASSES[:outputs]))
    try:
        return Metadata(
            network=described.get("network", network),
            arguments=described.get("arguments", {"num_class": outputs}),
            classes=classes,
            preprocessing=Preprocessing(**described.get("preprocessing", {})),
            closer_look=_closer_look(described.get("closer_look")),
            decision=decisions(described.get("decision", {})),
            training=described.get("training", {}),
            evaluation=described.get("evaluation", {}),
        )
    except TypeError as error:
        raise CheckpointError(f"checkpoint {path}: metadata not understood by this version ({error})") from error


def _closer_look(described: dict[str, Any] | None) -> CloserLook | None:
    if described is None:
        return None
    tuples: dict[str, Any] = {key: tuple(value) for key, value in described.items() if isinstance(value, list)}
    return CloserLook(**(described | tuples))


def _classifier(path: Path, metadata: Metadata, tensors: dict[str, Tensor]) -> TargetClassifier | None:
    """Raises CheckpointError where weights and description are not both there, or do not fit."""
    how = metadata.closer_look
    if how is None:
        if tensors:
            raise CheckpointError(f"checkpoint {path}: holds a classifier; allowed: with `closer_look` in its metadata")
        return None
    if not set(metadata.classes) <= set(how.classes) or set(how.least_px) != set(BANDS):
        raise CheckpointError(
            f"checkpoint {path}: its classifier knows {', '.join(how.classes)} in {', '.join(how.least_px)}; allowed: "
            f"all of {', '.join(metadata.classes)} in {', '.join(BANDS)}"
        )
    if not 1 <= how.stages <= len(STAGES):
        raise CheckpointError(f"checkpoint {path}: a classifier of {how.stages} stages; allowed: 1 to {len(STAGES)}")
    classifier = TargetClassifier(len(how.classes), how.stages, how.enlarged_px)
    _fill(path, classifier, tensors)
    return classifier.eval()


def _fill(path: Path, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    wanted = network.state_dict()
    missing, unexpected = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    broken = [name for name in wanted.keys() & tensors.keys() if not torch.isfinite(tensors[name]).all()]
    faults = [
        f"{label}: {', '.join(sorted(names)[:3])}{' ...' if len(names) > 3 else ''}"
        for label, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", shapes),
            ("not finite", broken),
        )
        if names
    ]
    if faults:
        raise CheckpointError(f"checkpoint {path}: does not fit the network ({'; '.join(faults)})")
    network.load_state_dict(tensors)
