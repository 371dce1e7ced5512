"""One worker's answers while it was timed, held against what they had to be, burst by burst.

Every loss is judged, and of each burst the gradient of one call that nobody knew before. What honest code is allowed
stands in `challenge`; where the format is too coarse for a single answer to tell anything, all answers of a cell
together have to follow the right ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from xentbench.challenge import ROUNDINGS
from xentbench.drawing import Stream
from xentbench.spec import UNIT_ROUNDOFF, Phase, Status
from xentbench.worker.duel import pool_size
from xentbench.worker.storage import Drawn, Numbers
from xentbench.worker.visits import CANDIDATE, Keeper, orders, remembered_rows, timed_last_refreshed
from xentbench.workers import WorkerError

if TYPE_CHECKING:
    import numpy.typing as npt

    from xentbench.challenge import Challenge, Changed

    Array = npt.NDArray[np.float64]

BIAS: Final = 8.0
"""What all answers of a burst may be off by together, in terms of what one may be off by beyond that."""
TOLD_APART: Final = 2.0
"""Right losses that spread by so many gaps of their format tell whether the answers follow them."""
FOLLOWS: Final = (0.9, 1.1)
"""Slope of the answers over the right losses: 1 but for rounding, and 0 of an answer that was given before."""
FEWEST: Final = 16
"""Answers from which a slope is believed: at `TOLD_APART` rounding moves it by 0.04."""
SHOWN: Final = 6
"""Digits of a number in a message."""


@dataclass(slots=True)
class Witness:
    """Follows one worker through the bursts of one phase.

    Attributes:
        challenge: the problem that is timed.
        phase: which phase is.
        pool_bytes: of the regime; 0 where the input is refreshed just before its call.
        may_overflow: a deviation was declared: what is not finite is the judge's to judge.
    """

    challenge: Challenge
    phase: Phase
    pool_bytes: int = 0
    may_overflow: bool = False
    _visits: int = 0
    _pool: int = 1
    _draws: dict[int, Drawn] = field(default_factory=dict)
    _last: Changed | None = None
    _sums: list[Array] = field(default_factory=list)
    _shift: Array | None = None
    _gap: float = 0.0
    _count: int = 0

    def __post_init__(self) -> None:
        self._pool = pool_size(self.pool_bytes, self.challenge.nbytes) if self.pool_bytes else 1
        if self._pool > 1:
            first = self._numbers("pool")
            self._draws = {place + 1 - self._pool: first.next() for place in range(self._pool)}

    def losses(self, seed: int, answers: Array) -> None:
        """Judge what the candidate's timed calls of the burst of this seed answered, `(calls, numel)`.

        Raises:
            WorkerError: an answer is wrong, or was right for another call.
        """
        self._last = changed = self.challenge.changed(self._refreshes(seed, len(answers)))
        if answers.shape != changed.losses.shape:
            expected = changed.losses.shape[1]
            msg = f"a timed call answered {answers.shape[1]} numbers, expected {expected}"
            raise WorkerError(Status.WRONG_VALUE, msg)
        right, allowed = changed.losses, changed.allowed
        with np.errstate(all="ignore"):
            judged = np.isfinite(right) & (np.isfinite(answers) | (not self.may_overflow))
            error = np.where(judged, answers - right, 0.0)
            common = np.median(error, axis=0, keepdims=True)
            # Where one refresh takes a row's numbers far from the others', what these err by is no measure of it.
            is_right = np.abs(error) <= allowed
            is_biased = (np.abs(error - common) <= allowed) & (np.abs(common) <= BIAS * allowed)
            wrong = judged & ~(is_right | is_biased)
        if wrong.any():
            raise self._fault(answers, right, allowed, wrong)
        self._add(answers, right, judged, allowed)

    def gradient(self, seed: int, slot: int, rows: Array | None) -> None:
        """Judge some rows of the gradient of the call that a slot remembers, `(rows, C)`.

        Raises:
            WorkerError: there is none, or an entry is wrong.
        """
        assert self._last is not None
        calls = len(self._last.losses)
        keeper = Keeper(seed)
        for _ in range(calls):
            keeper.next()
        call, problem = keeper.slots[slot], self.challenge.problem
        places = remembered_rows(problem, self.phase, seed, call)
        right, allowed = self.challenge.gradient(self._last, call, places)
        if rows is None or rows.shape != right.shape:
            got = "none" if rows is None else f"{rows.shape[0]} rows of {rows.shape[1:]} numbers"
            msg = f"the gradient of timed call {call} expected {len(right)} rows of {right.shape[1]} numbers, got {got}"
            raise WorkerError(Status.WRONG_GRADIENT, msg)
        with np.errstate(all="ignore"):
            judged = np.isfinite(right) & (np.isfinite(rows) | (not self.may_overflow))
            wrong = judged & ~(np.abs(rows - right) <= allowed)
        if not wrong.any():
            return
        row, column = np.argwhere(wrong)[0]
        seen = f"{rows[row, column]:.{SHOWN}g}, expected {right[row, column]:.{SHOWN}g}"
        msg = f"the gradient of timed call {call} is wrong in {wrong.sum()} of {wrong.size} numbers seen: {seen}"
        raise WorkerError(Status.WRONG_GRADIENT, msg)

    def follow(self) -> None:
        """Judge all answers of the cell together: have they followed the right ones?

        Raises:
            WorkerError: they have not: they come from another call.
        """
        if self._shift is None or self._count < FEWEST:
            return
        x, y, xx, xy = self._sums
        spread = float((xx - x * x / self._count).sum())
        if not spread > TOLD_APART**2 * self._gap**2 * self._count * len(x):
            return
        slope = float((xy - x * y / self._count).sum()) / spread
        if not FOLLOWS[0] <= slope <= FOLLOWS[1]:
            msg = (
                f"{self._count} timed calls answered by {slope:.2f} of what the right losses changed by, expected 1.00"
            )
            raise WorkerError(Status.STALE, msg)

    def _refreshes(self, seed: int, calls: int) -> list[Drawn]:
        """Return the refresh that made the input of each timed call of the candidate."""
        numbers, found = self._numbers(seed, "refresh"), []
        for _, order in zip(range(calls), orders(seed), strict=False):
            for arm in order:
                self._visits += 1
                self._draws[self._visits] = numbers.next()
                made = timed_last_refreshed(self._visits, self._pool)
                if arm == CANDIDATE:
                    found.append(self._draws[made])
                self._draws.pop(made, None)
        return found

    def _numbers(self, *name: object) -> Numbers:
        problem = self.challenge.problem
        return Numbers(problem, Stream(problem.key, self.phase, *name))

    def _fault(self, answers: Array, right: Array, allowed: Array, wrong: Array) -> WorkerError:
        """Name the wrongest answer; one that is right for another call, or was given to another, is an old one."""
        with np.errstate(all="ignore"):
            off = np.where(wrong, np.nan_to_num(np.abs(answers - right), nan=np.inf, posinf=np.inf), -1.0)
        call, number = (int(place) for place in np.unravel_index(np.argmax(off), off.shape))
        got, near = answers[call, number], allowed[call, number]
        elsewhere = np.abs(right[:, number] - right[call, number]) > near
        is_repeated = bool((elsewhere & (answers[:, number] == got)).any())
        is_right = bool(
            (np.abs(np.append(right[elsewhere, number], self.challenge.original()[number]) - got) <= near).any()
        )
        what = "was given to another call" if is_repeated else "is right for another call" if is_right else "is wrong"
        seen = f"{got:.{SHOWN}g}, expected {right[call, number]:.{SHOWN}g}"
        msg = f"the loss of timed call {call} {what}: {seen}; {wrong.any(axis=1).sum()} of {len(right)} are wrong"
        return WorkerError(Status.STALE if is_repeated or is_right else Status.WRONG_VALUE, msg)

    def _add(self, answers: Array, right: Array, judged: npt.NDArray[np.bool_], allowed: Array) -> None:
        if not judged.all() or not right.size:  # what is not finite has no slope
            return
        if self._shift is None:
            self._shift = right.mean(axis=0)
            self._sums = [np.zeros(right.shape[1]) for _ in range(4)]
        # Of a loss far smaller than the numbers it is the difference of, their roundings are what is left.
        gap = max(2.0 * UNIT_ROUNDOFF[self.challenge.problem.dtype] * np.abs(right).max(), allowed.max() / ROUNDINGS)
        self._gap = max(self._gap, float(gap))
        x, y = right - self._shift, answers - self._shift
        more = (x, y, x * x, x * y)
        self._sums = [total + part.sum(axis=0) for total, part in zip(self._sums, more, strict=True)]
        self._count += len(right)
