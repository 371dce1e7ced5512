"""Two calls side by side, both results kept: whether they lie in one place, and who did the work.

A loss that hands out the same memory twice is right each time that it is judged, and wrong for whoever keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xentbench.spec import Phase
from xentbench.worker.calls import are_shared

if TYPE_CHECKING:
    import torch

    from xentbench.worker.calls import Loss
    from xentbench.worker.storage import Storage

SEARCHED: Final = 6
"""Levels of a graph that are searched for the reference operator."""


def twice(loss: Loss, phase: Phase, given: tuple[Storage, Storage], upstream: torch.Tensor) -> tuple[str, bool]:
    """Call a loss twice as the phase does, and keep both results.

    Args:
        loss: bound.
        phase: as it is timed; the caller has set its grad mode.
        given: inputs of the two calls.
        upstream: gradient that comes back to the loss.

    Returns:
        which results lie in the same memory, or nothing; and whether the reference operator is in their graph.
    """
    one, other = given
    results = loss(one.logits, one.target), loss(other.logits, other.target)
    delegates = _delegates(results[1])
    if are_shared(*results):
        return "the losses of two calls lie in the same memory", delegates
    if phase in (Phase.BACKWARD, Phase.FORWARD_BACKWARD):
        try:
            for result in results:
                result.backward(upstream)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            return f"a second call spoils the first one's backward: {error}", delegates
    shared = are_shared(one.logits.grad, other.logits.grad)
    return "the gradients of two calls lie in the same memory" if shared else "", delegates


def _delegates(result: torch.Tensor) -> bool:
    """Whether the backward of the reference operator is in a result's graph, near its end."""
    found, near = set(), [result.grad_fn] if result.grad_fn is not None else []
    for _ in range(SEARCHED):
        found |= {node.name() for node in near}
        following = [each for node in near for each, _ in node.next_functions]
        near = [node for node in following if node is not None]
    return any(name.startswith("NllLoss") for name in found)
