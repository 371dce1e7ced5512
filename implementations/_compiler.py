"""This machine's C++ compiler, which builds the fused kernel and what `torch.compile` writes for a CPU."""

from __future__ import annotations

import os
import shutil
from typing import Final

REMEDY: Final = "install a C++ compiler, e.g. `apt-get install g++`, or name one in CXX"
"""The one command that adds what is missing."""


def found() -> str | None:
    """Return the path of a C++ compiler (`$CXX`, else c++, g++ or clang++), or None."""
    named = os.environ.get("CXX", "").split()
    return next(filter(None, map(shutil.which, [*named[:1], "c++", "g++", "clang++"])), None)
