"""Estimators, intervals and decisions: pure functions of samples. Nothing here reads a clock or a file.

The ratio is always time over the baseline's time, measured call by call in the same process; it is estimated by the
median of per-round log ratios, whose exact interval comes from order statistics (the sign test inverted), since means
and bootstraps of such times declare identical code different (docs/timing.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import optimize, special, stats

from xentbench.spec import Comparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

WITHIN_CONFIDENCE: Final = 0.99
"""Within a worker: 95 % over five looks by the union bound."""
ACROSS_CONFIDENCE: Final = 0.95
DIFFERENT_MARGIN: Final = 0.01
"""`faster` and `slower` lie wholly beyond this distance from 1: identical code was never called different at it."""
SAME_MARGIN: Final = 0.02
LEAST_ROUNDS: Final = 8
"""Fewest rounds for which a 99 % sign interval exists: 2 x 2^-8 < 1 %."""
LOOKS: Final = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of a worker's budget at which the width of its interval is looked at."""
GATE_ALARM: Final = 0.01
"""Probability that any interval of a comparison with a margin misses its ratio, where nothing disturbs."""
PRIOR_LIMIT: Final = 8.0
"""Most degrees of freedom that the spread of other cells counts for in a cell's own.

More would trust that cells are independent and spread alike: workers' differences are shared by their cells.
"""
_LEAST_VARIANCE: Final = 1e-24
"""Of a mean log ratio: workers that agree to twelve digits measured nothing, and the logarithm of 0 is no number."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How sure intervals are, and from where on a difference counts.

    Attributes:
        margin: `faster` and `slower` lie wholly beyond it.
        same_margin: `same` lies wholly inside it.
        within: confidence of the interval of a worker's rounds, at its last look.
        across: confidence of the interval across workers.
    """

    margin: float = DIFFERENT_MARGIN
    same_margin: float = SAME_MARGIN
    within: float = WITHIN_CONFIDENCE
    across: float = ACROSS_CONFIDENCE

    @classmethod
    def together(cls, margin: float, cells: int) -> Rule:
        """Return the rule by which the intervals of all cells hold together, by Bonferroni's inequality.

        Args:
            margin: of `slower` and `faster`, and of `same`.
            cells: that are compared.
        """
        chance = GATE_ALARM / max(1, cells)
        return cls(margin, margin, 1 - chance / len(LOOKS), 1 - chance)


USUAL: Final = Rule()


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate of a ratio with its interval: `low <= ratio <= high`, all positive."""

    ratio: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width on the log scale: 0.01 is one per cent."""
        return (math.log(self.high) - math.log(self.low)) / 2 if self.low > 0 and math.isfinite(self.high) else math.inf


UNKNOWN: Final = Interval(math.nan, 0.0, math.inf)


def log_ratios(wall_ns: npt.NDArray[np.int64], arm: int = 1, baseline: int = 0) -> Floats:
    """Return per-round `log(arm / baseline)` of times `(rounds, arms)`; rounds with a reading of 0 ns are left out."""
    times = wall_ns[(wall_ns > 0).all(axis=1)].astype(np.float64)
    ratios: Floats = np.log(times[:, arm]) - np.log(times[:, baseline])
    return ratios


