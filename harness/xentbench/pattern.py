"""What the problems that fail have in common, and those that pass have not: often half of the diagnosis."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xentbench.spec import Problem, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    Condition = Callable[[Problem], bool]

TELLING_RATIO: Final = 1.5
"""A condition is told where the share of failures among the problems that meet it is so many times that among all."""
TELLING_SHARE: Final = 0.8
"""Of sizes more is asked, since every failure has some: at least this share of the problems beyond them fails."""
_SIZES: Final = ("batch_size", "num_classes", "dims", "contract", "seed", "device", "ignored")
_PRESENT: Final[dict[str, Condition]] = {
    "ignored rows": lambda p: p.has_index_target and p.ignored > 0.0,
    "class weights": lambda p: p.weight != "none",
    "label smoothing": lambda p: p.label_smoothing > 0.0,
    "dimensions after the classes": lambda p: bool(p.dims),
    "probability targets": lambda p: not p.has_index_target,
    "one row without a batch": lambda p: p.batch_size is None,
    "no rows": lambda p: p.rows == 0,
    "every row ignored": lambda p: p.has_index_target and p.ignored == 1.0,
    "arguments that must be refused": lambda p: p.must_raise,
    "half precision": lambda p: p.dtype in ("bfloat16", "float16"),
}


@dataclass(frozen=True, slots=True)
class _Size:
    """A condition on sizes."""

    axis: str
    least: int

    def __call__(self, problem: Problem) -> bool:
        return bool(getattr(problem, self.axis) >= self.least)


def common(failed: Collection[Problem], passed: Collection[Problem], smallest: Collection[Problem] = ()) -> str:
    """Return a sentence on how many problems fail and the one condition that all of them, and fewest others, meet.

    Args:
        failed: problems that are answered wrong.
        passed: problems that are answered right.
        smallest: sizes of the smallest counter-examples; what these contradict is not told.

    Example: `11 of 178 problems fail, all of them with logits-layout=transposed (11 of 24 such)`.
    """
    asked = len(failed) + len(passed)
    head = f"{len(failed)} of {counted(asked, 'problem')} fail{'s' if len(failed) == 1 else ''}"
    if not failed or not passed:
        return head
    meeting = [
        (sum(map(condition, passed)), place, name)
        for place, (name, condition) in enumerate(_conditions(failed))
        if all(map(condition, failed))
        and not (isinstance(condition, _Size) and _misleads(condition, passed, failed, smallest))
    ]
    if not meeting:
        return head
    others, _, name = min(meeting)
    share = len(failed) / (len(failed) + others)
    if share < TELLING_RATIO * len(failed) / asked:
        return head
    return f"{head}, all of them with {name} ({len(failed)} of {len(failed) + others} such)"


def _conditions(failed: Collection[Problem]) -> Iterator[tuple[str, Condition]]:
    """Yield names and conditions worth trying, the plainest first: of equal ones the first is told."""
    yield from _PRESENT.items()
    first = next(iter(failed))
    for axis in dataclasses.fields(Problem):
        value = getattr(first, axis.name)
        if axis.name not in _SIZES and value != axis.default:
            yield f"{axis.metadata['key']}={value}", _is(axis.name, value)
    fewest, least = min(p.num_classes for p in failed), min(p.rows for p in failed)
    if fewest > 1:
        yield f"C of {fewest} or more", _Size("num_classes", fewest)
    if least > 1:
        yield f"{least} rows or more", _Size("rows", least)
    yield from (
        (f"{one} and {other}", _both(_PRESENT[one], _PRESENT[other]))
        for one in _PRESENT
        for other in _PRESENT
        if one < other
    )


def _misleads(
    size: _Size, passed: Collection[Problem], failed: Collection[Problem], smallest: Collection[Problem]
) -> bool:
    """Whether smaller problems fail too, or too many of this size do not."""
    share = len(failed) / (len(failed) + sum(map(size, passed)))
    return share < TELLING_SHARE or not all(map(size, smallest))


def _is(name: str, value: object) -> Condition:
    return lambda problem: getattr(problem, name) == value


def _both(one: Condition, other: Condition) -> Condition:
    return lambda problem: one(problem) and other(problem)
