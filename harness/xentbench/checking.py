"""The panel over implementations: what `xentbench parity` says of each. The path of a sweep, stopped before timing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xentbench import counterexamples, offers, pattern
from xentbench.counterexamples import Finder, plainness
from xentbench.crews import Examinee
from xentbench.elementwise import hint_of, without_hint
from xentbench.examining import NO_FORM, Examined, reproduce
from xentbench.posing import Questions
from xentbench.spec import DTYPE_BYTES, Description, Failure, Grade, Phase, Problem, Status, Verdict
from xentbench.workers import stoppable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xentbench.inputs import Recorded
    from xentbench.shrinking import Counterexample
    from xentbench.watching import Watch

PARALLEL: Final = 2
"""Nothing is timed, so two workers may be busy at once."""
TELLING: Final = (
    *("value", "gradient", "target-gradient", "shape", "dtype"),
    *("mutation", "aliasing", "repeat", "second-backward", "double-backward", "leak"),
)
"""Quantities in the order in which their failures are told; exceptions come last."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What the judge says of one implementation's answers in one dtype.

    Attributes:
        checks: quantities compared.
        grade: the worst; None where nothing could be graded, or a declared deviation explains all that is wrong.
        bound_ratio: largest error in units of the bound.
        error_ulp: largest error of the loss in units in the last place.
    """

    checks: int
    grade: Grade | None = None
    bound_ratio: float | None = None
    error_ulp: float | None = None

    def record(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Checked:
    """What the judge says of one implementation over all problems that it was asked.

    Attributes:
        entry: the implementation.
        verdict: pass, fail, error (it could not be loaded or asked) or unsupported (it refuses every problem).
        status: the first status that is wrong, else `passed` or `unsupported`.
        dtypes: how accurate it is in each dtype that it answered.
        labels: what is honest but must be known; a declared deviation that occurred is one.
        failures: problem, quantity, message and the command that reproduces it; the one of each quantity that is told
            first also has the smallest counter-example, in one line and as a snippet of code (empty for the others).
        pattern: how many problems fail, and what they have in common; '' where none does.
        refused: problem key -> reason.
        verdicts: problem key -> what the judge says of the answer, in the order asked; those refused before are none.
        not_offered: option of `F.cross_entropy` that it refuses -> reason.
    """

    entry: Description
    verdict: str
    status: Status
    dtypes: Mapping[str, Accuracy] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    failures: tuple[Mapping[str, str], ...] = ()
    pattern: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    not_offered: Mapping[str, str] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    @property
    def grade(self) -> Grade | None:
        """The worst grade of all dtypes."""
        return Grade.worst(self.grades.values())

    @property
    def grades(self) -> dict[str, Grade]:
        """The worst grade of each dtype that has one."""
        return {dtype: accuracy.grade for dtype, accuracy in self.dtypes.items() if accuracy.grade}

    @property
    def checks(self) -> int:
        """Quantities compared, in all dtypes."""
        return sum(accuracy.checks for accuracy in self.dtypes.values())

    @property
    def nothing_judged(self) -> str:
        """Why no answer of it was judged, the reason that was given most often; '' where any was, or it failed."""
        if self.verdict != "unsupported":
            return ""
        return self.entry.reason or offers.commonest(self.refused.values()) or "it was asked nothing"

    def record(self) -> dict[str, Any]:
        """Return the entry of `parity --json`."""
        return {
            "verdict": self.verdict,
            "status": self.status,
            "grade": self.grade,
            "grades": self.grades,
            "dtypes": {dtype: accuracy.record() for dtype, accuracy in self.dtypes.items()},
            "labels": list(self.labels),
            "checks": self.checks,
            "failures": [dict(failure) for failure in self.failures],
            "pattern": self.pattern,
            "refused": dict(self.refused),
            "other_defaults": dict(self.entry.other_defaults),
            "nothing_judged": self.nothing_judged,
            "not_offered": dict(self.not_offered),
            "bound_ratio": _largest(accuracy.bound_ratio for accuracy in self.dtypes.values()),
            "error_ulp": _largest(accuracy.error_ulp for accuracy in self.dtypes.values()),
        }


def check(
    entries: Sequence[Description],
    problems: Sequence[Problem],
    recorded: Mapping[str, Recorded],
    seed: int,
    watch: Watch,
    compiled: Sequence[Problem],
    *,
    grid: str = "",
) -> list[Checked]:
    """Ask every implementation the problems, two at a time, and return what the judge says of each.

    Args:
        entries: implementations, those that cannot be asked included.
        problems: what is asked.
        recorded: problem key -> recorded tensors.
        seed: of the numbers; one for all, so that each question is made once.
        watch: who looks on.
        compiled: what is asked in their place of an entrant that compiles, whose set-up takes seconds.
        grid: name of the panel, where the problems are a whole one; on `full` every declared deviation must occur.
    """
    questions = Questions(seed, recorded)
    asked = {entry.name: compiled if entry.compiles else problems for entry in entries}
    watch.stage("parity", sum(map(len, asked.values())))

    def one(entry: Description) -> Checked:
        seen: dict[Problem, Examined] = {}
        told = {
            problem.key: entry.refusals[problem.key] for problem in asked[entry.name] if problem.key in entry.refusals
        }
        phases = list(Phase) if entry.compiles else []
        with Examinee(entry, {}) as examinee:
            for problem in asked[entry.name]:
                if problem.key not in entry.refusals and entry.status is Status.PASSED:
                    seen[problem] = examinee.examine(questions(problem), phases, measure_memory=False)
                watch.step(f"{entry.name} at {problem.label}")
            shrunk = Finder(examinee, questions).find({problem: examined.verdict for problem, examined in seen.items()})
        asked_only = dataclasses.replace(entry, refusals=told)
        everything = grid == "full" and not entry.compiles
        return conclude(asked_only, seen, seed, whole_panel=everything, shrunk=shrunk)

    with stoppable(PARALLEL) as pool:
        return list(pool.map(one, entries))


def conclude(
    entry: Description,
    seen: Mapping[Problem, Examined],
    seed: int,
    *,
    whole_panel: bool,
    shrunk: Mapping[tuple[str, str], Counterexample] | None = None,
) -> Checked:
    """Sum up one implementation's verdicts, with the counter-examples that were found to them."""
    if entry.status is not Status.PASSED:
        verdict = "unsupported" if entry.status is Status.UNSUPPORTED else "error"
        return Checked(entry, verdict, entry.status, failures=(_told(entry.reason),) if verdict == "error" else ())
    verdicts = {problem: examined.verdict for problem, examined in seen.items()}
    verdicts |= _crashes(verdicts)
    refused = {p.key: v.reason for p, v in verdicts.items() if v.status is Status.UNSUPPORTED} | entry.refusals
    answered = {p: v for p, v in verdicts.items() if v.status is not Status.UNSUPPORTED}
    told = {problem.key: verdict for problem, verdict in verdicts.items()}
    not_offered = offers.refused(answered, refused)
    if not answered:
        nothing = Status.UNSUPPORTED
        return Checked(entry, "unsupported", nothing, refused=refused, not_offered=not_offered, verdicts=told)
    wrong = {problem: verdict for problem, verdict in answered.items() if verdict.is_wrong}
    failures = [
        {
            "problem": problem.key,
            "quantity": failure.quantity,
            "message": failure.message,
            "reproduce": reproduce(entry, problem, seed),
            **counterexamples.told((shrunk or {}).get((problem.key, failure.quantity)), entry),
        }
        for problem, verdict in wrong.items()
        for failure in verdict.failures
    ]
    order = (*TELLING, "exception")
    failures.sort(
        key=lambda failure: (
            order.index(failure["quantity"]),
            not failure["counterexample"],
            plainness(Problem.parse(failure["problem"])),
        )
    )
    failures = _only_trusted_hints(failures, shrunk or {})
    occurred = {code for verdict in answered.values() for code in verdict.deviations}
    stale = [d.code for d in entry.deviations if d.code not in occurred] if whole_panel else []
    failures += [_stale(code) for code in stale]
    smallest = [found.problem for found in (shrunk or {}).values()]
    labels = ["under-torch.compile"] if entry.wrapped else []
    labels += [label for verdict in answered.values() for label in verdict.labels]
    return Checked(
        entry,
        verdict="fail" if failures or wrong else "pass",
        status=next((v.status for v in wrong.values()), Status.PASSED),
        dtypes=_by_dtype(answered),
        labels=tuple(dict.fromkeys([*labels, *(f"declared-deviation:{code}" for code in sorted(occurred))])),
        failures=tuple(failures),
        pattern=pattern.common(list(wrong), [p for p in answered if p not in wrong], smallest) if wrong else "",
        refused=refused,
        not_offered=not_offered,
        verdicts=told,
    )


