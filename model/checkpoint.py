"""Checkpoints: a network's weights with all that is needed to rebuild and run it.

Ours are safetensors files whose header holds the metadata as JSON (architecture, classes, preprocessing, decision
thresholds, training configuration, evaluation), with the digest of the weights beside it.  The original's are `.pth`
files with a "model_state_dict"; they have one class and are fed frames stretched to 512x512.  Nothing is ever
unpickled.  The classifier of found targets, where there is one, lies in the same file, its tensors' names after
"classifier.".
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.classifier import TargetClassifier
from model.description import parse, validated
from model.errors import CheckpointError, ModelError
from model.metadata import DIGEST_KEY, METADATA_KEY, Metadata, describe
from model.registry import build, recognise

CLASSIFIER_PREFIX = "classifier."
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, in evaluation mode, and its metadata."""

    network: nn.Module
    metadata: Metadata
    path: Path
    classifier: TargetClassifier | None = None


def load(path: str | Path) -> Loaded:
    """Rebuild the network of a checkpoint, ours or the original's.

    Whatever the file holds, raise CheckpointError naming it and what is wrong with it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({error.strerror})") from error
    try:
        tensors, described = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER_PREFIX)}
        metadata = validated(path, described, *recognise(own))  # the original's files do not name their network
    except CheckpointError:
        raise
    except Exception as error:  # the readers raise whatever the bytes provoke
        raise CheckpointError(
            f"checkpoint {path}: is damaged or no checkpoint ({type(error).__name__}); must be a .safetensors file "
            "written by dasnet, or a .pth file of plain tensors with a 'model_state_dict'"
        ) from error
    network = _filled(path, own, lambda: build(metadata.network, **metadata.arguments))
    beside = {name.removeprefix(CLASSIFIER_PREFIX): tensors[name] for name in tensors.keys() - own.keys()}
    digest = hashlib.sha256(content).hexdigest()
    return Loaded(network, replace(metadata, sha256=digest), path, _classifier(path, metadata, beside))


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
    save_file(tensors, partial, metadata={METADATA_KEY: describe(metadata), DIGEST_KEY: weights_digest(tensors)})
    partial.replace(path)


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes: of what is computed with, whatever the file's layout."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path}: is damaged or no safetensors file ({error})") from error
    stated = header.get(DIGEST_KEY)
    if stated is not None and stated != (found := weights_digest(tensors)):
        raise CheckpointError(
            f"checkpoint {path}: is damaged: its weights are not those that were saved ({DIGEST_KEY} {found[:12]}...; "
            f"must be {stated[:12]}...)"
        )
    return tensors, parse(path, header.get(METADATA_KEY, "{}"))


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if is_zipfile(path):
        with ZipFile(path) as archive:
            if any(record.compress_type != ZIP_STORED for record in archive.infolist()):
                raise CheckpointError(f"checkpoint {path}: holds compressed records; must be as torch.save writes it")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, dict) and "model_state_dict" in content:
        tensors = content["model_state_dict"]
        described = {"classes": content["classes"]} if "classes" in content else {}
    else:
        tensors, described = content, {}
    if not isinstance(tensors, dict) or not all(_is_plain(*item) for item in tensors.items()):
        raise CheckpointError(f"checkpoint {path}: holds no weights; must have a 'model_state_dict' of tensors")
    return {name.removeprefix("module."): tensor.detach() for name, tensor in tensors.items()}, described


def _is_plain(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _classifier(path: Path, metadata: Metadata, tensors: dict[str, Tensor]) -> TargetClassifier | None:
    """Raise CheckpointError where weights and description are not both there, or do not fit."""
    how = metadata.closer_look
    if how is None:
        if tensors:
            raise CheckpointError(f"checkpoint {path}: holds a classifier; must have `closer_look` in its metadata")
        return None
    return _filled(path, tensors, lambda: TargetClassifier(len(how.classes), how.stages, how.enlarged_px))


def _filled(path: Path, tensors: dict[str, Tensor], make: Callable[[], Network]) -> Network:
    """Return what `make` makes, with these weights, in evaluation mode.

    What the metadata asks for is first made without memory: it may be far more than the weights are.
    """
    try:
        with torch.device("meta"):
            wanted = make().state_dict()
        if faults := _faults(wanted, tensors):
            raise CheckpointError(f"checkpoint {path}: does not fit the network ({faults})")
        network = make()
    except ModelError as error:
        raise error if isinstance(error, CheckpointError) else CheckpointError(f"checkpoint {path}: {error}") from error
    network.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()})
    return network.eval()


def _faults(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with the weights, at most three of each kind; empty: nothing."""
    missing, unexpected = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
    shared = sorted(wanted.keys() & tensors.keys())
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in shared
        if tensors[name].shape != wanted[name].shape
    ]
    types = [
        f"{name} is {str(tensors[name].dtype).removeprefix('torch.')}, must be {'real' if real else 'whole'} numbers"
        for name in shared
        if (real := wanted[name].is_floating_point()) != tensors[name].is_floating_point() or _is_odd(tensors[name])
    ]
    faults = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes, "wrong type": types}
    if not any(faults.values()):
        values = {name: tensors[name].to(wanted[name].dtype) for name in shared}
        faults["not finite"] = [name for name, value in values.items() if not torch.isfinite(value).all()]
    return "; ".join(
        f"{label}: {', '.join(sorted(names)[:3])}{' ...' if len(names) > 3 else ''}"
        for label, names in faults.items()
        if names
    )


def _is_odd(tensor: Tensor) -> bool:
    return tensor.is_complex() or tensor.dtype is torch.bool
