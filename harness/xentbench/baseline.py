"""The baseline of parity: how accurate each implementation was, so that a run can tell whether one became worse.

The file holds contract, panel, seed and grid, and for each implementation its verdict and, for each dtype, checks,
grade, largest error in units of the bound and in ulp. At the same seed these hardly depend on the machine: another
vector width adds in another order, which moves an error within its bound; the margins below are for that.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xentbench.checking import Accuracy
from xentbench.files import write_atomically
from xentbench.spec import CROSS_ENTROPY, Grade, Status, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from xentbench.checking import Checked
    from xentbench.spec import Description

SCHEMA: Final = 1
GROWTH: Final = 4.0
"""An error that is this many times what it was is worse, and no other order of summation."""
LEAST_RATIO: Final = 0.25
"""Errors below this part of their bound may grow freely: a few roundings more or less."""
FALLEN: Final = (Grade.H, Grade.C, Grade.FAIL)
"""Falling to one of these fails; A, B and B- are all good float32 work, and a step among them is only told."""
AGAIN: Final = "xentbench parity --write-baseline FILE"
GONE: Final = f"is in the baseline and is found no more: make it anew, {AGAIN}"
BY_HAND: Final = "was given by hand when the baseline was made: name it again, as FILE.py:NAME or package.module:NAME"
_DIGITS: Final = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """What the baseline holds of one implementation.

    Attributes:
        verdict: `pass` or `unsupported`.
        dtypes: its accuracy in each.
        other_defaults: options whose default is not that of `F.cross_entropy`; None in a file of before they were held.
        by_hand: whether it was given as `FILE.py:NAME` or `package.module:NAME`: no registered one of its name is it.
    """

    verdict: str
    dtypes: Mapping[str, Accuracy] = field(default_factory=dict)
    other_defaults: Mapping[str, str] | None = None
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Baseline:
    """How accurate the implementations were on one panel, at one seed.

    Attributes:
        panel: number of the set of problems.
        grid: name of the panel, `quick` or `full`.
        seed: of the numbers.
        implementations: by name.
    """

    panel: int
    grid: str
    seed: int
    implementations: Mapping[str, Entry]

    @property
    def registered(self) -> frozenset[str]:
        """Who is found where nobody is named: all but those that were given by hand."""
        return frozenset(name for name, entry in self.implementations.items() if not entry.by_hand)

    def of(self, described: Description) -> Entry | None:
        """Return what is held of an implementation; nothing of one that only bears the name of what was given."""
        is_it = described.name in self.registered or _is_by_hand(described)
        return self.implementations.get(described.name) if is_it else None

    def outdated(self, panel: int) -> str:
        """Return how to make the file anew where it belongs to another set of problems than the program's, else ''."""
        if self.panel == panel:
            return ""
        return f"the baseline is of panel {self.panel} and this version judges on panel {panel}: make it anew, {AGAIN}"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference from the baseline, told in one sentence; it either fails the run or is a warning."""

    implementation: str
    dtype: str
    message: str
    fails: bool

    def record(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return dataclasses.asdict(self)


def make(checked: Iterable[Checked], panel: int, grid: str, seed: int) -> Baseline:
    """Return the baseline that holds what was seen."""
    entries = {
        one.entry.name: Entry(one.verdict, one.dtypes, one.entry.other_defaults, _is_by_hand(one.entry))
        for one in checked
    }
    return Baseline(panel, grid, seed, entries)


def read(path: Path) -> Baseline:
    """Return what the file holds.

    Raises:
        UsageError: it cannot be read, or is no baseline of this version's schema and contract.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if (told["schema"], told["contract"]) != (SCHEMA, CROSS_ENTROPY.name):
            msg = f"it has schema {told['schema']} and contract {told['contract']}"
            raise ValueError(msg)  # noqa: TRY301 - every damage is told in one sentence
        entries = {str(name): _entry(entry) for name, entry in told["implementations"].items()}
        return Baseline(int(told["panel"]), str(told["grid"]), int(told["seed"]), entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        msg = f"--baseline expected a file that {AGAIN} made, got {str(path)!r}: {reason}"
        raise UsageError(msg) from None


def _entry(told: Mapping[str, Any]) -> Entry:
    dtypes = {str(dtype): _accuracy(**accuracy) for dtype, accuracy in told["dtypes"].items()}
    defaults = told.get("other_defaults")
    held = None if defaults is None else {str(name): str(text) for name, text in defaults.items()}
    return Entry(str(told["verdict"]), dtypes, held, bool(told.get("by_hand", False)))


def _accuracy(checks: int, grade: str | None, bound_ratio: float | None, error_ulp: float | None) -> Accuracy:
    numbers = (None if number is None else float(number) for number in (bound_ratio, error_ulp))
    return Accuracy(int(checks), None if grade is None else Grade(grade), *numbers)


def write(path: Path, baseline: Baseline) -> None:
    """Write the file: implementations by name, errors to three digits, which is all that is ever compared."""
    entries = {
        name: {
            "verdict": entry.verdict,
            **({"by_hand": True} if entry.by_hand else {}),
            **({} if entry.other_defaults is None else {"other_defaults": dict(entry.other_defaults)}),
            "dtypes": {dtype: _told(one) for dtype, one in entry.dtypes.items()},
        }
        for name, entry in sorted(baseline.implementations.items())
    }
    head = {"schema": SCHEMA, "contract": CROSS_ENTROPY.name, "panel": baseline.panel, "grid": baseline.grid}
    record = {**head, "seed": baseline.seed, "implementations": entries}
    write_atomically(path.resolve(), json.dumps(record, indent=1, allow_nan=False) + "\n")


def _told(accuracy: Accuracy) -> dict[str, Any]:
    errors = {name: _rounded(getattr(accuracy, name)) for name in ("bound_ratio", "error_ulp")}
    return {**accuracy.record(), **errors}


def _rounded(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(f"{number:.{_DIGITS}g}")


def compare(baseline: Baseline, checked: Iterable[Checked]) -> list[Change]:
    """Return how what was seen at the baseline's seed differs from it."""
    return [change for now in checked for change in _compare(baseline.of(now.entry), now)]


def _is_by_hand(described: Description) -> bool:
    return described.source.kind == "object"


def _compare(was: Entry | None, now: Checked) -> list[Change]:
    name = now.entry.name
    if was is None:
        return [Change(name, "", f"{name} is not in the baseline: add it, {AGAIN}", fails=False)]
    if now.verdict != was.verdict:
        fails = now.entry.status is not Status.UNSUPPORTED and was.verdict == "pass"
        reason = f" ({now.entry.reason})" if now.entry.reason else ""
        told = [Change(name, "", f"{name}: the verdict was {was.verdict}, is {now.verdict}{reason}", fails)]
        if now.entry.status is not Status.PASSED:
            return told
    else:
        told = []
    told += _defaults(was, now)
    for dtype in dict.fromkeys([*was.dtypes, *now.dtypes]):
        before, after = (dtypes.get(dtype, Accuracy(0)) for dtypes in (was.dtypes, now.dtypes))
        told += [Change(name, dtype, f"{name} in {dtype}: {text}", fails) for text, fails in _steps(before, after)]
    return told


def _defaults(was: Entry, now: Checked) -> list[Change]:
    """Return the defaults that are others than they were: each changes what a call without the option means."""
    if was.other_defaults is None:
        return []
    name, changes = now.entry.name, []
    for option, usual in CROSS_ENTROPY.defaults.items():
        before, after = (held.get(option, str(usual)) for held in (was.other_defaults, now.entry.other_defaults))
        if before != after:
            message = f"{name}: the default of {option} was {before}, is {after}"
            changes.append(Change(name, "", message, fails=option in now.entry.offered))
    return changes


def _steps(was: Accuracy, now: Accuracy) -> list[tuple[str, bool]]:
    """Return what changed in one dtype, as clauses, each with whether it fails."""
    steps = []
    if now.checks != was.checks:
        steps.append((f"there were {was.checks} checks, are {now.checks}", now.checks < was.checks))
    if not (was.checks and now.checks):
        return steps
    if now.grade is not was.grade:
        steps.append((f"the grade was {was.grade or 'none'}, is {now.grade or 'none'}", _fell(was.grade, now.grade)))
    if was.bound_ratio is not None and now.bound_ratio is not None:
        limit = max(GROWTH * was.bound_ratio, LEAST_RATIO)
        if now.bound_ratio > limit:
            told = f"the largest error was {was.bound_ratio:.3g} of its bound, is {now.bound_ratio:.3g}"
            steps.append((f"{told}, where up to {limit:.3g} passes", True))
    return steps


def _fell(was: Grade | None, now: Grade | None) -> bool:
    if was is None or now is None:
        return was is not None
    return now.rank > was.rank and now in FALLEN


def census(baseline: Baseline, found: Sequence[Description]) -> list[Change]:
    """Return who is in the baseline and is found no more (stale, which fails), and who is found and not in it.

    It is for runs that name nobody: who was given by hand is not found in these, and another of that name is not it.
    Those that compile are not missed: compiling is slow, and what comes out depends on the machine's compiler.
    """
    missing = baseline.implementations.keys() - (baseline.registered & {entry.name for entry in found})
    stale = [
        Change(name, "", f"{name} {BY_HAND if entry.by_hand else GONE}", fails=True)
        for name, entry in baseline.implementations.items()
        if name in missing
    ]
    new = [
        Change(entry.name, "", f"{entry.name} is not in the baseline, and was not judged: add it, {AGAIN}", fails=False)
        for entry in found
        if entry.name not in baseline.registered and entry.status is Status.PASSED and not entry.compiles
    ]
    return [*stale, *new]
