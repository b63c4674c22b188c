"""Export a checkpoint to ONNX, verified in ONNX Runtime, or from there to a TensorRT plan (`dasnet export`).

The file's input "image" is float32 (batch, 3, height, width), RGB in 0..1, both sides multiples of 128 for the shipped
network, so that every map can be halved; its output "logits" is float32 (batch, classes, height, width).  Batch, height
and width are dynamic.  Its metadata_props hold all that is needed to run it: classes, preprocessing, thresholds, the
checkpoint's sha256.

DAS-Net is exported exactly, in a form that holds for any batch size: a convolution is linear in its kernel, so the
convolution with a mix of K kernels is the mix of K convolutions.  That takes more arithmetic than mixing the kernels,
but ONNX's convolution accepts a computed kernel for a batch of one only.
"""

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import NEGATIVE_SLOPE, TEMPERATURE, AttentionGate, DynamicConvBlock
from model.checkpoint import Loaded, load
from model.dasnet import DASNet
from model.dynamic_unet import DynamicUNet
from model.errors import ChoiceError, EngineError, ModelError
from model.export.tensorrt import build_plan, require_tensorrt, verify_plan
from model.fused import folded_output
from model.metadata import METADATA_KEY, describe

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSETS = range(18, 24)  # torch writes at least 18, which most runtimes read
TOLERANCE = 1e-3  # of a logit, from the reference network's
VERIFIED_SHAPES = ((1, 1, 1), (2, 1, 2), (3, 2, 1))  # batch, height, width; sides in units of the network's multiple
SEED = 20


class StaticKernels(nn.Module):
    """A DynamicConvBlock as a sum of static convolutions, sum_k a_k conv(x, W_k), for any batch size.

    The attention a_k sums to one, so that this is conv(x, W_0) + sum_k>0 a_k conv(x, W_k - W_0): one product less.
    """

    def __init__(self, block: DynamicConvBlock) -> None:
        super().__init__()
        self.attention, self.gn, self.padding = block.attention, block.gn, block.padding
        weights = block.weights.detach()
        self.first = nn.Parameter(weights[0].clone())
        self.differences = nn.ParameterList([nn.Parameter(weight - weights[0]) for weight in weights[1:]])

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, out_channels, H, W)."""
        attention = torch.softmax(self.attention(x) / TEMPERATURE, dim=1)  # (N, K, 1, 1)
        y = F.conv2d(x, self.first, padding=self.padding)
        for k, difference in enumerate(self.differences, start=1):
            y = y + attention[:, k : k + 1] * F.conv2d(x, difference, padding=self.padding)
        return F.leaky_relu(self.gn(y), NEGATIVE_SLOPE)


class ExportedDASNet(nn.Module):
    """A DASNet in a form that ONNX can hold, with the same input and output in evaluation mode."""

    def __init__(self, net: DASNet, fold: bool) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(_static(layer) for layer in net.encoder.encoder_layers)
        self.decoder = nn.ModuleList(_static(block) for block in net.decoder.dy_blocks)
        self.gates = net.decoder.attention_gates
        self.output: nn.Module = net.decoder.output
        if fold:
            weight, bias = folded_output(net.decoder.output)
            self.output = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1)
            self.output.weight, self.output.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, num_class, H, W)."""
        x, skips = image, []
        for layer in self.encoder:
            if isinstance(layer, nn.MaxPool2d):
                skips.append(x)
            x = layer(x)
        for block, gate in zip(self.decoder, self.gates, strict=True):
            skip = skips.pop()
            x = block(torch.cat([_upsample_twofold(x), _gated(cast(AttentionGate, gate), x, skip)], dim=1))
        logits: Tensor = self.output(x)
        return logits


