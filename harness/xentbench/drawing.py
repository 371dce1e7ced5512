"""How a problem's numbers are drawn: one raw Philox stream, families of logits, labels, targets, class weights.

Every number comes from NumPy's `Philox.random_raw` alone. The streams of `numpy.random.Generator` methods and of
torch's generator may change between versions; the raw Philox counter stream may not.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from xentbench.spec import Problem

    Array = npt.NDArray[np.float64]
    Labels = npt.NDArray[np.int64]

ZIPF_EXPONENT: Final = 1.0
"""Exponent of the rank-frequency law of words in running text (Zipf 1949)."""
WIDE_SPREAD: Final = 120.0
"""Half-spread of the `wide` family: past exp's overflow in float32 (88.7) and underflow (-103.3)."""

DRAWN_AT_ONCE: Final = 1 << 16
"""Numbers in a block: more would leave the cache, and one array of them all is enough to hold."""


class Stream:
    """Uniform and normal numbers from one raw Philox stream, named so that no two uses share it."""

    def __init__(self, *name: object) -> None:
        digest = hashlib.sha256("|".join(map(str, name)).encode()).digest()
        self._philox = np.random.Philox(key=int.from_bytes(digest[:16], "little"))

    def uniform(self, *shape: int) -> Array:
        """Return float64 numbers in [0, 1), 53 random bits each."""
        drawn = np.empty(int(np.prod(shape, dtype=np.int64)))
        for part in _blocks(drawn):
            np.multiply(self._philox.random_raw(len(part)) >> np.uint64(11), 2.0**-53, out=part)
        return drawn.reshape(shape)

    def normal(self, *shape: int) -> Array:
        """Return standard normal float64 numbers by Box and Muller's transform (1958)."""
        count = int(np.prod(shape, dtype=np.int64))
        half = (count + 1) // 2
        drawn = self.uniform(2 * half)
        for radius, angle in zip(_blocks(drawn[:half]), _blocks(drawn[half:]), strict=True):
            size, turn = np.sqrt(-2.0 * np.log1p(-radius)), 2.0 * np.pi * angle
            np.multiply(size, np.cos(turn), out=radius)
            np.multiply(size, np.sin(turn), out=angle)
        return drawn[:count].reshape(shape)

    def integers(self, high: int, *shape: int) -> Labels:
        """Return whole numbers in [0, high)."""
        return (self.uniform(*shape) * high).astype(np.int64)


def _blocks(numbers: Array) -> Iterator[Array]:
    """Yield views that together are all the numbers."""
    for start in range(0, len(numbers), DRAWN_AT_ONCE):
        yield numbers[start : start + DRAWN_AT_ONCE]


def rows_and_labels(problem: Problem, stream: Stream) -> tuple[Array, Labels]:
    """Draw logits as float64 `(rows, C)` of the problem's synthetic family, and int64 `(rows,)` labels."""
    labels = _labels(problem, stream)
    rows = FAMILIES[problem.logits.partition("@")[0]](problem, labels, stream)
    return rows, _relabel(problem, rows, labels, stream)


def _labels(problem: Problem, stream: Stream) -> Labels:
    """Draw labels for each row, before the logits are known."""
    rows, classes = problem.rows, problem.num_classes
    if problem.labels == "zipf":
        mass = np.arange(1, classes + 1, dtype=np.float64) ** -ZIPF_EXPONENT
        return np.searchsorted(np.cumsum(mass) / mass.sum(), stream.uniform(rows)).clip(max=classes - 1)
    if problem.labels == "edges":
        first = stream.integers(2, 1)[0]
        return np.where((np.arange(rows) + first) % 2 == 0, 0, classes - 1)
    return stream.integers(classes, rows)


def _relabel(problem: Problem, rows: Array, labels: Labels, stream: Stream) -> Labels:
    """Let the labels follow the logits where the problem asks for it: nine of ten likely ones are the row's maximum."""
    if rows.shape[0] == 0 or problem.labels not in ("likely", "unlikely"):
        return labels
    if problem.labels == "unlikely":
        lowest: Labels = np.where(np.isfinite(rows), rows, np.inf).argmin(axis=1)
        return lowest
    return np.where(stream.uniform(rows.shape[0]) < 0.9, rows.argmax(axis=1), labels)  # noqa: PLR2004 - nine of ten


def _normal(problem: Problem, _labels: Labels, stream: Stream) -> Array:
    """Independent logits of mean 0 and variance 1."""
    return stream.normal(problem.rows, problem.num_classes)


def _uniform(problem: Problem, _labels: Labels, stream: Stream) -> Array:
    """Independent logits between 0 and 1."""
    return stream.uniform(problem.rows, problem.num_classes)


def _equal(problem: Problem, _labels: Labels, _stream: Stream) -> Array:
    """All logits 0: the loss is log C."""
    return np.zeros((problem.rows, problem.num_classes))


def _peaked(problem: Problem, labels: Labels, stream: Stream) -> Array:
    """Logits as a trained model's: broad noise and, in four rows of five, the label's class ahead by 2 to 14."""
    rows = 2.0 * stream.normal(problem.rows, problem.num_classes)
    ahead = rows.max(axis=1, initial=-np.inf) + 2.0 + 12.0 * stream.uniform(problem.rows)
    right = stream.uniform(problem.rows) < 0.8  # noqa: PLR2004 - four of five
    rows[right, labels[right]] = ahead[right]
    return rows


def _wide(problem: Problem, _labels: Labels, stream: Stream) -> Array:
    """Logits spread evenly beyond exp's overflow and underflow in float32."""
    return WIDE_SPREAD * (2.0 * stream.uniform(problem.rows, problem.num_classes) - 1.0)


