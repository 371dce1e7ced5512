"""Tensors of a question and of its answer; a question's follow from (problem, seed), bit for bit, in every process.

Every number comes from NumPy's `Philox.random_raw` alone. The streams of `numpy.random.Generator` methods and of
torch's generator may change between versions; the raw Philox counter stream may not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from xentbench.spec import FAMILIES, Problem, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Array = npt.NDArray[np.float64]
    Labels = npt.NDArray[np.int64]

ZIPF_EXPONENT: Final = 1.0
"""Exponent of the rank-frequency law of words in running text (Zipf 1949)."""
WIDE_SPREAD: Final = 120.0
"""Half-spread of the `wide` family: past exp's overflow in float32 (88.7) and underflow (-103.3)."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Arguments of one call, and the gradient that arrives from upstream.

    Attributes:
        logits: `(C,)`, `(N, C)` or `(N, C, d1, …)` in the problem's dtype, layout and device.
        target: int64 indices, shape without the class axis, or probabilities, shaped as the logits.
        weight: `(C,)` in the problem's dtype, or None.
        upstream: gradient of some later scalar with respect to the loss; the loss's shape.
    """

    logits: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None
    upstream: torch.Tensor


@dataclass(frozen=True, slots=True)
class Recorded:
    """Recorded arguments of a real call: a workload.

    Attributes:
        logits: `(N, C)` or `(N, C, d1, …)`.
        target: int64 indices or probabilities.
        weight: `(C,)` or None.
        sha256: hexadecimal digest of the bytes; the problem's key carries its first 12 digits.
    """

    logits: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What one implementation answered to one problem.

    Attributes:
        loss: result of the call with gradients enabled, detached.
        loss_no_grad: result of the same call under `torch.no_grad()`, on logits that require no gradient.
        loss_again: result of a second call with the same arguments.
        gradient: of the upstream-weighted loss with respect to the logits, or None where there was none.
        target_gradient: with respect to a probability target that requires it, or None.
        changed: inputs whose bytes were different afterwards, e.g. `"logits after backward"`.
    """

    loss: torch.Tensor
    loss_no_grad: torch.Tensor
    loss_again: torch.Tensor
    gradient: torch.Tensor | None
    target_gradient: torch.Tensor | None
    changed: tuple[str, ...] = ()


class Stream:
    """Uniform and normal numbers from one raw Philox stream, named so that no two uses share it."""

    def __init__(self, *name: object) -> None:
        digest = hashlib.sha256("|".join(map(str, name)).encode()).digest()
        self._philox = np.random.Philox(key=int.from_bytes(digest[:16], "little"))

    def uniform(self, *shape: int) -> Array:
        """Return float64 numbers in [0, 1), 53 random bits each."""
        raw = self._philox.random_raw(int(np.prod(shape, dtype=np.int64)))
        return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def normal(self, *shape: int) -> Array:
        """Return standard normal float64 numbers by Box and Muller's transform (1958)."""
        count = int(np.prod(shape, dtype=np.int64))
        half = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(half)))
        angle = 2.0 * np.pi * self.uniform(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].reshape(shape)

    def integers(self, high: int, *shape: int) -> Labels:
        """Return whole numbers in [0, high)."""
        return (self.uniform(*shape) * high).astype(np.int64)


