"""Tensors of a question and of its answer; a question's follow from (problem, seed), bit for bit, in every process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from xentbench import drawing
from xentbench.drawing import Stream
from xentbench.spec import FAMILIES, Problem, UsageError, nearest

SMALL_ELEMENTS: Final = 4096
"""Up to so many logits a problem is asked in more ways than the plain ones: see `asks_more`."""


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
        shared: what the loss lies in the same storage with, e.g. `"the logits"`.
        second_loss: result of a second call, with the values of `another`, made before the first one's backward.
        second_gradient: of that second call.
        gradient_again: a second backward through the first call's graph (`retain_graph`).
        hessian_product: second derivative of the upstream-weighted loss times `direction`.
        upstream_slope: derivative of the gradient times `direction` with respect to the upstream gradient.
        notes: what the implementation refuses by an exception, as labels: `backward-once`, `no-double-backward`.
    """

    loss: torch.Tensor
    loss_no_grad: torch.Tensor
    loss_again: torch.Tensor
    gradient: torch.Tensor | None
    target_gradient: torch.Tensor | None
    changed: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    second_loss: torch.Tensor | None = None
    second_gradient: torch.Tensor | None = None
    gradient_again: torch.Tensor | None = None
    hessian_product: torch.Tensor | None = None
    upstream_slope: torch.Tensor | None = None
    notes: tuple[str, ...] = ()


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
        rows, labels = drawing.rows_and_labels(problem, stream)
        logits = drawing.from_rows(problem, rows)
        target = drawing.target(problem, labels, stream)
        weight = drawing.weight(problem, labels, stream)
    else:
        logits, target, weight = recorded.logits, recorded.target, recorded.weight
        if weight is None:
            weight = drawing.weight(problem, np.zeros(0, dtype=np.int64), stream)
    logits = logits * problem.scale + problem.offset if (problem.scale, problem.offset) != (1.0, 0.0) else logits
    upstream = drawing.upstream(problem, Stream(problem.key, seed, "upstream"))
    return place(problem, Inputs(logits.to(dtype), target, weight, upstream.to(dtype)))


def timed_seed(seed: int) -> int:
    """Return the seed of what is timed: workers are sent it, and cannot tell from it the seeds of bursts to come."""
    return int.from_bytes(hashlib.sha256(f"timed {seed}".encode()).digest()[:7], "big")


def asks_more(problem: Problem) -> bool:
    """Whether hidden state, retained graphs and second derivatives are asked about too: where that costs little."""
    return 0 < problem.elements <= SMALL_ELEMENTS and problem.mode != "no-grad" and not problem.must_raise


def another(problem: Problem, inputs: Inputs) -> Inputs:
    """Return other values of the same shapes: what a second call is asked, lest it answer from the first one's.

    Classes are reversed, so that every loss changes, the target moves on by one row, and where rows may be ignored the
    first one is, so that the count changes too.
    """
    axis = 0 if problem.batch_size is None else 1
    target = inputs.target.flip(axis) if not problem.has_index_target else inputs.target.clone()
    if problem.batch_size:
        target = target.roll(1, 0)
    if problem.has_index_target and problem.ignored and target.numel():
        target.view(-1)[0] = problem.ignore_index
    return place(problem, Inputs(inputs.logits.flip(axis), target, inputs.weight, inputs.upstream))


def direction(problem: Problem) -> torch.Tensor:
    """Return the vector that a Hessian is multiplied by; the logits' shape and dtype, the same for every seed."""
    values = Stream(problem.logits_shape, "direction").normal(*problem.logits_shape)
    return torch.from_numpy(values).to(getattr(torch, problem.dtype)).to(problem.device)


def place(problem: Problem, inputs: Inputs) -> Inputs:
    """Return the same values in the problem's layouts, dtype and device (values may have come over a pipe)."""
    dtype, device = getattr(torch, problem.dtype), torch.device(problem.device)
    target = inputs.target if problem.has_index_target else inputs.target.to(dtype)
    upstream = inputs.upstream.to(dtype).to(device)
    if problem.upstream == "expanded" and upstream.numel():
        upstream = upstream.flatten()[0].expand(upstream.shape)
    elif problem.upstream == "strided":
        upstream = lay_out(upstream, "row-slice")
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
