"""Load and save checkpoints: a network's weights with everything needed to rebuild and run it.

Our format is safetensors, with the metadata as JSON in the header (architecture, classes, preprocessing, thresholds,
training configuration, evaluation) and a digest of the weights beside it.  The judge of chips is stored in the same
file, its tensors prefixed with "judge.".  The original implementation writes `.pth` files with a
"model_state_dict"; they have one class and take frames stretched to 512x512.  Nothing is ever unpickled.
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
from torch.overrides import TorchFunctionMode

from model.description import parse, validated
from model.errors import CheckpointError, ModelError
from model.judge import Judge
from model.metadata import DIGEST_KEY, METADATA_KEY, Metadata, describe
from model.registry import build, recognise

JUDGE_PREFIX = "judge."
OLD_PREFIX = "classifier."  # of the single-crop classifier before version 0.3, which the judge replaced
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, in evaluation mode, and its metadata and judge."""

    network: nn.Module
    metadata: Metadata
    path: Path
    judge: Judge | None = None


def load(path: str | Path) -> Loaded:
    """Rebuild the network of a checkpoint, in our format or the original's.

    Raise CheckpointError, which states the file and what is wrong with it, for anything that cannot be loaded.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({error.strerror})") from error
    try:
        tensors, described = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(OLD_PREFIX)}
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(JUDGE_PREFIX)}
        metadata = validated(path, described, *recognise(own))
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes make the readers raise almost anything
        raise CheckpointError(
            f"checkpoint {path}: is damaged or no checkpoint ({type(error).__name__}); must be a .safetensors file "
            "written by dasnet, or a .pth file of plain tensors with a 'model_state_dict'"
        ) from error
    network = _with_weights(path, own, lambda: build(metadata.network, **metadata.arguments))
    of_judge = {name.removeprefix(JUDGE_PREFIX): tensors[name] for name in tensors.keys() - own.keys()}
    digest = hashlib.sha256(content).hexdigest()
    return Loaded(network, replace(metadata, sha256=digest), path, _judge(path, metadata, of_judge))


def save(
    path: str | Path,
    network: nn.Module,
    metadata: Metadata,
    judge: Judge | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write weights, as `dtype`, and metadata to one safetensors file, atomically.

    Loading converts the weights back to float32; float16 rounds them finer than an engine's bfloat16 does.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights: dict[str, Tensor] = dict(network.state_dict())
    if judge is not None:
        weights |= {JUDGE_PREFIX + name: tensor for name, tensor in judge.state_dict().items()}
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in weights.items()
    }
    partial = path.with_suffix(path.suffix + ".partial")
    save_file(tensors, partial, metadata={METADATA_KEY: describe(metadata), DIGEST_KEY: weights_digest(tensors)})
    partial.replace(path)


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the tensors' names, types, shapes and bytes, independent of the file's layout."""
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
        raise CheckpointError(f"checkpoint {path}: is damaged or not a safetensors file ({error})") from error
    stated = header.get(DIGEST_KEY)
    if stated is not None and stated != (found := weights_digest(tensors)):
        raise CheckpointError(
            f"checkpoint {path}: is damaged: {DIGEST_KEY} of its weights is {found[:12]}...; "
            f"must be {stated[:12]}..., as its header states"
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


def _judge(path: Path, metadata: Metadata, tensors: dict[str, Tensor]) -> Judge | None:
    """Return the judge, or raise CheckpointError where its weights or metadata are missing or do not match."""
    config = metadata.judge
    if config is None:
        if tensors:
            raise CheckpointError(f"checkpoint {path}: holds a judge; must have `judge` in its metadata")
        return None
    return _with_weights(path, tensors, lambda: Judge(config.frames, len(config.classes)))


def _with_weights(path: Path, tensors: dict[str, Tensor], make: Callable[[], Network]) -> Network:
    """Return the module that `make` builds, with these weights, in evaluation mode.

    It is built on the meta device first: the metadata may ask for far more memory than the weights take.
    """
    try:
        with torch.device("meta"), _WithoutRandomWeights():
            expected = make().state_dict()
        if faults := _faults(expected, tensors):
            raise CheckpointError(f"checkpoint {path}: does not fit the network ({faults})")
        network = make()
    except ModelError as error:
        raise error if isinstance(error, CheckpointError) else CheckpointError(f"checkpoint {path}: {error}") from error
    network.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()})
    return network.eval()


class _WithoutRandomWeights(TorchFunctionMode):
    """Skip the drawing of random weights: on the meta device it would import torch's compiler, for 1.4 s and 150 MB."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _faults(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Return the differences from the expected weights, at most three of each kind; empty if there are none."""
    missing, unexpected = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    shared = sorted(expected.keys() & tensors.keys())
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
        for name in shared
        if tensors[name].shape != expected[name].shape
    ]
    types = [
        f"{name} is {str(tensors[name].dtype).removeprefix('torch.')}, must be {'floating' if real else 'integer'}"
        for name in shared
        if (real := expected[name].is_floating_point()) != tensors[name].is_floating_point()
        or _is_bool_or_complex(tensors[name])
    ]
    faults = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes, "wrong type": types}
    if not any(faults.values()):
        values = {name: tensors[name].to(expected[name].dtype) for name in shared}
        faults["not finite"] = [name for name, value in values.items() if not torch.isfinite(value).all()]
    return "; ".join(
        f"{label}: {', '.join(sorted(names)[:3])}{' ...' if len(names) > 3 else ''}"
        for label, names in faults.items()
        if names
    )


def _is_bool_or_complex(tensor: Tensor) -> bool:
    return tensor.is_complex() or tensor.dtype is torch.bool
