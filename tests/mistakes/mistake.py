"""The two kinds of entries: a loss that is wrong in one known way, and one that is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Loss = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A loss with exactly one bug.

    Attributes:
        name: unique, in kebab case.
        bug_class: key of the package's `CLASSES`.
        loss: has the signature of `torch.nn.functional.cross_entropy` from `weight` on by keyword.
        note: one sentence: what it does wrong, and where that shows.
    """

    name: str
    bug_class: int
    loss: Loss
    note: str


@dataclass(frozen=True, slots=True)
class Right:
    """A loss without a bug.

    Attributes:
        name: unique, in kebab case.
        loss: as `Mistake.loss`; raises NotImplementedError for sizes that would take it too long.
        note: one sentence: how it computes.
    """

    name: str
    loss: Loss
    note: str
