"""The class axis taken for another, memory read as though it were contiguous (class 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from xentbench.mistakes.call import Call, before, classes_last, of_call, reference, wide
from xentbench.mistakes.frame import Frame
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from torch import Tensor


def as_if_contiguous(tensor: Tensor) -> Tensor:
    """Return the numbers that a kernel finds which gets an address and a shape but no strides.

    Beyond the end of the storage it begins again, where a real kernel would read foreign memory.
    """
    if tensor.is_contiguous() or not tensor.numel():
        return tensor
    storage = tensor.detach().as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)
    place = (tensor.storage_offset() + torch.arange(tensor.numel(), device=tensor.device)) % len(storage)
    return storage[place].reshape(tensor.shape)


class _Misread(torch.autograd.Function):
    """Contiguous misreading of the values; the gradient is passed on as it is."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        return as_if_contiguous(tensor).clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class _Miswritten(torch.autograd.Function):
    """The identity, with a gradient written in row order into memory that has the logits' strides."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        ctx.strides = tensor.stride()  # type: ignore[attr-defined]
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        strides: tuple[int, ...] = ctx.strides  # type: ignore[attr-defined]
        if not gradient.numel():
            return gradient
        return as_if_contiguous(torch.empty_strided(gradient.shape, strides, dtype=gradient.dtype).copy_(gradient))


def _misread(tensor: Tensor) -> Tensor:
    result: Tensor = _Misread.apply(tensor)  # type: ignore[no-untyped-call]
    return result


def _miswritten(tensor: Tensor) -> Tensor:
    dense = tensor.dim() > 1 and 0 not in tensor.stride()
    result: Tensor = _Miswritten.apply(tensor) if dense else tensor  # type: ignore[no-untyped-call]
    return result


def _softmax_over_last_axis(call: Call) -> Tensor:
    """Normalise over the positions of spatial input, then pick the label's entry on the class axis."""
    if call.logits.dim() <= 2:
        return reference(call)
    losses = -torch.log_softmax(wide(call.logits), dim=-1)
    return Frame(class_losses=lambda rows: rows)(losses, _widened(call), _wide_weight(call), *_options(call)).to(
        call.result_dtype
    )


def _widened(call: Call) -> Tensor:
    return call.target if call.has_labels else wide(call.target)


def _wide_weight(call: Call) -> Tensor | None:
    return None if call.weight is None else wide(call.weight)


def _options(call: Call) -> tuple[int, str, float]:
    return call.ignore_index, call.reduction, call.label_smoothing


def _reshaped(tensor: Tensor) -> Tensor:
    """Reshape `(N, C, d1, …)` to `(N, d1, …, C)` without moving the class axis."""
    if tensor.dim() <= 2:
        return tensor
    return tensor.reshape(tensor.shape[0], *tensor.shape[2:], tensor.shape[1])


def _swapped_positions(tensor: Tensor) -> Tensor:
    """Move the class axis last but leave two further axes in swapped order."""
    rows = classes_last(tensor)
    if rows.dim() != 4:
        return rows
    return rows.transpose(1, 2).reshape(rows.shape)


def _labels_misread(call: Call) -> Call:
    return call.but(target=as_if_contiguous(call.target)) if call.has_labels else call


def _probabilities_misread(call: Call) -> Call:
    return call if call.has_labels else call.but(target=_misread(call.target))


def _weight_misread(call: Call) -> Call:
    return call if call.weight is None else call.but(weight=as_if_contiguous(call.weight))


def _row_stride_assumed(call: Call) -> Call:
    """Read rows at a distance of C, honouring the distance of classes."""
    logits = call.logits
    if logits.dim() != 2 or logits.stride(1) != 1 or not logits.numel():
        return call
    return call.but(logits=_misread(logits))


MISTAKES = (
    Mistake("softmax-over-last-axis", 10, of_call(_softmax_over_last_axis), "Spatial softmax over positions."),
    Mistake("class-axis-reshaped", 10, Frame(rows=_reshaped), "Spatial input is reshaped where it must be transposed."),
    Mistake("positions-swapped", 10, Frame(rows=_swapped_positions), "Two spatial axes are read in swapped order."),
    Mistake(
        "logits-read-as-contiguous",
        10,
        before(lambda call: call.but(logits=_misread(call.logits))),
        "The strides of the logits are not looked at.",
    ),
    Mistake("row-distance-assumed", 10, before(_row_stride_assumed), "Rows are read C apart: slices go wrong."),
    Mistake("labels-read-as-contiguous", 10, before(_labels_misread), "The strides of labels are not looked at."),
    Mistake(
        "probabilities-read-as-contiguous", 10, before(_probabilities_misread), "Nor those of probability targets."
    ),
    Mistake("weight-read-as-contiguous", 10, before(_weight_misread), "The stride of the weight is not looked at."),
    Mistake(
        "gradient-written-as-contiguous",
        10,
        before(lambda call: call.but(logits=_miswritten(call.logits))),
        "The gradient is written in row order into memory laid out as the logits are.",
    ),
)
