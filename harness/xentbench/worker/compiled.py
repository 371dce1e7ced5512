"""What torch.compile did: whether a graph was made, and that none was made again while the clock ran.

Over a sweep dynamo reaches its recompile limit and then runs eagerly without a word, so that a "compile" column may
hold no compiled code at all. Set-up therefore starts from an empty cache, and a fall-back ends as a
status, never as a time.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from xentbench.worker.calls import Loss


class CompilationError(RuntimeError):
    """An entrant that compiles ran eagerly, broke its graph, or compiled again."""


def reset() -> None:
    """Forget every graph, so that earlier problems never count against the recompile limit."""
    if "torch._dynamo" not in sys.modules:
        return
    import torch._dynamo  # noqa: PLC0415 - costs seconds: only where an entrant has paid for it already
    import torch.compiler  # noqa: PLC0415

    torch.compiler.set_stance("default")
    torch._dynamo.reset()  # noqa: SLF001 - no public name resets the graphs
    torch._dynamo.utils.counters.clear()  # noqa: SLF001
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # noqa: SLF001


def wrap(loss: Loss) -> Loss:
    """Return the loss under `torch.compile(fullgraph=True, dynamic=False)`; compiled at its first call."""
    import torch  # noqa: PLC0415 - as above

    # A function of its own, since graphs are kept by code object and a partial has none.
    def whole(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return loss(logits, target)

    wrapped: Loss = torch.compile(whole, fullgraph=True, dynamic=False)
    return wrapped


def check_set_up(*, must_compile: bool) -> None:
    """Raise where a compiling entrant made no graph or broke one; then make any later compilation an error.

    Raises:
        CompilationError: it ran eagerly in whole or in part.
    """
    if "torch._dynamo" not in sys.modules:
        if must_compile:
            msg = "declared that it compiles, but torch.compile was never used"
            raise CompilationError(msg)
        return
    import torch.compiler  # noqa: PLC0415 - as above

    seen = counters()
    if must_compile and not seen["unique_graphs"]:
        msg = "ran eagerly: torch.compile made no graph"
        raise CompilationError(msg)
    if must_compile and seen["graph_breaks"]:
        msg = f"broke its graph {seen['graph_breaks']} times: part of it runs eagerly"
        raise CompilationError(msg)
    if seen["unique_graphs"]:
        torch.compiler.set_stance("fail_on_recompile")


def counters() -> dict[str, int]:
    """Return how many graphs were made and broken since the last reset (zeros where dynamo was never imported)."""
    if "torch._dynamo" not in sys.modules:
        return {"unique_graphs": 0, "graph_breaks": 0}
    from torch._dynamo.utils import counters as seen  # noqa: PLC0415 - as above

    stats: Any = seen
    return {
        "unique_graphs": int(stats["stats"]["unique_graphs"]),
        "graph_breaks": sum(int(count) for count in stats["graph_break"].values()),
    }
