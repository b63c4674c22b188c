"""Build, find and load the native engine's shared library.

`python -m model.native.library`, which `make install` calls, builds it for this machine's processor.  Without a C++
compiler the network runs through torch, and `dasnet doctor` reports why.  `--all` builds every variant, for a container
image that will run elsewhere.
"""

import argparse
import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path

from model.native.processor import features

SOURCES = Path(__file__).parent
LIBRARIES = SOURCES / "lib"
# Compiler flags and required processor features of each variant, best first.
VARIANTS: dict[str, tuple[list[str], set[str]]] = {
    "amx": (
        ["-march=x86-64-v4", "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mprefer-vector-width=512"],
        {"avx512f", "avx512_bf16", "amx_bf16"},
    ),
    "avx512bf16": (["-march=x86-64-v4", "-mavx512bf16", "-mprefer-vector-width=512"], {"avx512f", "avx512_bf16"}),
    "avx512": (["-march=x86-64-v4", "-mprefer-vector-width=512"], {"avx512f"}),
    "avx2": (["-march=x86-64-v3"], {"avx2"}),
}
# Of the networks that it runs: a compile-time constant, so that each has its own library.  Those for networks narrower
# than the shipped ones are built on request.
CHANNELS = (64, 32, 16)
SHIPPED_CHANNELS = CHANNELS[:2]
# -Wno-psabi: vectors are passed between inlined functions only, so their calling convention does not matter.
FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-Wno-psabi", "-fopenmp-simd", "-shared", "-fPIC", "-pthread"]


class NativeError(Exception):
    """The library is not available; the message gives the reason."""


def usable_variants() -> list[str]:
    """Return the names of the variants that run on this processor, best first."""
    return [name for name, (_, needed) in VARIANTS.items() if needed <= features()]


def version() -> str:
    """Return the digest of the sources, part of a library's file name, so that a stale library is never loaded."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def path_of(variant: str, channels: int = CHANNELS[0]) -> Path:
    """Return the path of a variant's library for networks of so many channels, built or not."""
    return LIBRARIES / f"libdasnet-{variant}-{channels}-{version()}.so"


def build(
    variants: Sequence[str],
    folder: Path = LIBRARIES,
    extra_flags: Sequence[str] = (),
    channels: Sequence[int] = SHIPPED_CHANNELS,
) -> list[Path]:
    """Compile the variants that are not built yet, for each number of channels, and return their paths.

    Raise NativeError where there is no compiler or it fails.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not compiler:
        raise NativeError("no C++ compiler is installed (on Debian: apt-get install g++)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NativeError(f"{folder}: {error.strerror}") from error
    targets = {folder / path_of(*one).name: one for one in product(variants, channels)}

    def compile_missing(target: Path) -> None:
        if target.exists():
            return
        variant, count = targets[target]
        flags = [*FLAGS, *VARIANTS[variant][0], f"-DDASNET_CHANNELS={count}", *extra_flags]
        # The target appears complete or not at all; a name with a dot is not taken for a package by an installation.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as name:
            partial = Path(name) / target.name
            command = [*compiler.split(), *flags, *map(str, sorted(SOURCES.glob("*.cpp"))), "-o", str(partial)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise NativeError(f"{compiler} failed: {done.stderr.strip()[-400:]}")
            partial.replace(target)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for a compiler
        list(pool.map(compile_missing, targets))
    for variant in variants:
        for old in folder.glob(f"libdasnet-{variant}-*.so"):
            if version() not in old.name:
                old.unlink()
    return list(targets)


def build_best(folder: Path = LIBRARIES) -> list[Path]:
    """Build the best variant that processor and operating system can run.  Raise NativeError."""
    for variant in usable_variants():
        built = build([variant], folder)
        if open_library(built[0]).dasnet_usable():
            return built
    return []


@cache
def library(channels: int = CHANNELS[0]) -> ctypes.CDLL:
    """Load the best variant that is built and runs on this processor.  Raise NativeError."""
    if not usable_variants():
        raise NativeError("the native engine needs AVX2 or AVX-512")
    for variant in usable_variants():
        path = path_of(variant, channels)
        if path.exists() and (loaded := open_library(path)).dasnet_usable():
            return loaded
    option = "" if channels in SHIPPED_CHANNELS else " --all"
    raise NativeError(f"the native engine is not built here (python -m model.native.library{option} builds it)")


@cache
def is_available() -> bool:
    """Return whether it can be loaded."""
    try:
        library()
    except NativeError:
        return False
    return True


def open_library(path: Path) -> ctypes.CDLL:
    """Load a library and declare its functions.  Raise NativeError."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeError(f"{path.name}: {error}") from error
    library.dasnet_error.restype = ctypes.c_char_p
    library.dasnet_create.restype = ctypes.c_void_p
    library.dasnet_create.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 5]
    library.dasnet_run.argtypes = [*[ctypes.c_void_p] * 2, *[ctypes.c_int] * 3, ctypes.c_float, ctypes.c_void_p]
    library.dasnet_time_stages.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * 3, ctypes.c_void_p]
    library.dasnet_peak_macs.restype = ctypes.c_double
    library.dasnet_peak_macs.argtypes = [ctypes.c_int, ctypes.c_double]
    library.dasnet_destroy.argtypes = [ctypes.c_void_p]
    library.dasnet_destroy.restype = None
    library.dasnet_judge_create.restype = ctypes.c_void_p
    library.dasnet_judge_create.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.dasnet_judge_run.argtypes = [*[ctypes.c_void_p] * 2, ctypes.c_int, ctypes.c_void_p]
    library.dasnet_judge_destroy.argtypes = [ctypes.c_void_p]
    library.dasnet_judge_destroy.restype = None
    number, address = ctypes.c_int, ctypes.c_void_p
    library.dasnet_motion_differences.argtypes = [address, address, address, number, address, address]
    library.dasnet_blur.argtypes = [address, address, address]
    library.dasnet_motion_peaks.argtypes = [address, ctypes.c_float, number, number, address]
    library.dasnet_cut.argtypes = [address, number, address, number, number, address]
    library.dasnet_residual.argtypes = [address, address, number, number, number, number, address]
    library.dasnet_refine.argtypes = [address, address, number, number, address, address]
    return library


def main() -> int:
    """Build the library and return exit code 0, also without a compiler: the engine is optional."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="build every variant, not only this processor's")
    options = parser.parse_args()
    try:
        for path in build(list(VARIANTS), channels=CHANNELS) if options.all else build_best():
            print(f"native engine: {path.name}")
    except NativeError as error:
        print(f"native engine: not built, {error}; the network runs through torch", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
