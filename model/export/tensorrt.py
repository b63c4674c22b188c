"""Build a TensorRT plan from an ONNX model (`dasnet export --out FILE.plan`).

Experimental: it has not run on a GPU yet.  In: an ONNX model.  Out: a plan in float16 for the GPU that it is built on.
Needs the tensorrt package and a GPU.  A plan runs only with that type of GPU and that version of TensorRT: keep the
ONNX file and build the plan anew.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from model.errors import ChoiceError, EngineError

SIDES = (1, 4, 8)  # minimum, optimum and maximum of an image, in units of the network's multiple
BATCHES = (1, 1, 16)
TOLERANCE = 0.05  # of a probability, from the reference network's: float16
SEED = 21
Shape = tuple[int, int, int, int]


def require_tensorrt() -> None:
    """Raise ChoiceError where the package or a GPU is missing."""
    if find_spec("tensorrt") is None:
        raise ChoiceError("export to .plan needs tensorrt, not installed here: pip install tensorrt")
    if not torch.cuda.is_available():
        raise ChoiceError("export to .plan needs a CUDA device, none is usable here; must be .onnx")


def profile_shapes(multiple: int) -> list[Shape]:
    """Return the minimum, optimum and maximum input (batch, 3, height, width) of a plan."""
    return [(batch, 3, side * multiple, side * multiple) for batch, side in zip(BATCHES, SIDES, strict=True)]


def build_plan(onnx: bytes, multiple: int) -> bytes:
    """Return the serialized plan.  Raise EngineError with TensorRT's reason where it fails."""
    trt: Any = import_module("tensorrt")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        reasons = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise EngineError(f"export: TensorRT {trt.__version__} cannot read the ONNX model: {reasons}")
    settings = builder.create_builder_config()
    settings.set_flag(trt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *profile_shapes(multiple))
    settings.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise EngineError(f"export: TensorRT {trt.__version__} could not build a plan; see its log above")
    return bytes(plan)


@torch.inference_mode()
def verify_plan(plan: bytes, network: nn.Module, multiple: int) -> float:
    """Return the largest difference of a probability from the network.  Raise EngineError above TOLERANCE."""
    trt: Any = import_module("tensorrt")
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
    context, stream = engine.create_execution_context(), torch.cuda.current_stream()
    generator, worst = torch.Generator().manual_seed(SEED), 0.0
    for shape in profile_shapes(multiple)[:2]:
        image = torch.rand(shape, generator=generator)
        expected, on_device = network(image).sigmoid(), image.cuda()
        got = torch.empty(expected.shape, device="cuda")
        context.set_input_shape("image", shape)
        context.set_tensor_address("image", on_device.data_ptr())
        context.set_tensor_address("logits", got.data_ptr())
        if not context.execute_async_v3(stream.cuda_stream):
            raise EngineError(f"export: the TensorRT plan fails for an input of {shape}")
        difference = float((got.sigmoid().cpu() - expected).abs().max())
        if not difference <= TOLERANCE:  # also True for NaN
            raise EngineError(
                f"export: for an input of {shape} the TensorRT plan differs by {difference:.2e} in probability; "
                f"must be at most {TOLERANCE:g}"
            )
        worst = max(worst, difference)
    return worst