def _crashes(verdicts: Mapping[Problem, Verdict]) -> dict[Problem, Verdict]:
    """Return what is no refusal after all: exceptions on a form of logits and target that is answered right elsewhere.

    Whoever cannot say what it does not offer raises, and one problem alone does not tell that from a crash; several do.
    The forms are: a batch, an empty one, or none; with further axes or without; class indices or probabilities.

    Args:
        verdicts: of one implementation, over the problems that it was asked.
    """
    taken = {p: v for p, v in verdicts.items() if v.status is Status.UNSUPPORTED and v.reason.startswith(NO_FORM)}
    right = (p for p, v in verdicts.items() if v.status is not Status.UNSUPPORTED and not v.is_wrong)
    offered = {_form(p) for p in right if not (p.must_raise or p.may_raise or p.ignored == 1.0)}
    return {problem: _crashed(verdict) for problem, verdict in taken.items() if _form(problem) in offered}


def _form(problem: Problem) -> tuple[bool, bool, bool, bool]:
    return problem.batch_size is None, problem.batch_size == 0, bool(problem.dims), problem.has_index_target


def _crashed(verdict: Verdict) -> Verdict:
    reason = verdict.reason.removeprefix(f"{NO_FORM}: ")
    told = f"{Status.RAISED}: {reason}; it answers others of this form (raise NotImplementedError to refuse)"
    return Verdict(Status.RAISED, failures=(Failure("exception", told),), reason=reason)