def keep(wall_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return a burst without its first round, or first two of more than eight: they find caches as others left them."""
    return wall_ns[2 if len(wall_ns) > LEAST_ROUNDS else 1 :]


def median_interval(logs: Floats, confidence: float = WITHIN_CONFIDENCE) -> Interval:
    """Return the median ratio and its exact order-statistic interval.

    `(x_(k), x_(n+1-k))` covers the median with probability `1 - 2 P(B <= k-1)`, `B ~ Binomial(n, 1/2)`; the largest k
    that keeps the confidence is taken. Fewer samples than any k allows give an interval of `(0, inf)`.
    """
    count = len(logs)
    if count == 0:
        return UNKNOWN
    ordered, tail = np.sort(logs), (1 - confidence) / 2
    k = int(stats.binom.ppf(tail, count, 0.5))
    if stats.binom.cdf(k, count, 0.5) <= tail:
        k += 1
    middle = math.exp(float(np.median(ordered)))
    if k < 1:
        return Interval(middle, 0.0, math.inf)
    return Interval(middle, math.exp(ordered[k - 1]), math.exp(ordered[count - k]))


def across_workers(medians: Floats, confidence: float = ACROSS_CONFIDENCE) -> Interval:
    """Return the mean of the workers' log medians and its t interval: processes vary among themselves."""
    count = len(medians)
    if count < 2:  # noqa: PLR2004 - one worker has no spread
        return UNKNOWN
    centre, error = float(np.mean(medians)), float(stats.sem(medians))
    reach = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
    return Interval(math.exp(centre), math.exp(centre - reach), math.exp(centre + reach))


def worker_median(bursts: Sequence[Floats]) -> float:
    """Return one worker's log ratio: the median of its bursts' medians, since rounds of one burst share its moment."""
    return float(np.median([np.median(logs) for logs in bursts if len(logs)]))


def quickest_log_ratio(times_ns: npt.NDArray[np.int64], arm: int = 1, baseline: int = 0) -> float:
    """Return the log ratio of one worker's quickest calls: an arm's least time over the baseline's least.

    What else runs on a machine only ever adds time, to a long call more often than to a short one: within a run that
    falls on all implementations alike, and the median tells what is typical. Between two runs it moves the median
    ratio of the same code by up to 50 %, and this one hardly (docs/timing.md).

    Args:
        times_ns: `(rounds, arms)`, at least one round; a reading of 0 ns counts as 1.
        arm: column of the candidate.
        baseline: column of the baseline.

    Source: Chen & Revels 2016, Robust benchmarking in noisy environments, arXiv:1608.04295 (noise is positive, so the
    least time is the steadiest estimate).
    """
    least = np.maximum(times_ns, 1).min(axis=0)
    return float(np.log(least[arm] / least[baseline]))


def answered(workers: Sequence[Sequence[Floats]]) -> list[Sequence[Floats]]:
    """Return the bursts of those workers that have any log ratio."""
    return [bursts for bursts in workers if any(map(len, bursts))]


def combine(workers: Sequence[Sequence[Floats]], rule: Rule = USUAL) -> Interval:
    """Return the estimate over all workers' bursts of log ratios: of the interval within and the one across, the wider.

    Args:
        workers: for each worker the log ratios of each of its bursts.
        rule: how sure the intervals are.
    """
    measured = answered(workers)
    if not measured:
        return UNKNOWN
    within = median_interval(np.concatenate([logs for bursts in measured for logs in bursts]), rule.within)
    if len(measured) == 1:
        return within
    across = across_workers(np.array([worker_median(bursts) for bursts in measured]), rule.across)
    return within if within.half_width > across.half_width else across


def compare(interval: Interval, workers: int, rule: Rule = USUAL) -> Comparison:
    """Return what the interval shows; one worker alone can never show `same`."""
    if interval.low > 1 + rule.margin:
        return Comparison.SLOWER
    if interval.high < 1 / (1 + rule.margin):
        return Comparison.FASTER
    inside = interval.low > 1 / (1 + rule.same_margin) and interval.high < 1 + rule.same_margin
    return Comparison.SAME if inside and workers > 1 else Comparison.INCONCLUSIVE


def next_look(spent: float, taken: int) -> int | None:
    """Return how many looks are due once this share of the budget is spent, if more than `taken`, else None."""
    due = sum(1 for look in LOOKS if spent >= look)
    return due if due > taken else None


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a cell's ratio moved between two runs.

    Attributes:
        interval: of the second run's ratio over the first's, of one cell by itself.
        p: probability of a shift this large where nothing has changed, two-sided, of one cell by itself.
    """

    interval: Interval
    p: float


def shifts(pairs: Sequence[tuple[Floats, Floats]], confidence: float = ACROSS_CONFIDENCE) -> list[Shift]:
    """Return the moderated Welch test of every cell's shift between two runs; of one cell alone it is Welch's.

    The shift of a cell is the difference of its workers' mean log ratios, and its variance `v = s1^2/K1 + s2^2/K2` has
    Satterthwaite's degrees of freedom `f`. Three workers a run leave about four, too few to see 10 % among a hundred
    cells, so the variances borrow from one another: taken as draws from a scaled inverse chi-squared distribution with
    `d0` degrees of freedom about `v0`, the variance used is `(d0 v0 + f v) / (d0 + f)`, with `d0 + f` degrees of
    freedom. `v0` and `d0` are fitted to the mean and variance of `log v` over the cells; `d0 <= PRIOR_LIMIT`.

    Args:
        pairs: of each cell the workers' log ratios in the first and in the second run, two or more of each.
        confidence: of the intervals.

    Source: Smyth 2004, Linear models and empirical Bayes methods, Stat. Appl. Genet. Mol. Biol. 3(1):3, section 6.2
    (the fit); Demissie et al. 2008, Unequal group variances in microarray data analyses, Bioinformatics 24(9):1168
    (Welch's form). Rates of false and missed alarms: docs/timing.md.
    """
    if not pairs:
        return []
    sizes = np.array([[len(logs) for logs in pair] for pair in pairs])
    parts = np.array([[np.var(logs, ddof=1) / len(logs) for logs in pair] for pair in pairs])
    parts = np.maximum(parts, _LEAST_VARIANCE)
    variances = parts.sum(axis=1)
    own = variances**2 / (parts**2 / (sizes - 1)).sum(axis=1)
    prior, weight = _prior(variances, (sizes - 1).sum(axis=1))
    freedom = own + weight
    errors = np.sqrt((weight * prior + own * variances) / freedom)
    moved = np.array([np.mean(second) - np.mean(first) for first, second in pairs])
    p = 2 * stats.t.sf(np.abs(moved) / errors, freedom)
    reach = stats.t.ppf((1 + confidence) / 2, freedom) * errors
    ends = np.exp([moved, moved - reach, moved + reach]).T
    return [Shift(Interval(*map(float, row)), float(one)) for row, one in zip(ends, p, strict=True)]


def _prior(variances: Floats, freedom: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the variance that cells have in common, and for how many degrees of freedom it counts: 0 of one cell.

    `log v` has mean `log v0 + psi(f/2) - log(f/2) - psi(d0/2) + log(d0/2)` and variance `psi'(f/2) + psi'(d0/2)`.
    """
    if len(variances) == 1:
        return float(variances[0]), 0.0
    centred = np.log(variances) - special.digamma(freedom / 2) + np.log(freedom / 2)
    excess = float(np.var(centred, ddof=1) - np.mean(special.polygamma(1, freedom / 2)))
    half = PRIOR_LIMIT / 2
    if excess > special.polygamma(1, half):
        half = float(optimize.brentq(lambda x: special.polygamma(1, x) - excess, excess**-0.5, half))
    return float(np.exp(np.mean(centred) + special.digamma(half) - np.log(half))), 2 * half


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being many: calling those below 5 % is wrong anywhere in at most 5 % of families.

    The j-th smallest of m becomes the largest of `(m - i + 1) p_(i)`, i <= j, at most 1; valid however the tests depend
    on one another. (scipy adjusts for the false discovery rate only.)

    Source: Holm 1979, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6:65.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return [float(one) for one in adjusted]