def make(problem: Problem, seed: int, recorded: Recorded | None = None) -> Inputs:
    """Return the tensors of a problem for one seed of the run; equal arguments give equal bytes.

    Args:
        problem: what to draw.
        seed: the run's seed (secret until the run has ended).
        recorded: the workload, where `problem.recorded` names one.

    Raises:
        UsageError: unknown family of logits, or recorded logits that were not given.
    """
    if problem.recorded and recorded is None:
        hint = nearest(problem.logits, FAMILIES)
        msg = f"logits {problem.logits!r} is no known family and no such workload is at hand: {hint}"
        raise UsageError(msg)
    dtype, stream = getattr(torch, problem.dtype), Stream(problem.key, seed, "inputs")
    if recorded is None:
        labels = _labels(problem, stream)
        rows = _FAMILIES[problem.logits.partition("@")[0]](problem, labels, stream)
        labels = _relabel(problem, rows, labels, stream)
        logits = _from_rows(problem, rows)
        target = _target(problem, labels, stream)
        weight = _weight(problem, labels, stream)
    else:
        logits, target, weight = recorded.logits, recorded.target, recorded.weight
        if weight is None:
            weight = _weight(problem, np.zeros(0, dtype=np.int64), stream)
    logits = logits * problem.scale + problem.offset if (problem.scale, problem.offset) != (1.0, 0.0) else logits
    upstream = _upstream(problem, Stream(problem.key, seed, "upstream"))
    return place(problem, Inputs(logits.to(dtype), target, weight, upstream.to(dtype)))


def place(problem: Problem, inputs: Inputs) -> Inputs:
    """Return the same values in the problem's layouts, dtype and device (values may have come over a pipe)."""
    dtype, device = getattr(torch, problem.dtype), torch.device(problem.device)
    target = inputs.target if problem.has_index_target else inputs.target.to(dtype)
    upstream = inputs.upstream.to(dtype).to(device)
    if problem.upstream == "expanded" and upstream.numel():
        upstream = upstream.flatten()[0].expand(upstream.shape)
    return Inputs(
        logits=lay_out(inputs.logits.to(dtype).to(device), problem.logits_layout),
        target=lay_out(target.to(device), problem.target_layout),
        weight=None if inputs.weight is None else lay_out(inputs.weight.to(dtype).to(device), problem.weight_layout),
        upstream=upstream,
    )


def lay_out(tensor: torch.Tensor, layout: str) -> torch.Tensor:  # noqa: PLR0911 - one return a layout
    """Return the tensor's values in a memory layout of that name; `expanded` repeats the first row (stride 0)."""
    if layout == "contiguous" or tensor.dim() == 0 or tensor.numel() == 0:
        return tensor.contiguous()
    if layout == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded":
        return tensor[:1].contiguous().expand(tensor.shape)
    if layout == "channels-last" and tensor.dim() > 1:
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "row-slice":
        wide = tensor.new_zeros((2 * tensor.shape[0], *tensor.shape[1:]))
        wide[::2] = tensor
        return wide[::2]
    if layout == "column-slice":
        wide = tensor.new_zeros((*tensor.shape[:-1], tensor.shape[-1] + 3))
        wide[..., 1:-2] = tensor
        return wide[..., 1:-2]
    flat = tensor.new_zeros(tensor.numel() + 1)
    flat[1:] = tensor.flatten()
    return flat[1:].view(tensor.shape)


def _labels(problem: Problem, stream: Stream) -> Labels:
    """Draw labels for each row, before the logits are known."""
    rows, classes = problem.rows, problem.num_classes
    if problem.labels == "zipf":
        mass = np.arange(1, classes + 1, dtype=np.float64) ** -ZIPF_EXPONENT
        return np.searchsorted(np.cumsum(mass) / mass.sum(), stream.uniform(rows)).clip(max=classes - 1)
    if problem.labels == "edges":
        return np.where(stream.uniform(rows) < 0.5, 0, classes - 1)  # noqa: PLR2004 - a fair coin
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
    return stream.normal(problem.rows, problem.num_classes)


def _uniform(problem: Problem, _labels: Labels, stream: Stream) -> Array:
    return stream.uniform(problem.rows, problem.num_classes)


def _equal(problem: Problem, _labels: Labels, _stream: Stream) -> Array:
    return np.zeros((problem.rows, problem.num_classes))