def _only_trusted_hints(
    failures: Sequence[dict[str, str]], shrunk: Mapping[tuple[str, str], Counterexample]
) -> list[dict[str, str]]:
    """Drop the name of a mistake that does not explain the smallest counter-example too, or half of the failures."""
    trusted = {}
    for quantity in {failure["quantity"] for failure in failures}:
        hints = [hint_of(failure["message"]) for failure in failures if failure["quantity"] == quantity]
        smallest = {hint_of(found.failure.message) for (_, kind), found in shrunk.items() if kind == quantity}
        trusted[quantity] = smallest or {hint for hint in hints if 2 * hints.count(hint) >= len(hints)}
    return [
        failure
        if hint_of(failure["message"]) in trusted[failure["quantity"]]
        else {**failure, "message": without_hint(failure["message"])}
        for failure in failures
    ]


def _by_dtype(answered: Mapping[Problem, Verdict]) -> dict[str, Accuracy]:
    """Sum up each dtype; what a declared deviation explains is counted, and graded by nobody."""
    verdicts = {dtype: [v for p, v in answered.items() if p.dtype == dtype] for dtype in DTYPE_BYTES}
    return {dtype: _accuracy(seen) for dtype, seen in verdicts.items() if seen}


def _accuracy(verdicts: Sequence[Verdict]) -> Accuracy:
    honest = [verdict for verdict in verdicts if not verdict.deviations]
    return Accuracy(
        checks=sum(verdict.checks for verdict in verdicts),
        grade=Grade.worst(verdict.grade for verdict in honest if verdict.grade),
        bound_ratio=_largest(verdict.bound_ratio for verdict in honest),
        error_ulp=_largest(verdict.error_ulp for verdict in honest),
    )


def _largest(numbers: Iterable[float | None]) -> float | None:
    return max((number for number in numbers if number is not None), default=None)


def _stale(code: str) -> dict[str, str]:
    message = f"the declared deviation {code!r} did not occur on the whole panel: remove the declaration"
    return _told(message)


def _told(message: str) -> dict[str, str]:
    """Return the failure that belongs to no problem."""
    parts = {"problem": "", "quantity": "exception", "message": message, "reproduce": ""}
    return {**parts, "counterexample": "", "snippet": ""}
