"""`dasnet export`: a checkpoint in; an ONNX file out that computes the same logits, checked in ONNX Runtime, or from it
a TensorRT plan (`model.export.tensorrt`).

The file's input "image" is float32 (batch, 3, height, width), RGB in 0..1, both sides multiples of 128 for the shipped
network, so that all its maps can be halved; its output "logits" is float32 (batch, classes, height, width).  Batch,
height and width are free.  Its metadata_props say all that is needed to run it: classes, preprocessing, thresholds, the
checkpoint's sha256.

DAS-Net is written exactly, in a form that holds for any batch: a convolution is linear in its kernel, so that by a mix
of K kernels is the mix of K convolutions.  It is more arithmetic than mixing the kernels, but a kernel that is computed
fits ONNX's convolution for a batch of one only.
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
OPSETS = range(18, 24)  # torch writes 18 at least; 18 is read by the most runtimes
TOLERANCE = 1e-3  # the largest difference of a logit from the readable module's
CHECKED = ((1, 1, 1), (2, 1, 2), (3, 2, 1))  # batch, height, width; sides in the network's multiple
SEED = 20


class StaticKernels(nn.Module):
    """A DynamicConvBlock without kernels that depend on the input: sum_k a_k conv(x, W_k), for any batch.

    The weights a_k sum to one, so that this is conv(x, W_0) + sum_k>0 a_k conv(x, W_k - W_0): one product less.
    """

    def __init__(self, block: DynamicConvBlock) -> None:
        super().__init__()
        self.attention, self.gn, self.padding = block.attention, block.gn, block.padding
        weights = block.weights.detach()
        self.first = nn.Parameter(weights[0].clone())
        self.changes = nn.ParameterList([nn.Parameter(weight - weights[0]) for weight in weights[1:]])

    def forward(self, x: Tensor) -> Tensor:
        mixing = torch.softmax(self.attention(x) / TEMPERATURE, dim=1)  # (N, K, 1, 1)
        y = F.conv2d(x, self.first, padding=self.padding)
        for k, change in enumerate(self.changes, start=1):
            y = y + mixing[:, k : k + 1] * F.conv2d(x, change, padding=self.padding)
        return F.leaky_relu(self.gn(y), NEGATIVE_SLOPE)


class ExportedDASNet(nn.Module):
    """Same input and output as the DASNet that it is made from, in evaluation."""

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
        x, skips = image, []
        for layer in self.encoder:
            if isinstance(layer, nn.MaxPool2d):
                skips.append(x)
            x = layer(x)
        for block, gate in zip(self.decoder, self.gates, strict=True):
            skip = skips.pop()
            x = block(torch.cat([_double(x), _gated(cast(AttentionGate, gate), x, skip)], dim=1))
        logits: Tensor = self.output(x)
        return logits


def run_export(
    checkpoint: Path, out: Path, opset: int = OPSETS[0], fold: bool = True, say: Callable[[str], None] = print
) -> float:
    """Write `out`, whole and verified or not at all; returns the largest difference that was found: of a logit, or of a
    plan's probability.

    `fold`: the output block's two convolutions as one.  Raises ChoiceError for what cannot be had, EngineError where
    the file computes something else.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ChoiceError(f"export needs {', '.join(missing)}, not installed here: pip install dasnet[export]")
    if opset not in OPSETS:
        raise ChoiceError(f"opset {opset}; allowed: {OPSETS[0]} to {OPSETS[-1]}")
    if out.suffix not in (".onnx", ".plan") or out.is_dir():
        raise ChoiceError(f"export to {out}: allowed: the path of a file that ends in .onnx or .plan")
    if out.suffix == ".plan":
        require_tensorrt()
    loaded = load(checkpoint)
    multiple = multiple_of(loaded.network)
    partial = out.with_suffix(f"{out.suffix}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()  # a path that cannot be written is told before the work, not after it
        say(f"{checkpoint}: translating to ONNX, opset {opset} ...")
        content = _translate(loaded, opset, fold, multiple).SerializeToString()
        worst = _verify(content, loaded.network, multiple, say)
        if out.suffix == ".plan":
            say(f"{checkpoint}: building the TensorRT plan, minutes ...")
            content = build_plan(content, multiple)
            worst = verify_plan(content, loaded.network, multiple)
        partial.write_bytes(content)
        partial.replace(out)
    except OSError as error:
        raise ModelError(f"export to {out}: cannot be written ({error.strerror}); allowed: a writable path") from error
    finally:
        with suppress(OSError):  # never made, or gone: what was raised before says more
            partial.unlink()
    say(f"{out}: {len(content) / 1e6:.1f} MB, verified; largest difference {worst:.1e}")
    return worst


def multiple_of(network: nn.Module) -> int:
    """Of sides at which no map is odd: what the file computes must not depend on the sizes of its maps."""
    return int(2**network.size if isinstance(network, DynamicUNet) else getattr(network, "multiple", 32))


def _static(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.MaxPool2d):
        return nn.MaxPool2d(2)
    return StaticKernels(layer) if isinstance(layer, DynamicConvBlock) else layer


def _double(x: Tensor) -> Tensor:
    """To twice the size, not to the skip's: at a side that is no multiple the file then fails instead of guessing."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


def _gated(gate: AttentionGate, low: Tensor, skip: Tensor) -> Tensor:
    """The gate's 1x1 convolution commutes with the upsampling: it runs at the low resolution."""
    weight: Tensor = gate.psi(F.relu(_double(gate.W_g(low)) + gate.W_x(skip)))
    return skip * weight


def _translate(loaded: Loaded, opset: int, fold: bool, multiple: int) -> Any:
    """The ModelProto with its metadata."""
    network = loaded.network
    module = ExportedDASNet(network, fold).eval() if isinstance(network, DASNet) else network
    dimension = torch.export.Dim
    free = {0: dimension("batch"), 2: multiple * dimension("rows"), 3: multiple * dimension("columns")}
    # Sizes of one would be taken for constants; a side of three multiples differs from the other side.
    example = torch.rand(2, 3, 2 * multiple, 3 * multiple)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of operators that nobody asked for
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
    """Metadata in; the exporter's notes, which tell the paths of this machine, out."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
    metadata = loaded.metadata
    texts = {
        METADATA_KEY: describe(metadata),
        "sha256": metadata.sha256,
        "classes": json.dumps(metadata.classes),
        "preprocessing": json.dumps(asdict(metadata.preprocessing)),
        "decision": json.dumps(asdict(metadata)["decision"]),
        "multiple": str(multiple),
        "input": f"image: float32 (batch, 3, height, width), RGB in 0..1; height and width multiples of {multiple}",
        "output": "logits: float32 (batch, classes, height, width); the sigmoid of each is its class's probability",
    }
    for key, text in texts.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, text


@torch.inference_mode()
def _verify(content: bytes, network: nn.Module, multiple: int, say: Callable[[str], None]) -> float:
    """The largest difference from the readable module over CHECKED.  Raises EngineError above TOLERANCE."""
    session = import_module("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    generator, worst = torch.Generator().manual_seed(SEED), 0.0
    for batch, rows, columns in CHECKED:
        image = torch.rand(batch, 3, rows * multiple, columns * multiple, generator=generator)
        got = torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])
        expected = network(image)
        shape, wanted = tuple(got.shape), tuple(expected.shape)
        difference = float((got - expected).abs().max()) if shape == wanted else float("inf")
        if not difference <= TOLERANCE:  # NaN is no agreement
            raise EngineError(
                f"export: at an input of {tuple(image.shape)} the ONNX file gives {shape} and differs by "
                f"{difference:.2e} from the network's {wanted}; allowed: {TOLERANCE:g}"
            )
        say(f"  {batch}x{rows * multiple}x{columns * multiple}: largest difference {difference:.1e}")
        worst = max(worst, difference)
    return worst
