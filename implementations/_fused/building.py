"""The kernel's library: built once for a compiler, a torch and a processor, and kept in the user's cache.

One call of the compiler and a rename: `torch.utils.cpp_extension.load` would need ninja and setuptools at run time, and
a process that is killed while it builds leaves a lock on which later ones wait for ever (pytorch issue 189245).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from xentbench.implementations import _compiler

from xentbench.files import user_cache

SOURCES: Final = Path(__file__).parent
VECTORS: Final = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"),
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
}
"""Flags by what torch itself uses on this processor; without any, ATen's vectors are plain arrays."""
# Hidden, lest one of two variants in a process calls what the other one brought.
LIBRARY: Final = ("-O3", "-fPIC", "-shared", "-fvisibility=hidden")
"""What makes a library of the sources."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What a library is built with. Several may be loaded by one process: each has its own name in torch.

    Attributes:
        namespace: of its operators, `torch.ops.NAMESPACE.cross_entropy`.
        vectors: whether it is built for this processor's vectors, or for any processor, with arrays in their place.
        large_pages: whether the gradient asks for large pages.
    """

    namespace: str = "xentbench"
    vectors: bool = True
    large_pages: bool = True


FUSED: Final = Variant()
"""What `fused` uses."""


class BuildError(RuntimeError):
    """The kernel could not be built: without a compiler, or by what it said."""


def library(variant: Variant = FUSED, folder: Path | None = None) -> Path:
    """Return the built library, from the cache where it is there.

    Args:
        variant: what it is built with.
        folder: where libraries are kept; `$XDG_CACHE_HOME/xentbench/kernels` or `~/.cache/xentbench/kernels`.

    Raises:
        BuildError: there is no compiler, it failed, or there is nowhere to write.
    """
    program = _compiler.found()
    if program is None:
        msg = f"the native kernel is built on first use and found no C++ compiler: {_compiler.REMEDY}"
        raise BuildError(msg)
    command = [program, *LIBRARY, *flags(variant)]
    place = (folder or user_cache("kernels")) / f"cross_entropy-{_key(command)}.so"
    if not place.is_file():
        _build(command, place)
    return place


def flags(variant: Variant = FUSED, capability: str | None = None) -> list[str]:
    """Return what the sources are compiled and linked with, whether into a library or into a program.

    Args:
        variant: what it is built with.
        capability: whose vectors, a key of `VECTORS` or "DEFAULT" for none; what torch uses on this processor.
    """
    capability = capability or torch.backends.cpu.get_cpu_capability()
    vectors = VECTORS.get(capability, ()) if variant.vectors else ()
    name = capability if vectors else "DEFAULT"
    root = Path(torch.__file__).parent
    includes = [root / "include", root / "include" / "torch" / "csrc" / "api" / "include"]
    # No OpenMP by clang on macOS without a package of its own: at::parallel_for then runs torch's pool by its library.
    threads = [] if sys.platform == "darwin" else ["-fopenmp"]
    return [
        *("-std=c++20", *threads, *vectors),
        *(f"-DXENTBENCH_NAMESPACE={variant.namespace}", f"-DXENTBENCH_LARGE_PAGES={int(variant.large_pages)}"),
        *(f"-DCPU_CAPABILITY={name}", f"-DCPU_CAPABILITY_{name}"),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        *(part for place in includes for part in ("-isystem", str(place))),
        *(f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"),
    ]


def _key(command: list[str]) -> str:
    """Return a hash of everything that the library is made from."""
    digest = hashlib.sha256("|".join([*command, torch.__version__]).encode())
    version = subprocess.run([command[0], "--version"], capture_output=True, check=False)  # noqa: S603 - the user's own
    digest.update(version.stdout)
    for file in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:32]


def _build(command: list[str], place: Path) -> None:
    """Build into a folder of its own, then rename: a killed build leaves nothing that could be taken for a library."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            made = Path(scratch) / place.name
            source, options = str(SOURCES / "cross_entropy.cpp"), command[1:]
            done = subprocess.run(  # noqa: S603 - the user's own compiler
                [command[0], source, "-o", str(made), *options], capture_output=True, text=True, check=False
            )
            if done.returncode:
                said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-300:].strip())
                msg = f"{command[0]} could not build the native kernel: {said}"
                raise BuildError(msg)
            made.replace(place)
    except OSError as error:
        msg = f"the native kernel cannot be kept in {place.parent}: {error.strerror}; name another XDG_CACHE_HOME"
        raise BuildError(msg) from error
