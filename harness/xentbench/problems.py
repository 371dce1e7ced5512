"""Grids: named lists of problems, sweeps made by hand, and what a problem needs in bytes before it is begun."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from xentbench.spec import Problem, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

WORKING_COPIES: Final = 8
"""Logits-sized arrays that one worker may hold at once: two storages, their gradients, the float32 temporaries of three
arms that are alive one at a time, and the copy that a reply is made from; counted on one-hot, the hungriest."""

SAMPLED_ELEMENTS: Final = 1 << 22
"""Above so many logits the gradient is judged in full on a sample of rows only: see `sampling`."""
SAMPLED_ROWS: Final = 64
JUDGED_BYTES: Final = 10 * 8
"""Of the judge for each logit that it solves in full: float64 truth, bounds and the answers under comparison."""
DRAWN_BYTES, DRAWN_TARGET_BYTES = 20, 16
"""Of the parent for each logit while it is drawn, a float64 number and what it is made of; more for probabilities."""


def _sizes(*sizes: tuple[int, int]) -> tuple[Problem, ...]:
    return tuple(Problem(batch_size=rows, num_classes=classes) for rows, classes in sizes)


def _recorded(name: str) -> Problem:
    # The sizes are the recording's; they are filled in when it is resolved.
    return Problem(logits=name)


GRIDS: Final[Mapping[str, Callable[[], tuple[Problem, ...]]]] = {
    # One problem where the call's overhead is all, one where the arithmetic is, one real.
    "smoke": lambda: (*_sizes((8, 10), (128, 1000)), _recorded("digits")),
    # Binary (every entrant can take part), overhead, cache-sized, a language model's vocabulary, two real ones.
    "default": lambda: (
        *_sizes((1024, 2), (8, 10), (128, 1000), (32, 32000)),
        _recorded("digits"),
        _recorded("text"),
    ),
    # Latency against classes: two batch sizes, four decades of C.
    "small": lambda: _sizes(*itertools.product((32, 256), (10, 100, 1000, 10_000))),
    # Rows of a training step x the vocabularies of Llama 2, GPT-2, Llama 3, Qwen 2.5 and Gemma 2.
    "llm": lambda: _sizes(*itertools.product((1024, 4096, 8192), (32_000, 50_257, 128_256, 151_936, 256_000))),
    # The pairs of quack's and PyTorch genai_layers' published bandwidth plots.
    "ladder": lambda: _sizes(*((32_768, 2**k) for k in range(8, 17)), (16_384, 131_072), (8192, 262_144)),
    # Past 2^31 logits, where 32-bit offsets end: at Llama 2's vocabulary, at Llama 3's, and one row past it.
    "huge": lambda: tuple(
        replace(problem, dtype="bfloat16") for problem in _sizes((70_000, 32_000), (17_000, 128_256), (16_744, 128_256))
    ),
}


def grid(name: str, grids: Mapping[str, Callable[[], tuple[Problem, ...]]] = GRIDS) -> tuple[Problem, ...]:
    """Return the problems of a named grid.

    Raises:
        UsageError: no grid of that name.
    """
    if name not in grids:
        msg = f"grid {name!r} is unknown: {nearest(name, grids)}"
        raise UsageError(msg)
    return grids[name]()


def product(
    base: Iterable[Problem], axes: Mapping[str, Sequence[Any]], *, leaves_out: bool = False
) -> tuple[Problem, ...]:
    """Return every base problem with every combination of the axes' values: a sweep is this product.

    Args:
        base: problems to vary.
        axes: field name of `Problem` to its values; an axis without values is left alone.
        leaves_out: whether what makes no sense is left out, such as probabilities for labels that must be refused.

    Raises:
        UsageError: something makes no sense, with `leaves_out` everything; why the first does not.
    """
    varied = {name: values for name, values in axes.items() if values}
    problems: dict[Problem, None] = {}
    odd: list[UsageError] = []
    for problem, values in itertools.product(base, itertools.product(*varied.values())):
        try:
            problems[replace(problem, **dict(zip(varied, values, strict=True)))] = None
        except UsageError as error:
            odd.append(error)
    if odd and not (leaves_out and problems):
        raise odd[0]
    return tuple(problems)


def by_hand(axes: Mapping[str, Sequence[Any]]) -> tuple[Problem, ...]:
    """Return the sweep over these axes alone; batch size and number of classes default to (128, 1000)."""
    filled = dict(axes)
    filled["batch_size"] = axes.get("batch_size") or (128,)
    filled["num_classes"] = axes.get("num_classes") or (1000,)
    return product((Problem(batch_size=1),), filled)


def worker_bytes(problem: Problem) -> int:
    """Return how many bytes one worker may need for this problem, beyond those of its interpreter."""
    widest = max(4, problem.logits_bytes // max(1, problem.elements))
    return WORKING_COPIES * problem.elements * widest


def judge_bytes(problem: Problem) -> int:
    """Return how many bytes the judge needs: truth, bounds, answers under comparison, and the numbers as drawn."""
    if problem.elements <= SAMPLED_ELEMENTS:
        return JUDGED_BYTES * problem.elements
    drawn_bytes = DRAWN_BYTES + (0 if problem.has_index_target else DRAWN_TARGET_BYTES)
    return JUDGED_BYTES * solved_elements(problem) + drawn_bytes * problem.elements


def solved_elements(problem: Problem) -> int:
    """Return how many logits the judge solves in full: all, or those of the sampled rows."""
    few = problem.elements <= SAMPLED_ELEMENTS
    return problem.elements if few else min(problem.rows, SAMPLED_ROWS) * problem.num_classes
