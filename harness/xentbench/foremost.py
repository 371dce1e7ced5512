"""Which failures are shown where only a few can be: every kind once before any kind twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xentbench.elementwise import hint_of
from xentbench.spec import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    Failure = Mapping[str, str]

FEW: Final = 3
"""So many are shown of one kind."""
MOST: Final = 5
"""So many are shown where there are as many kinds."""


def foremost(failures: Sequence[Failure]) -> list[Failure]:
    """Return the failures to show, in the order given.

    First one of each quantity, then one of each mistake that a quantity's messages name (or name none), up to `MOST`;
    then, up to `FEW`, one of each quantity and dtype, then others. The same sentence is never shown twice.

    Args:
        failures: records of failures, the most telling first.
    """
    rounds: tuple[tuple[Callable[[Failure], Hashable], int], ...] = (
        (lambda failure: failure["quantity"], MOST),
        (lambda failure: (failure["quantity"], hint_of(failure["message"])), MOST),
        (lambda failure: (failure["quantity"], _dtype(failure)), FEW),
        (lambda failure: failure["message"], FEW),
    )
    chosen: dict[int, Failure] = {}
    for kind, most in rounds:
        for place, failure in enumerate(failures):
            shown = chosen.values()
            known = {kind(one) for one in shown}
            said = {(one["quantity"], one["message"]) for one in shown}
            if (
                len(chosen) < most
                and kind(failure) not in known
                and (failure["quantity"], failure["message"]) not in said
            ):
                chosen[place] = failure
    return [chosen[place] for place in sorted(chosen)]


def _dtype(failure: Failure) -> str:
    return Problem.parse(failure["problem"]).dtype if failure["problem"] else ""