def _peaked(problem: Problem, labels: Labels, stream: Stream) -> Array:
    """Logits as a trained model's: broad noise and, in four rows of five, the label's class ahead by 2 to 14."""
    rows = 2.0 * stream.normal(problem.rows, problem.num_classes)
    ahead = rows.max(axis=1, initial=-np.inf) + 2.0 + 12.0 * stream.uniform(problem.rows)
    right = stream.uniform(problem.rows) < 0.8  # noqa: PLR2004 - four of five
    rows[right, labels[right]] = ahead[right]
    return rows


def _wide(problem: Problem, _labels: Labels, stream: Stream) -> Array:
    return WIDE_SPREAD * (2.0 * stream.uniform(problem.rows, problem.num_classes) - 1.0)


def _masked(problem: Problem, labels: Labels, stream: Stream) -> Array:
    """Normal logits, every class but the label's masked to -inf with probability one third (a masked vocabulary)."""
    rows = stream.normal(problem.rows, problem.num_classes)
    masked = stream.uniform(problem.rows, problem.num_classes) < 1.0 / 3.0
    masked[np.arange(problem.rows), labels] = False
    rows[masked] = -np.inf
    return rows


_FAMILIES: Final[dict[str, Callable[[Problem, Labels, Stream], Array]]] = {
    "normal": _normal,
    "peaked": _peaked,
    "uniform": _uniform,
    "equal": _equal,
    "wide": _wide,
    "masked": _masked,
}


def _from_rows(problem: Problem, rows: npt.NDArray[np.generic]) -> torch.Tensor:
    """Turn one row a target, classes last, into the shape of the logits, classes second."""
    tensor = torch.from_numpy(rows)
    if problem.batch_size is None:
        return tensor.reshape(problem.num_classes)
    return tensor.reshape(problem.batch_size, *problem.dims, problem.num_classes).movedim(-1, 1)


def _target(problem: Problem, labels: Labels, stream: Stream) -> torch.Tensor:
    if problem.has_index_target:
        ignored = stream.uniform(problem.rows) < problem.ignored
        return torch.from_numpy(np.where(ignored, problem.ignore_index, labels)).reshape(problem.row_shape)
    rows = np.zeros((problem.rows, problem.num_classes))
    if problem.target == "one-hot":
        rows[np.arange(problem.rows), labels] = 1.0
    else:
        rows = stream.uniform(problem.rows, problem.num_classes) ** 4
        rows[stream.uniform(problem.rows, problem.num_classes) < 0.2] = 0.0  # noqa: PLR2004 - exact zeros in one of five
        rows[np.arange(problem.rows), labels] += 1.0
        if problem.target == "soft":
            rows /= rows.sum(axis=1, keepdims=True)
    return _from_rows(problem, rows)


def _weight(problem: Problem, labels: Labels, stream: Stream) -> torch.Tensor | None:
    classes = problem.num_classes
    if problem.weight == "none":
        return None
    weight = 0.25 + 1.5 * stream.uniform(classes)
    if problem.weight == "unequal":
        weight = np.exp(6.0 * stream.uniform(classes) - 3.0)
    elif problem.weight == "tiny":
        weight *= 1e-6
    elif problem.weight == "some-zero":
        weight[stream.uniform(classes) < 0.3] = 0.0  # noqa: PLR2004 - about a third
    elif problem.weight == "absent-only":
        weight[np.unique(labels)] = 0.0
    return torch.from_numpy(weight)


def _upstream(problem: Problem, stream: Stream) -> torch.Tensor:
    """Draw a gradient that no shortcut for 1 can pass: signs of both kinds, sizes from 0.5 to 2."""
    if problem.upstream == "one":
        return torch.ones(problem.loss_shape)
    size = 0.5 + 1.5 * stream.uniform(*problem.loss_shape)
    sign = np.where(stream.uniform(*problem.loss_shape) < 0.5, -1.0, 1.0)  # noqa: PLR2004 - a fair coin
    return torch.from_numpy(np.asarray(size * sign))