def _leading_masked(problem: Problem, labels: Labels, stream: Stream) -> Array:
    """Normal logits, the first half of the classes -inf but for the label's: an online softmax begins with nothing."""
    rows = stream.normal(problem.rows, problem.num_classes)
    masked = np.tile(np.arange(problem.num_classes) < problem.num_classes // 2, (problem.rows, 1))
    masked[np.arange(problem.rows), labels] = False
    rows[masked] = -np.inf
    return rows


def _special(problem: Problem, labels: Labels, stream: Stream) -> Array:
    """Normal logits; of six rows one has -inf on its label, one -inf everywhere, one NaN and one +inf off its label."""
    rows = stream.normal(problem.rows, problem.num_classes)
    every, beside = np.arange(problem.rows), (labels + 1) % problem.num_classes
    rows[every % 6 == 1, labels[every % 6 == 1]] = -np.inf
    rows[every % 6 == 2] = -np.inf  # noqa: PLR2004 - which of six
    rows[every % 6 == 3, beside[every % 6 == 3]] = np.nan  # noqa: PLR2004 - as above
    rows[every % 6 == 4, beside[every % 6 == 4]] = np.inf  # noqa: PLR2004 - as above
    return rows


def _masked(problem: Problem, labels: Labels, stream: Stream) -> Array:
    """Normal logits, every class but the label's masked to -inf with probability one third (a masked vocabulary)."""
    rows = stream.normal(problem.rows, problem.num_classes)
    masked = stream.uniform(problem.rows, problem.num_classes) < 1.0 / 3.0
    masked[np.arange(problem.rows), labels] = False
    rows[masked] = -np.inf
    return rows


FAMILIES: Final[dict[str, Callable[[Problem, Labels, Stream], Array]]] = {
    "normal": _normal,
    "peaked": _peaked,
    "uniform": _uniform,
    "equal": _equal,
    "wide": _wide,
    "masked": _masked,
    "leading-masked": _leading_masked,
    "special": _special,
}


def from_rows(problem: Problem, rows: npt.NDArray[np.generic]) -> torch.Tensor:
    """Turn one row a target, classes last, into the shape of the logits, classes second."""
    tensor = torch.from_numpy(rows)
    if problem.batch_size is None:
        return tensor.reshape(problem.num_classes)
    return tensor.reshape(problem.batch_size, *problem.dims, problem.num_classes).movedim(-1, 1)


def target(problem: Problem, labels: Labels, stream: Stream) -> torch.Tensor:
    """Draw the target; rows are ignored unevenly, from none at one end of the batch to all at the other."""
    if problem.has_index_target:
        place = np.linspace(0.0, 1.0, problem.rows)
        place = place if stream.uniform(1) < 0.5 else place[::-1]  # noqa: PLR2004 - a fair coin
        chance = place ** (1.0 / problem.ignored - 1.0) if problem.ignored else np.zeros(problem.rows)
        ignored = stream.uniform(problem.rows) < chance
        index = np.where(ignored, problem.ignore_index, labels)
        if problem.invalid.startswith("label"):
            index[int(stream.integers(problem.rows, 1)[0])] = problem.num_classes if "high" in problem.invalid else -1
        if problem.invalid == "target-long":
            return torch.from_numpy(np.append(index, 0))
        return torch.from_numpy(index).to(getattr(torch, problem.label_dtype)).reshape(problem.row_shape)
    rows = np.zeros((problem.rows, problem.num_classes))
    if problem.target == "one-hot":
        rows[np.arange(problem.rows), labels] = 1.0
    else:
        rows = stream.uniform(problem.rows, problem.num_classes) ** 4
        rows[stream.uniform(problem.rows, problem.num_classes) < 0.2] = 0.0  # noqa: PLR2004 - exact zeros in one of five
        rows[np.arange(problem.rows), labels] += 1.0
        if problem.target == "soft":
            rows /= rows.sum(axis=1, keepdims=True)
        else:
            rows[::5] = 0.0  # nothing to learn from: neither loss nor gradient
    return from_rows(problem, rows)


def weight(problem: Problem, labels: Labels, stream: Stream) -> torch.Tensor | None:
    """Draw `(C,)` class weights, or return None where there are none; labels are what `absent-only` is about."""
    if problem.weight == "none" and not problem.invalid.startswith("weight"):
        return None
    classes = problem.num_classes + {"weight-short": -1, "weight-long": 1}.get(problem.invalid, 0)
    drawn = 0.25 + 1.5 * stream.uniform(classes)
    if problem.weight == "unequal":
        drawn = np.exp(6.0 * stream.uniform(classes) - 3.0)
    elif problem.weight == "tiny":
        drawn *= 1e-6
    elif problem.weight == "some-zero":
        drawn[stream.uniform(classes) < 0.3] = 0.0  # noqa: PLR2004 - about a third
    elif problem.weight == "absent-only":
        drawn[np.unique(labels)] = 0.0
    return torch.from_numpy(drawn)


def upstream(problem: Problem, stream: Stream) -> torch.Tensor:
    """Draw a gradient that no shortcut for 1 can pass: signs of both kinds, sizes from 0.5 to 2."""
    if problem.upstream == "one":
        return torch.ones(problem.loss_shape)
    size = 0.5 + 1.5 * stream.uniform(*problem.loss_shape)
    sign = np.where(stream.uniform(*problem.loss_shape) < 0.5, -1.0, 1.0)  # noqa: PLR2004 - a fair coin
    return torch.from_numpy(np.asarray(size * sign))
