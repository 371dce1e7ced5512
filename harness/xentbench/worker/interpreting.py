"""Triton's interpreter: how kernels written for a GPU answer where there is none. For the judge, never for the clock.

Triton reads one environment variable when a kernel is made, so that it has to be set before a module that holds one is
loaded. It is set for the throw-away workers that describe, and then only for whoever was found to need it: torch's own
compiler brings kernels of Triton's as well.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from xentbench.spec import Implementation, Problem

VARIABLE: Final = "TRITON_INTERPRET"
PACKAGE: Final = "triton"
MOST_ELEMENTS: Final = 4096
"""Logits of a problem that is asked: a kernel's program takes a millisecond where a GPU runs thousands at once."""
NEVER_TIMED: Final = "judged through Triton's interpreter, which is never timed: a machine with a GPU times it"
NOT_TRAINED: Final = "judged through Triton's interpreter, which is too slow to train with"
_KERNELS: Final = ("triton.runtime.interpreter", "triton.runtime.autotuner")
"""Modules of the classes that interpreted kernels have: plain ones, and those of which one of several is taken."""
_OTHERS: Final = ("torch", "triton")
"""Packages with kernels that nobody here calls without `torch.compile`."""
_NO_DRIVER: Final = "0 active drivers"
"""What Triton says where it has no device and does not interpret."""


def settings() -> dict[str, str]:
    """Return the environment variables by which Triton interprets; none where it has a device to compile for."""
    return {} if has_device() else {VARIABLE: "1"}


@functools.cache
def has_device() -> bool:
    """Whether this machine has a GPU that Triton compiles for."""
    return torch.cuda.is_available() or torch.xpu.is_available()


def is_on() -> bool:
    """Whether Triton interprets in this process."""
    return os.environ.get(VARIABLE) == "1"


def is_interpreted(entry: Implementation) -> bool:
    """Whether a loaded implementation is interpreted in this process.

    That is one that says it needs Triton, and one that says nothing where a module that was loaded holds a kernel.
    """
    says = PACKAGE in entry.packages
    return is_on() and not entry.compiles and (says or (not entry.packages and _holds_kernels()))


def _holds_kernels() -> bool:
    """Whether any module but those of torch and Triton holds a kernel for the interpreter."""
    if _KERNELS[0] not in sys.modules:
        return False
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] not in _OTHERS]
    return any(type(value).__module__ in _KERNELS for module in modules for value in list(vars(module).values()))


def refusal(entry: Implementation, problem: Problem) -> str | None:
    """Return why a kernel of Triton's cannot answer this problem here, or None."""
    if is_interpreted(entry):
        if problem.elements <= MOST_ELEMENTS:
            return None
        return f"Triton's interpreter is asked up to {MOST_ELEMENTS} logits, got {problem.elements}: no GPU here"
    if PACKAGE not in entry.packages or not problem.device.startswith("cpu"):
        return None
    if has_device():
        return "a kernel of Triton's, which answers on this machine's GPU: ask with --device cuda"
    if entry.compiles:
        return "a kernel of Triton's under torch.compile, which its interpreter does not run: it takes a GPU"
    return f"a kernel of Triton's and no GPU: set {VARIABLE}=1 before triton is imported, and it is interpreted"


def hint(message: str) -> str:
    """Return, as the end of the message of an exception, what to do where Triton found neither device nor variable."""
    if _NO_DRIVER not in message:
        return ""
    return "; it is interpreted where triton is imported as its module is loaded, or declared: packages=('triton',)"
