"""xentbench: which implementations of cross-entropy loss are right, which are fast, and how much memory each takes.

Public names: `implementation`, `Implementation`, `Deviation`, `WorkContract`, `Grade` and `Problem` to declare an
entrant; `capture` to record the real arguments of a training script; `load` to read a run's results.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xentbench.spec import Deviation, Grade, Implementation, Problem, WorkContract, implementation

if TYPE_CHECKING:
    from xentbench.results import load
    from xentbench.workloads import capture

__all__ = ["Deviation", "Grade", "Implementation", "Problem", "WorkContract", "capture", "implementation", "load"]

_LAZY = {"capture": "xentbench.workloads", "load": "xentbench.results"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - module attribute
    """Import what needs torch or pandas only when it is asked for: `xentbench --help` must not pay for them."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    msg = f"module 'xentbench' has no attribute {name!r}"
    raise AttributeError(msg)
