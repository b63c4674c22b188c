"""The native engine's shared library: built from `model/native` by a C++ compiler, found and loaded.

`python -m model.native.library` builds it, for this machine's processor; `make install` does that.  Without a compiler
nothing breaks: the network then runs through torch, and `dasnet doctor` says why.  `--all` builds every form, for an
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
from functools import cache
from pathlib import Path

from model.native.processor import features

SOURCES = Path(__file__).parent
LIBRARIES = SOURCES / "lib"
# Best first: what the compiler is told, and the processor's features that it takes.
FORMS: dict[str, tuple[list[str], set[str]]] = {
    "amx": (
        ["-march=x86-64-v4", "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mprefer-vector-width=512"],
        {"avx512f", "avx512_bf16", "amx_bf16"},
    ),
    "avx512bf16": (["-march=x86-64-v4", "-mavx512bf16", "-mprefer-vector-width=512"], {"avx512f", "avx512_bf16"}),
    "avx512": (["-march=x86-64-v4", "-mprefer-vector-width=512"], {"avx512f"}),
    "avx2": (["-march=x86-64-v3"], {"avx2"}),
}
# -Wno-psabi: vectors are passed between inlined functions only, so how they would be passed does not matter.
FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC", "-pthread"]


class NativeError(Exception):
    """The library is not to be had; the text says why."""


def usable_forms() -> list[str]:
    """Names of FORMS that run on this processor, best first."""
    return [name for name, (_, needed) in FORMS.items() if needed <= features()]


def version() -> str:
    """Of the sources, so that a library of other ones is not taken for theirs."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def path_of(form: str) -> Path:
    return LIBRARIES / f"libdasnet-{form}-{version()}.so"


def build(forms: Sequence[str], folder: Path = LIBRARIES, extra_flags: Sequence[str] = ()) -> list[Path]:
    """Compile what is not there yet.  Raises NativeError: no compiler, or it failed."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not compiler:
        raise NativeError("no C++ compiler is installed (on Debian: apt-get install g++)")
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for form in forms:
        target = folder / path_of(form).name
        made.append(target)
        if target.exists():
            continue
        with tempfile.TemporaryDirectory(dir=folder) as name:  # whole or not at all
            partial = Path(name) / target.name
            flags = [*FLAGS, *FORMS[form][0], *extra_flags]
            command = [*compiler.split(), *flags, str(SOURCES / "engine.cpp"), "-o", str(partial)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise NativeError(f"{compiler} failed: {done.stderr.strip()[-400:]}")
            partial.replace(target)
        for old in folder.glob(f"libdasnet-{form}-*.so"):
            if old != target:
                old.unlink()
    return made


def build_best(folder: Path = LIBRARIES) -> list[Path]:
    """The best one that the system lets this processor run.  Raises NativeError."""
    for form in usable_forms():
        made = build([form], folder)
        if opened(made[0]).dasnet_usable():
            return made
    return []


@cache
def library() -> ctypes.CDLL:
    """The best one that is there and runs on this processor.  Raises NativeError."""
    if not usable_forms():
        raise NativeError("the native engine needs AVX2 or AVX-512")
    for form in usable_forms():
        if path_of(form).exists() and (found := opened(path_of(form))).dasnet_usable():
            return found
    raise NativeError("the native engine is not built here (python -m model.native.library builds it)")


def opened(path: Path) -> ctypes.CDLL:
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeError(f"{path.name}: {error}") from error
    found.dasnet_error.restype = ctypes.c_char_p
    found.dasnet_create.restype = ctypes.c_void_p
    found.dasnet_create.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 5]
    found.dasnet_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * 3, ctypes.c_void_p]
    found.dasnet_time_stages.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * 3, ctypes.c_void_p]
    found.dasnet_peak_macs.restype = ctypes.c_double
    found.dasnet_peak_macs.argtypes = [ctypes.c_int, ctypes.c_double]
    found.dasnet_destroy.argtypes = [ctypes.c_void_p]
    found.dasnet_destroy.restype = None
    return found


def main() -> int:
    """Exit code 0 also where there is no compiler: the engine is left out then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="for every processor, not this one alone")
    options = parser.parse_args()
    try:
        for path in build(list(FORMS)) if options.all else build_best():
            print(f"native engine: {path.name}")
    except NativeError as error:
        print(f"native engine: left out, {error}; the network runs through torch", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
