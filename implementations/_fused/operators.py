"""The kernel's operators in torch: loaded with its library, and what they return without running, for tracing."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final

import torch
from xentbench.implementations._fused import building

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MOST_APART: Final = 4096
"""As in `arguments.h`: more classes than this, where they are not next to each other, are copied first."""


@functools.cache
def cross_entropy(variant: building.Variant = building.FUSED) -> Callable[..., Tensor]:
    """Return the operator `xentbench::cross_entropy`, built where it is not there yet, and loaded once a process.

    Args:
        variant: what it is built with, and the name in place of `xentbench`.

    Raises:
        BuildError: it could not be built.
    """
    torch.ops.load_library(building.library(variant))  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"{variant.namespace}::cross_entropy_value", _fake_value)
    torch.library.register_fake(f"{variant.namespace}::cross_entropy_forward", _fake_forward)
    torch.library.register_fake(f"{variant.namespace}::cross_entropy_backward", _fake_backward)
    operator: Callable[..., Tensor] = getattr(torch.ops, variant.namespace).cross_entropy.default
    return operator


def _fake_value(
    input: Tensor,  # noqa: A002 - torch's name
    target: Tensor,
    weight: Tensor | None,  # noqa: ARG001 - the operator's signature
    ignore_index: int,  # noqa: ARG001
    reduction: int,
    label_smoothing: float,  # noqa: ARG001
) -> Tensor:
    axis = 0 if input.dim() == 1 else 1
    rows = [size for dim, size in enumerate(input.shape) if dim != axis]
    dtype = torch.promote_types(input.dtype, target.dtype) if target.is_floating_point() else input.dtype
    return input.new_empty([] if reduction else rows, dtype=dtype)


def _fake_forward(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> tuple[Tensor, Tensor]:
    loss = _fake_value(input, target, weight, ignore_index, reduction, label_smoothing)
    rows = math.prod(size for dim, size in enumerate(input.shape) if dim != min(1, input.dim() - 1))
    return loss, input.new_empty([2 * rows + 1], dtype=torch.promote_types(input.dtype, torch.float32))


def _fake_backward(
    upstream: Tensor,  # noqa: ARG001
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,  # noqa: ARG001
    stats: Tensor,  # noqa: ARG001
    ignore_index: int,  # noqa: ARG001
    reduction: int,  # noqa: ARG001
    label_smoothing: float,  # noqa: ARG001
    target_grad: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor]:
    of_target = _laid_as_gradient(input, target.dtype) if target_grad else input.new_empty([0])
    return _laid_as_gradient(input, input.dtype), of_target


def _laid_as_gradient(input: Tensor, dtype: torch.dtype) -> Tensor:  # noqa: A002
    """Return an empty tensor of the input's shape: the classes last in memory where the kernel copied them there."""
    if input.dim() > 2 and input.shape[1] > MOST_APART and math.prod(input.shape[2:]) > 1:  # noqa: PLR2004
        rows, classes, *inners = input.shape
        return input.new_empty([rows, *inners, classes], dtype=dtype).movedim(-1, 1)
    return input.new_empty(input.shape, dtype=dtype)
