"""A loss slowed down by a known share in its forward and in its backward pass, for whoever times both.

`xentbench.worker.spinning` waits for a share of the forward pass alone, which is half of forward and backward or less.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from torch.nn import functional

from xentbench.worker.spinning import EACH_NS, OWN_NS, slowed

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


def slowed_both(
    share: float,
    each_ns: float,
    own_ns: float = 0.0,
    now_ns: Callable[[], int] = time.perf_counter_ns,
    loss: Callable[..., torch.Tensor] = functional.cross_entropy,
) -> Callable[..., torch.Tensor]:
    """Return the loss with a busy wait of `share` of their own time after its forward and its backward pass.

    The backward pass is taken to begin when the forward pass returns: whoever calls this calls backward at once.

    Args:
        share: of the time (0.05 is five per cent); 0 is the control, with the same hook and clock readings.
        each_ns: as `slowed` takes it.
        own_ns: as `slowed` takes it.
        now_ns: clock, in nanoseconds.
        loss: whose options and signature it keeps.
    """
    forward = slowed(loss, share, each_ns, own_ns, now_ns)

    @functools.wraps(loss)
    def slow(input: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:  # noqa: A002, ANN401 - torch's
        result = forward(input, target, **options)
        if result.grad_fn is None or not input.is_leaf:
            return result

        def wait(_: torch.Tensor) -> None:
            handle.remove()
            wait_ns = share * (now_ns() - begun) + each_ns / 2
            until = now_ns() + wait_ns
            while now_ns() < until:
                pass

        begun = now_ns()  # what follows is work of this call too, and is waited for
        # At the leaf: a hook of the last node would hold its gradient, which torch then copies, in every arm alike.
        handle = input.register_post_accumulate_grad_hook(wait)
        return result

    return slow


plus_0, plus_5, plus_10 = (slowed_both(share, EACH_NS, OWN_NS) for share in (0.0, 0.05, 0.10))
