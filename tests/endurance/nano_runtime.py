"""The nano detector in its own process: `Nano` is the client, `main` the server; one line is one frame.

In: a line.  Out: the processor seconds that an image of 640x640, uint8 in memory, took on one core.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 640

Run = Callable[[NDArray[np.float32]], Any]


class Nano:
    """A runtime with a model; it computes only while it is asked."""

    def __init__(self, python: Path, runtime: str, model: Path) -> None:
        command = [str(python), __file__, runtime, str(model)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.infer_s()  # started, and warm

    def infer_s(self) -> float:
        """Run inference on one image; return its time."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


def onnx_runtime(model: str) -> Run:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})


def open_vino(model: str) -> Run:
    openvino = import_module("openvino")
    hints = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    return lambda image: compiled({"image": image})


RUNTIMES = {"onnxruntime": onnx_runtime, "openvino": open_vino}


def main(runtime: str, model: str) -> None:
    run = RUNTIMES[runtime](model)
    random = np.random.default_rng(0)
    for _ in sys.stdin:
        frame = random.integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
        started_s = time.process_time()  # on one core: what else runs on it is not counted
        run(np.ascontiguousarray(frame.transpose(2, 0, 1)[None], np.float32) / np.float32(255))
        print(time.process_time() - started_s, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
