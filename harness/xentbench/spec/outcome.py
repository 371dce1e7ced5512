"""How things end: phases, statuses, grades, comparisons, failures and verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Phase(StrEnum):
    """One stretch of work that is timed alone; what it needs is prepared outside the clock's window."""

    FORWARD_NO_GRAD = "forward-no-grad"
    FORWARD = "forward"
    BACKWARD = "backward"
    FORWARD_BACKWARD = "forward+backward"


class Status(StrEnum):
    """How a cell ended: exactly one for each, none missing. What qualifies it goes to the cell's `reason`."""

    PASSED = "passed"
    WRONG_VALUE = "wrong-value"
    WRONG_GRADIENT = "wrong-gradient"
    WRONG_TYPE = "wrong-type"
    MUTATES_INPUT = "mutates-input"
    ALIASED = "aliased"
    STALE = "stale"
    DEFERRED = "deferred"
    TAMPERED = "tampered"
    IMPRECISE = "imprecise"
    LEAKING = "leaking"
    TRAINS_DIFFERENTLY = "trains-differently"
    FORGED = "forged"
    RAISED = "raised"
    CRASHED = "crashed"
    EXITED = "exited"
    TIMED_OUT = "timed-out"
    OUT_OF_MEMORY = "out-of-memory"
    IMPORT_FAILED = "import-failed"
    SET_UP_FAILED = "set-up-failed"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"

    @property
    def is_wrong(self) -> bool:
        """Whether it is wrong unless a deviation was declared: all but passed, unsupported and skipped."""
        return self not in (Status.PASSED, Status.UNSUPPORTED, Status.SKIPPED)


class Grade(StrEnum):
    """How accurate the answers are, best first; each includes the ones before it, and all but `FAIL` pass.

    A: as good as correctly rounded. B: float32-accumulating sums, maximum subtracted. B-: log-sum-exp stored, then
    subtracted. H: explained by worst-case rounding in the compute precision. C: each operation rounded to a half dtype.
    """

    A = "A"
    B = "B"
    B_MINUS = "B-"
    H = "H"
    C = "C"
    FAIL = "FAIL"

    @property
    def rank(self) -> int:
        """Position from best (0) to worst."""
        return list(Grade).index(self)

    @staticmethod
    def worst(grades: Iterable[Grade]) -> Grade | None:
        """Return the worst of `grades`, or None where there are none."""
        return max(grades, key=lambda grade: grade.rank, default=None)


class Comparison(StrEnum):
    """What an interval of time ratios shows."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"


class Side(StrEnum):
    """Which of the two that are compared, as the command line calls them."""

    FIRST = "FIRST"
    SECOND = "SECOND"


class Outcome(StrEnum):
    """What became of a cell from the first to the second."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is wrong with an answer.

    Attributes:
        quantity: value, gradient, target-gradient, dtype, shape, exception, mutation, aliasing, repeat,
            second-backward, double-backward or leak.
        message: one sentence: what was expected, what came, where, and what mistake looks like this.
        where: the worst number's place, e.g. `gradient[0, 1]`; empty where no number is at fault.
        expected: the number that is right there; not compared (the message tells it), since NaN differs from itself.
        got: the number that came; not compared.
    """

    quantity: str
    message: str
    where: str = ""
    expected: float | None = field(default=None, compare=False)
    got: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge's answer for one implementation and one problem.

    Attributes:
        status: `passed`, or the first thing that is wrong.
        grade: the worst over the quantities, None where nothing could be judged.
        checks: how many quantities were compared.
        failures: everything that is wrong; empty when passed.
        deviations: codes of the declared deviations that explain all the failures; then nothing is held against it.
        labels: what is honest but must be known, e.g. `another-dtype`.
        bound_ratio: largest error in units of the rounding-error bound (1 or less passes).
        error_ulp: largest error of the loss in units in the last place of its dtype.
        reason: one line for tables.
    """

    status: Status
    grade: Grade | None = None
    checks: int = 0
    failures: tuple[Failure, ...] = ()
    deviations: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    bound_ratio: float | None = None
    error_ulp: float | None = None
    reason: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether something is wrong that no declared deviation explains."""
        return self.status.is_wrong and not self.deviations
