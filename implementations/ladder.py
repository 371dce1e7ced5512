"""The ladder from the formula to `fused`, one idea a step: `docs/implementations.md` explains them.

Each step is the one before it with one idea more, and has all options of `F.cross_entropy`. What a step shows is the
loss at a label: label smoothing and probabilities ask for the losses of all classes, which steps 3 to 6 take from step
2. Steps are judged and timed where they are named, as `'ladder-*'`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import torch
from torch.autograd.function import BackwardCFunction, Function, FunctionCtx
from torch.nn import functional
from xentbench.implementations import _options, chunked_online, from_scratch, fused, fused_python, naive
from xentbench.implementations._fused import building, operators

from xentbench import Deviation, Implementation
from xentbench.spec import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from xentbench import Problem

    LabelLoss = Callable[[Tensor, Tensor], Tensor]
    ClassLosses = Callable[[Tensor], Tensor]
    Loss = Callable[[Tensor, Tensor, Tensor | None, int, str, float], Tensor]

STEPS: Final[list[Implementation]] = []
"""The steps, in order."""


def step(
    name: str,
    source: str,
    *,
    class_losses: ClassLosses | None = None,
    deviations: Sequence[Deviation] = (),
    supports: Callable[[Problem], str | None] = _options.refusal,
) -> Callable[[LabelLoss | Loss], LabelLoss | Loss]:
    """Put the decorated function on the ladder: a whole loss, or with `class_losses` that of rows and labels alone."""

    def put(function: LabelLoss | Loss) -> LabelLoss | Loss:
        whole = function if class_losses is None else _with_options(function, class_losses)
        number = len(STEPS) + 1
        STEPS.append(
            Implementation(
                f"ladder-{number:02}-{name}",
                whole,
                source=source,
                summary=f"Step {number}: {first_line(function)}",
                supports=supports,
                deviations=tuple(deviations),
                on_request=True,
            )
        )
        return function

    return put


def _with_options(label_loss: Callable[..., Tensor], class_losses: ClassLosses) -> Loss:
    def loss(
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        return _options.with_options(
            label_loss, class_losses, logits, target, weight, ignore_index, reduction, label_smoothing
        )

    return loss


def at_label(class_losses: Tensor, label: Tensor) -> Tensor:
    """Return `sum_j y[j] l[j]`, y one-hot at the label: `(*N, C)`, `(*N)` to `(*N)`."""
    one_hot = functional.one_hot(label, class_losses.shape[-1])
    # Chosen by `where`, not by multiplication: a class masked with -inf has an infinite loss, and 0 * inf is NaN.
    return torch.where(one_hot.bool(), class_losses, 0.0).sum(dim=-1)


@step(
    "formula",
    "Goodfellow, Bengio, Courville: Deep Learning (2016), section 6.2.2.3",
    class_losses=naive.class_losses,
    deviations=[naive.UNSHIFTED],
)
def formula(logits: Tensor, label: Tensor) -> Tensor:
    """The textbook's formula, read aloud: exp, sum, log, times one-hot.

    `loss = sum_j y[j] (log(sum_k exp(x[k])) - x[j])`, y one-hot at the label. Every operation reads and
    writes arrays of the logits' size. It overflows where logits pass 88 in float32. The quotient's logarithm is written
    as a difference from the start: `log(exp(x) / s)` would lose what lies below 1e-38 as well.
    """
    return at_label(naive.class_losses(logits), label)


@step(
    "shift",
    "Blanchard, Higham & Higham 2021, doi:10.1093/imanum/draa038",
    class_losses=from_scratch.class_losses,
)
def shift(logits: Tensor, label: Tensor) -> Tensor:
    """Subtract the row's maximum, so that nothing overflows.

    `loss = sum_j y[j] (log(sum_k exp(x[k] - m)) - (x[j] - m))`, `m = max(x)`. It is right for all logits, and costs one
    more pass for the maximum and one for the difference.
    """
    return at_label(from_scratch.class_losses(logits), label)


@step("gather", "Wijmans et al. 2024, arXiv:2411.09009", class_losses=from_scratch.class_losses)
def gather(logits: Tensor, label: Tensor) -> Tensor:
    """Read the label's entry, in place of a one-hot product.

    `loss = log(sum_k exp(x[k] - m)) - (x[t] - m)`. No array of log-probabilities, none of zeros and ones: of N * C
    losses N are asked for.
    """
    return from_scratch.label_loss(logits, label)


class SavedSoftmax(Function):
    """`log s - (x[label] - m)` of each row with `s = sum_j exp(x[j] - m)`; keeps p, and its gradient is `p - y`."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, label: Tensor) -> Tensor:
        """Map `(*N, C)` logits and `(*N, 1)` labels to `(*N)` losses."""
        probability = from_scratch.shift(logits)
        shifted = probability.gather(-1, label)
        total = probability.exp_().sum(dim=-1, keepdim=True)
        loss = total.log() - shifted
        ctx.save_for_backward(probability.div_(total), label, loss)
        return loss.squeeze(-1)

    @staticmethod
    def backward(ctx: BackwardCFunction, upstream: Tensor) -> tuple[Tensor, None]:
        """Return `(p - y) * upstream`, y one-hot at the label; the label gets no gradient."""
        _options.refuse_double_backward("ladder-04-backward")
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        probability, label, loss = saved
        upstream = upstream.unsqueeze(-1)
        # expm1(log p) is p - 1 without cancellation.
        return (probability * upstream).scatter_(-1, label, (-loss).expm1_().mul_(upstream)), None


