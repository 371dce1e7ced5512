"""Wrong divisors of the mean, and changed results where nothing is left to average (classes 1 and 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from xentbench.mistakes.call import Call, after, of_call, reference, wide
from xentbench.mistakes.frame import Frame, divisor_of, reduce
from xentbench.mistakes.kernel import Kernel, Saved, share_of
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def _weights_of_stand_ins(call: Call, ignored: Tensor, label: Tensor) -> Tensor | int:
    """Add up the weights of all rows, also the stand-in label's of those that are ignored."""
    return divisor_of(call, ignored, label) if call.weight is None else wide(call.weight)[label].sum()


def _parts(call: Call, rows: int) -> list[Call]:
    """Return the call in parts of so many rows of the batch."""
    pairs = zip(torch.split(call.logits, rows), torch.split(call.target, rows), strict=True)
    return [call.but(logits=logits, target=target) for logits, target in pairs]


def _mean_of_chunk_means(rows: int, *, by_size: bool) -> Callable[[Call], Tensor]:
    def loss(call: Call) -> Tensor:
        if call.reduction != "mean" or len(call.logits) <= rows or call.logits.dim() == 1:
            return reference(call)
        parts = _parts(call, rows)
        means = torch.stack([wide(reference(part)) for part in parts])
        sizes = means.new_tensor([len(part.logits) if by_size else 1 for part in parts])
        return ((means * sizes).sum() / sizes.sum()).to(call.result_dtype)

    return loss


def _sum_over_shards(call: Call) -> Tensor:
    """Add the two halves' sums, but divide by the first half's count, as a rank does that forgets the all-reduce."""
    if call.reduction != "mean" or not call.has_labels or len(call.logits) % 2 or call.logits.dim() == 1:
        return reference(call)
    half = _parts(call, max(1, len(call.logits) // 2))
    if not len(call.logits):
        return reference(call)
    total = torch.stack([wide(reference(part.but(reduction="sum"))) for part in half]).sum()
    ignored = half[0].target == call.ignore_index
    return (total / (2 * divisor_of(half[0], ignored, half[0].target.masked_fill(ignored, 0)))).to(call.result_dtype)


def _padded_to_block(call: Call, ignored: Tensor, label: Tensor) -> Tensor | int:
    """Divide by the rows that a launch covers, whole blocks of 128 from the second block on."""
    count = divisor_of(call, ignored, label)
    if call.weight is not None or ignored.numel() <= 128:
        return count
    return count + (-ignored.numel()) % 128


def _rows_in_backward(upstream: Tensor, saved: Saved) -> Tensor:
    if saved.call.reduction != "mean" or not saved.call.has_labels or saved.call.weight is not None:
        return share_of(upstream, saved)
    return share_of(upstream * saved.divisor / max(1, len(saved.ignored)), saved)


def _only_if_labels(loss: Tensor, call: Call, value: float) -> Tensor:
    """Replace a mean's NaN where no row counts."""
    degenerate = call.reduction == "mean" and call.has_labels and bool((call.target == call.ignore_index).all())
    return torch.full_like(loss, value) + 0.0 * torch.nan_to_num(loss) if degenerate else loss


def _sum_from_mean(call: Call) -> Tensor:
    """Form the sum as the mean times the count."""
    if call.reduction != "sum" or not call.has_labels:
        return reference(call)
    mean = wide(reference(call.but(reduction="mean", logits=wide(call.logits), weight=_widened(call.weight))))
    ignored = call.target == call.ignore_index
    return (mean * divisor_of(call, ignored, call.target.long().masked_fill(ignored, 0))).to(call.result_dtype)


def _widened(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else wide(weight)


def _empty_is_scalar(call: Call) -> Tensor:
    if call.target.numel():
        return reference(call)
    return wide(call.logits).sum().to(call.result_dtype)


MISTAKES = (
    Mistake(
        "mean-over-all-rows",
        1,
        Frame(divisor=lambda call, ignored, label: divisor_of(call, torch.zeros_like(ignored), label)),
        "The mean divides by all rows, ignored ones included.",
    ),
    Mistake(
        "mean-over-valid-rows-despite-weights",
        1,
        Frame(divisor=lambda call, ignored, label: divisor_of(call.but(weight=None), ignored, label)),
        "With class weights the mean divides by the number of valid rows, not by their labels' weights.",
    ),
    Mistake(
        "mean-over-stand-ins-weights",
        1,
        Frame(divisor=_weights_of_stand_ins),
        "The divisor adds class 0's weight for every ignored row.",
    ),
    Mistake(
        "mean-counts-non-negative-labels",
        1,
        Frame(divisor=lambda call, ignored, label: divisor_of(call, call.target < 0, label)),
        "Rows are counted where the label is not negative, whatever ignore_index is.",
    ),
    Mistake(
        "mean-of-chunk-means",
        1,
        of_call(_mean_of_chunk_means(32, by_size=False)),
        "Means of chunks of 32 rows are averaged although chunks hold unequal numbers of valid rows.",
    ),
    Mistake(
        "mean-of-chunk-means-by-size",
        1,
        of_call(_mean_of_chunk_means(1024, by_size=True)),
        "Means of chunks of 1024 rows are weighted by the chunks' sizes instead of their valid rows.",
    ),
    Mistake("mean-by-first-shard", 1, of_call(_sum_over_shards), "The divisor is twice the first half's count."),
    Mistake("mean-over-launched-rows", 1, Frame(divisor=_padded_to_block), "Rows padded to blocks of 128 are counted."),
    Mistake("mean-over-all-rows-in-backward", 1, Kernel(share=_rows_in_backward), "Only the gradient divides by N."),
    Mistake(
        "count-of-at-least-one",
        2,
        Frame(reduce=lambda rows, divisor, how: reduce(rows, torch.as_tensor(divisor).clamp(min=1), how)),
        "The divisor is at least 1: without a valid row the mean is 0, and small weights average wrongly.",
    ),
    Mistake(
        "epsilon-in-the-divisor",
        2,
        Frame(reduce=lambda rows, divisor, how: reduce(rows, torch.as_tensor(divisor) + 1e-12, how)),
        "The divisor has 1e-12 added: without a valid row the mean is 0.",
    ),
    Mistake(
        "nan-mean-made-zero",
        2,
        after(lambda loss, call: _only_if_labels(loss, call, 0.0)),
        "Without a valid row the mean is 0 instead of NaN.",
    ),
    Mistake(
        "nan-mean-made-infinite",
        2,
        after(lambda loss, call: _only_if_labels(loss, call, -torch.inf)),
        "Without a valid row the mean is the start value of a maximum.",
    ),
    Mistake("sum-as-mean-times-count", 2, of_call(_sum_from_mean), "Without a valid row the sum is NaN instead of 0."),
    Mistake("empty-batch-is-scalar", 2, of_call(_empty_is_scalar), "An empty batch returns 0 for every reduction."),
)
