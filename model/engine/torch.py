"""The torch engines on a CPU: the exact rewrite (`model.fused`) in channels_last, or the reference network."""

import torch
from torch import Tensor, nn

from model.allocator import keep_memory
from model.dasnet import DASNet
from model.engine.cpu import CpuBackend
from model.fused import FusedDASNet

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchBackend(CpuBackend):
    """Runs the exact rewrite of a DAS-Net (kind "torch"), or any network unchanged (kind "reference")."""

    def __init__(self, network: nn.Module, kind: str, precision: str, multiple: int, threads: int | None) -> None:
        keep_memory()
        super().__init__(multiple, self._set_threads)
        self.kind = kind
        self.precision = precision
        self._dtype = DTYPES[precision]
        self._threads = threads
        network = network.eval()
        self._network = FusedDASNet(network).eval() if kind == "torch" and isinstance(network, DASNet) else network

    def _set_threads(self) -> None:
        if self._threads is not None:  # OpenMP keeps it for each calling thread: engines do not disturb each other
            torch.set_num_threads(self._threads)

    @torch.inference_mode()
    def _logits(self, batch: Tensor) -> Tensor:
        image = batch.to(memory_format=torch.channels_last)
        if self.kind == "torch":  # it mixes kernels in float32 whatever it is given
            logits: Tensor = self._network(image.to(self._dtype))
            return logits.float()
        with torch.autocast("cpu", dtype=self._dtype, enabled=self._dtype is not torch.float32):
            logits = self._network(image)
        return logits.float()