@step(
    "backward",
    "https://docs.pytorch.org/docs/stable/notes/extending.html",
    class_losses=from_scratch.class_losses,
)
def backward(logits: Tensor, label: Tensor) -> Tensor:
    """Write the gradient by hand, softmax less one-hot: autograd need not find out.

    `d loss / d x[j] = p[j] - y[j]`, `p = exp(x - m) / s`. The derivatives of log, sum, exp and difference, a pass each,
    become one product. p is made where the exponentials were, and kept.
    """
    loss: Tensor = SavedSoftmax.apply(logits, label.unsqueeze(-1))  # type: ignore[no-untyped-call]
    return loss


def stats(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return `m = max(x)` and `s = sum_j exp(x[j] - m)` of each row, `(*N, C)` to two of `(*N)`, in float32 or more."""
    wide = _options.accumulable(logits)
    maximum = wide.amax(dim=-1)
    return maximum, (wide - maximum.unsqueeze(-1)).exp_().sum(dim=-1)


class Recomputed(Function):
    """`log s - (x[label] - m)` of each row; keeps m and log s, and computes p from them in backward."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, logits: Tensor, label: Tensor, stats_of: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Map `(*N, C)` logits and `(*N, 1)` labels to `(*N)` losses, with the maxima and sums of `stats_of`."""
        maximum, total = (each.unsqueeze(-1) for each in stats_of(logits))
        log_sum = total.log()
        ctx.save_for_backward(logits, label, maximum, log_sum)
        return (log_sum - (logits.gather(-1, label) - maximum)).squeeze(-1).to(logits.dtype)

    @staticmethod
    def backward(ctx: BackwardCFunction, upstream: Tensor) -> tuple[Tensor, None, None]:
        """Return `(p - y) * upstream`, y one-hot at the label, with `p = exp((x - m) - log s)`."""
        _options.refuse_double_backward("ladder-05-recompute")
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        logits, label, maximum, log_sum = saved
        log_probability = (logits - maximum).sub_(log_sum)
        own = log_probability.gather(-1, label).expm1_()
        gradient = log_probability.exp_().scatter_(-1, label, own).mul_(upstream.unsqueeze(-1))
        return gradient.to(logits.dtype), None, None


@step("recompute", "Chen et al. 2016, arXiv:1604.06174", class_losses=from_scratch.class_losses)
def recompute(logits: Tensor, label: Tensor) -> Tensor:
    """Keep two numbers a row, not C: the softmax is computed again in backward.

    `p = exp((x - m) - log s)` from the logits, which are there anyway. A second exponential for every element, and an
    array of the logits' size less between forward and backward. m and log s are kept apart: in `m + log s` the larger
    one rounds the digits of the smaller away.
    """
    loss: Tensor = Recomputed.apply(logits, label.unsqueeze(-1), stats)  # type: ignore[no-untyped-call]
    return loss


@step("online", "Milakov & Gimelshein 2018, arXiv:1805.02867, algorithm 3", class_losses=from_scratch.class_losses)
def online(logits: Tensor, label: Tensor) -> Tensor:
    """Take maximum and sum in one pass over chunks of classes: the sum is rescaled as the maximum grows.

    `m' = max(m, max(chunk))`, `s' = s exp(m - m') + sum_chunk exp(x - m')`. No array of C exponentials a row: a forward
    needs rows x 4096 numbers, however many classes, and the logits come from memory once, if a chunk fits the cache.
    """
    loss: Tensor = Recomputed.apply(  # type: ignore[no-untyped-call]
        logits, label.unsqueeze(-1), chunked_online.online_stats
    )
    return loss


@step("blocks", "Dao et al. 2022, arXiv:2205.14135 (tiles that stay in fast memory)")
def blocks(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Work through a block of rows at a time: what is in the cache is used at once. This is `fused-python`.

    The same formulas, cut between rows and not between classes: all operations of forward, and again of backward, run
    on 1 MB of logits before the next one is read. The only array of the logits' size is the gradient.
    """
    loss: Tensor = fused_python.cross_entropy(logits, target, weight, ignore_index, reduction, label_smoothing)
    return loss


def _kernel(variant: building.Variant) -> Callable[..., Tensor]:
    """Return the loss of the kernel as this variant of it is built, the first time that it is called."""

    @functools.cache
    def operator() -> Callable[..., Tensor]:
        return operators.cross_entropy(variant)

    def loss(logits: Tensor, target: Tensor, weight: Tensor | None, ignore: int, reduction: str, eps: float) -> Tensor:
        code = _options.reduction_code(reduction)
        value: Tensor = operator()(logits, target, weight, ignore, code, eps)
        return value

    return loss


_for_any_processor = _kernel(building.Variant("xentbench_any_processor", vectors=False, large_pages=False))
_on_small_pages = _kernel(building.Variant("xentbench_small_pages", large_pages=False))


@step("native", "Milakov & Gimelshein 2018, arXiv:1805.02867", supports=fused.refusal)
def native(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Write one kernel in C++ for what were six operations: one loop over a row does all of it.

    `fused`'s kernel: maximum and sum in one pass, one read of the logits forward, one read and one write backward. It
    is built for any processor of this kind, so that vectors are arrays, and without large pages. Bytes are at their
    least now. Time need not be: torch's operations had vectors.
    """
    return _for_any_processor(logits, target, weight, ignore_index, reduction, label_smoothing)


@step("vectors", "Cody & Waite 1980 (the exponential: `_fused/vectors.h`)", supports=fused.refusal)
def vectors(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute as many numbers at once as this processor can: the same source, built for its vectors.

    8 (AVX2) or 16 (AVX-512) float32 an instruction, and an exponential of ten instructions for all of them. Where torch
    itself uses the processor's base vectors alone, as on ARM, it is the build of the step before.
    """
    return _on_small_pages(logits, target, weight, ignore_index, reduction, label_smoothing)


@step("pages", "https://docs.kernel.org/admin-guide/mm/transhuge.html", supports=fused.refusal)
def pages(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Ask for large pages where the gradient will lie. This is `fused`.

    A new array of 65 MB is 16000 pages of 4 kB, each of which the system clears and maps when it is first touched, or
    32 of 2 MB. Where the allocator keeps its memory, as in a long training, there is nothing to gain; on a new heap
    faults take most of a backward.
    """
    return fused.cross_entropy(logits, target, weight, ignore_index, reduction, label_smoothing)
