"""Which loss is meant: the seam for those that come after cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Contract:
    """What every implementation of one loss has in common.

    Oracle and least bytes belong to it as well; they live in `oracle` and `limits`, by this name.

    Attributes:
        name: as problem keys, journals and JSON carry it.
        arguments: positional, in order.
        defaults: of the options, which go by keyword.
        differentiable: arguments that a gradient may be asked for.
        baseline: the implementation that ratios are taken to.
    """

    name: str
    arguments: tuple[str, ...]
    defaults: Mapping[str, object]
    differentiable: tuple[str, ...]
    baseline: str

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the keyword arguments."""
        return tuple(self.defaults)


CROSS_ENTROPY: Final = Contract(
    name="cross_entropy",
    arguments=("input", "target"),
    defaults={"weight": None, "ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0},
    differentiable=("input", "target"),
    baseline="F.cross_entropy",
)
"""The one contract of version 1; `linear_cross_entropy` and a vocabulary-parallel loss are meant to stand beside it."""
