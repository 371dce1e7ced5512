"""Which options of `F.cross_entropy` an implementation offers, as seen from what it answered and what it refused."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from xentbench.spec import CROSS_ENTROPY, Problem, UsageError, nearest
from xentbench.worker import calls

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OPTIONS: Final = (*CROSS_ENTROPY.options, "probabilities", "k-dim")
"""The keyword arguments, and the two forms of arguments that are as optional: probability targets, `(N, C, d1, …)`."""
_LACKS: Final = re.compile(rf"does not offer ({'|'.join(CROSS_ENTROPY.options)})=")
ABSENT: Final = "its signature does not have it"


def proves(problem: Problem) -> bool:
    """Whether an answer shows that the options are offered: without rows, or where raising is right, it shows none."""
    return problem.rows > 0 and not problem.must_raise and not problem.may_raise


def exercised(problem: Problem) -> frozenset[str]:
    """Return the options that the problem makes a difference of."""
    forms = {"probabilities": not problem.has_index_target, "k-dim": bool(problem.dims)}
    return frozenset(calls.exercised(problem)) | {name for name, used in forms.items() if used}


def demanded(names: Iterable[str], problems: Sequence[Problem], by: str) -> tuple[str, ...]:
    """Return the options that must be offered, each once.

    Args:
        names: of `OPTIONS`.
        problems: that are asked.
        by: what demands them, as a person wrote it.

    Raises:
        UsageError: an unknown option, or one that no problem makes a difference of.
    """
    wanted = tuple(dict.fromkeys(names))
    posed = frozenset[str]().union(*(exercised(problem) for problem in problems if proves(problem)))
    for name in wanted:
        if name not in OPTIONS:
            msg = f"{by} {name!r} is unknown: {nearest(name, OPTIONS)}"
            raise UsageError(msg)
        if name not in posed:
            msg = f"{by} {name} expected a problem that exercises it, got none: ask a whole panel"
            raise UsageError(msg)
    return wanted


def refused(answered: Iterable[Problem], refusals: Mapping[str, str]) -> dict[str, str]:
    """Return the options that are not offered, each with the shortest reason that was given.

    A problem may exercise several options and be refused for one of them, or for its sizes. So an option counts as
    refused where a reason names it, or where no problem that exercises it was answered, which is then said; where none
    could even be asked, for want of other options that each of them has, these are named.
    Answers that prove nothing (see `proves`) count as none.

    Args:
        answered: problems that were not refused.
        refusals: problem key -> reason.
    """
    offered = frozenset[str]().union(*(exercised(problem) for problem in answered if proves(problem)))
    found: dict[str, str] = {}
    for option in OPTIONS:
        reasons = [reason for key, reason in refusals.items() if option in exercised(Problem.parse(key))]
        naming = [reason for reason in reasons if option in _named(reason)]
        if naming:
            shortest = min(naming, key=lambda reason: (of_signature(reason), len(reason)))
            found[option] = ABSENT if of_signature(shortest) else shortest
        elif reasons and option not in offered:
            found[option] = _unanswered(reasons)
    return found


def of_signature(reason: str) -> bool:
    """Return whether a reason was read off a signature, and nobody gave it: the problem was not asked."""
    return bool(_LACKS.match(reason))


def _unanswered(reasons: Sequence[str]) -> str:
    """Return why no problem with an option was answered, of reasons that do not name it."""
    if not all(map(of_signature, reasons)):
        reason = min(reasons, key=lambda reason: (bool(_named(reason)), len(reason)))
        return f"no problem with it was answered ({reason})"
    lacking = frozenset[str]().union(*map(_named, reasons))
    names = " or ".join(name for name in OPTIONS if name in lacking)
    return f"not asked: all problems with it need {names} too, which its signature does not have"


def default_told(name: str, text: str) -> str:
    """Return, in a sentence, what another default than that of `F.cross_entropy` comes to."""
    expected = CROSS_ENTROPY.defaults[name]
    return f"default of {name} is {text}, F.cross_entropy's is {expected}: a call without it means something else"


def commonest(reasons: Iterable[str]) -> str:
    """Return the reason that was given most often, what a signature lacks only where there is no other; '' of none."""
    given = list(reasons)
    told = [reason for reason in given if not of_signature(reason)] or given
    return Counter(told).most_common(1)[0][0] if told else ""


def _named(reason: str) -> set[str]:
    return {option for option in OPTIONS if re.search(rf"\b{option}\b", reason)}