def run_export(
    checkpoint: Path, out: Path, opset: int = OPSETS[0], fold: bool = True, say: Callable[[str], None] = print
) -> float:
    """Write the verified file `out` atomically and return its largest difference from the network.

    The difference is that of a logit, for a TensorRT plan (experimental) that of a probability.  With `fold`, the
    output block's two convolutions become one.  Raise ChoiceError for a missing package or an unsupported option,
    EngineError where the file does not compute the network's function.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ChoiceError(f"export needs {', '.join(missing)}, not installed here: pip install dasnet[export]")
    if opset not in OPSETS:
        raise ChoiceError(f"opset {opset}; must be from {OPSETS[0]} to {OPSETS[-1]}")
    if out.suffix not in (".onnx", ".plan") or out.is_dir():
        raise ChoiceError(f"export to {out}; must be the path of a file that ends in .onnx or .plan")
    if out.suffix == ".plan":
        require_tensorrt()
    loaded = load(checkpoint)
    multiple = multiple_of(loaded.network)
    partial = out.with_suffix(f"{out.suffix}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()  # fail before the work if the path cannot be written
        say(f"{checkpoint}: translating to ONNX, opset {opset} ...")
        content = _translate(loaded, opset, fold, multiple).SerializeToString()
        worst = _verify(content, loaded.network, multiple, say)
        if out.suffix == ".plan":
            say(f"{checkpoint}: building the TensorRT plan (experimental), takes minutes ...")
            content = build_plan(content, multiple)
            worst = verify_plan(content, loaded.network, multiple)
        partial.write_bytes(content)
        partial.replace(out)
    except OSError as error:
        raise ModelError(f"export to {out}: cannot be written ({error.strerror}); must be a writable path") from error
    finally:
        with suppress(OSError):  # never created, or moved
            partial.unlink()
    say(f"{out}: {len(content) / 1e6:.1f} MB, verified; largest difference {worst:.1e}")
    return worst


def multiple_of(network: nn.Module) -> int:
    """Return the multiple of sides at which no map's side is odd, so that the exported graph fits every size."""
    return int(2**network.size if isinstance(network, DynamicUNet) else getattr(network, "multiple", 32))


def _static(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.MaxPool2d):
        return nn.MaxPool2d(2)
    return StaticKernels(layer) if isinstance(layer, DynamicConvBlock) else layer


def _upsample_twofold(x: Tensor) -> Tensor:
    """Upsample to twice the size, not to the skip's, so that a side that is not a multiple fails."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


def _gated(gate: AttentionGate, low: Tensor, skip: Tensor) -> Tensor:
    """Return the gated skip; the 1x1 convolution of the gating signal runs before the upsampling."""
    weight: Tensor = gate.psi(F.relu(_upsample_twofold(gate.W_g(low)) + gate.W_x(skip)))
    return skip * weight


def _translate(loaded: Loaded, opset: int, fold: bool, multiple: int) -> Any:
    """Return the ModelProto with its metadata."""
    network = loaded.network
    module = ExportedDASNet(network, fold).eval() if isinstance(network, DASNet) else network
    dimension = torch.export.Dim
    free = {0: dimension("batch"), 2: multiple * dimension("rows"), 3: multiple * dimension("columns")}
    # A size of one would become a constant; different sides keep height and width independent.
    example = torch.rand(2, 3, 2 * multiple, 3 * multiple)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of operators that are not used
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["image"],
            output_names=["logits"],
            opset_version=opset,
            dynamic_shapes=(free,),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    proto = cast(Any, program).model_proto
    written = [entry.version for entry in proto.opset_import if not entry.domain]
    if written != [opset]:
        raise EngineError(f"export: torch {torch.__version__} wrote opset {written} instead of {opset}")
    _describe(proto, loaded, multiple)
    import_module("onnx").checker.check_model(proto, full_check=True)
    return proto


def _describe(proto: Any, loaded: Loaded, multiple: int) -> None:
    """Add the metadata, and remove the exporter's own, which contains paths of this machine."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
    metadata = loaded.metadata
    texts = {
        METADATA_KEY: describe(metadata),
        "sha256": metadata.sha256,
        "classes": json.dumps(metadata.classes),
        "preprocessing": json.dumps(asdict(metadata.preprocessing)),
        "thresholds": json.dumps(asdict(metadata)["thresholds"]),
        "multiple": str(multiple),
        "input": f"image: float32 (batch, 3, height, width), RGB in 0..1; height and width multiples of {multiple}",
        "output": "logits: float32 (batch, classes, height, width); the sigmoid of each is its class's probability",
    }
    for key, text in texts.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, text


@torch.inference_mode()
def _verify(content: bytes, network: nn.Module, multiple: int, say: Callable[[str], None]) -> float:
    """Return the largest difference from the network over VERIFIED_SHAPES.  Raise EngineError above TOLERANCE."""
    session = import_module("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    generator, worst = torch.Generator().manual_seed(SEED), 0.0
    for batch, rows, columns in VERIFIED_SHAPES:
        image = torch.rand(batch, 3, rows * multiple, columns * multiple, generator=generator)
        got = torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])
        expected = network(image)
        shape, expected_shape = tuple(got.shape), tuple(expected.shape)
        difference = float((got - expected).abs().max()) if shape == expected_shape else float("inf")
        if not difference <= TOLERANCE:  # also True for NaN
            raise EngineError(
                f"export: for an input of {tuple(image.shape)} the ONNX file's {shape} differ by {difference:.2e} from "
                f"the network's {expected_shape}; must be at most {TOLERANCE:g}"
            )
        say(f"  {batch}x{rows * multiple}x{columns * multiple}: largest difference {difference:.1e}")
        worst = max(worst, difference)
    return worst
