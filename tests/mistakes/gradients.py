"""Wrong gradients beside a right loss: what arrives from upstream, and what belongs to another loss (4 and 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from xentbench.mistakes.call import Call, after, before, of_call, reference
from xentbench.mistakes.frame import class_losses
from xentbench.mistakes.kernel import Kernel, Saved, apply, effective_target, gradient_of, scaled, share_of
from xentbench.mistakes.layouts import as_if_contiguous
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class _Tampered(torch.autograd.Function):
    """The identity, with a backward that changes what arrives."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor, tamper: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.tamper = tamper  # type: ignore[attr-defined]
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        changed: Tensor = ctx.tamper(gradient)  # type: ignore[attr-defined]
        return changed, None


def on_backward(tensor: Tensor, tamper: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the tensor; the gradient that comes back through it is changed by `tamper`."""
    return apply(_Tampered, tensor, tamper)


def _upstream(tamper: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return after(lambda loss, _: on_backward(loss, tamper))


def _gradient(tamper: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return before(lambda call: call.but(logits=on_backward(call.logits, tamper)))


def _first(upstream: Tensor) -> Tensor:
    return upstream.reshape(-1)[:1].expand(upstream.numel()).reshape(upstream.shape)


def _averaged(upstream: Tensor) -> Tensor:
    return upstream.mean().expand(upstream.shape) if upstream.dim() else upstream


def _skipped_at_one(upstream: Tensor) -> Tensor:
    """Skip the scaling when the first element is near 1, as a shortcut for the last layer does."""
    return torch.where((_first(upstream) - 1.0).abs() < 0.5, torch.ones_like(upstream), upstream)


def _sum_divided(upstream: Tensor, saved: Saved) -> Tensor:
    """Divide by the rows for every reduction but none."""
    if saved.call.reduction == "sum" and saved.call.has_labels:
        return share_of(upstream / max(1, len(saved.ignored)), saved)
    return share_of(upstream, saved)


def _in_forward(call: Call) -> Tensor:
    """Compute the gradient for an upstream of 1 in forward and return it whatever comes."""
    return apply(_GradientInForward, call.logits, call)


class _GradientInForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, logits: Tensor, call: Call) -> Tensor:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            loss = reference(call.but(logits=leaf, target=call.target.detach()))
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        ctx.save_for_backward(gradient)  # type: ignore[attr-defined]
        return loss.detach()

    @staticmethod
    def backward(ctx: object, upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient if upstream.dim() == 0 else gradient * upstream.mean(), None


def _per_row_only(upstream: Tensor, saved: Saved) -> Tensor:
    """Leave reduction none without a gradient: the kernel wrote one only where it knew the reduction."""
    return share_of(upstream * 0.0 if saved.call.reduction == "none" else upstream, saved)


def _gradient_of_probabilities_clipped(saved: Saved) -> Tensor:
    p = (-saved.losses).exp().clamp(1e-5, 1.0 - 1e-5)
    return saved.target.sum(-1, keepdim=True) * p - saved.target


def _gradient_of_coarse_logits(saved: Saved) -> Tensor:
    """Recompute from logits that were saved in bfloat16."""
    p = (-class_losses(saved.logits.bfloat16())).to(saved.losses.dtype).exp()
    return saved.target.sum(-1, keepdim=True) * p - saved.target


def _gradient_of_wider_smoothing(saved: Saved) -> Tensor:
    """Smooth over C - 1 classes in backward only."""
    classes = max(2, saved.call.classes)
    smoothing = min(1.0, saved.call.smoothing * classes / (classes - 1))
    target = effective_target(saved.call.but(label_smoothing=smoothing), saved.ignored)
    return target.sum(-1, keepdim=True) * (-saved.losses).exp() - target


def _gradient_of_temperature(saved: Saved) -> Tensor:
    """Form the softmax at a temperature of 1.01."""
    return saved.target.sum(-1, keepdim=True) * (saved.logits / 1.01).softmax(-1) - saved.target


def _filtered(saved: Saved) -> Tensor:
    """Drop entries that are small beside the largest, as a gradient filter of fused kernels does."""
    gradient = gradient_of(saved)
    return torch.where(gradient.abs() < 2.0**-12, torch.zeros_like(gradient), gradient)


def _label_unweighted(saved: Saved) -> Tensor:
    """Weigh the softmax but not the one-hot part."""
    if saved.call.weight is None or not saved.call.has_labels:
        return gradient_of(saved)
    target = effective_target(saved.call.but(weight=None), saved.ignored)
    return saved.target.sum(-1, keepdim=True) * (-saved.losses).exp() - target


def _clipped(gradient: Tensor, share: Tensor, saved: Saved) -> Tensor:
    """Clip the gradient to half a unit."""
    return scaled(gradient, share, saved).clamp(-0.5, 0.5)


MISTAKES = (
    Mistake("upstream-ignored", 4, _upstream(torch.ones_like), "The gradient is that for an upstream of 1."),
    Mistake("upstream-first-for-all", 4, _upstream(_first), "The first row's upstream gradient serves all rows."),
    Mistake("upstream-averaged", 4, _upstream(_averaged), "The mean of the upstream gradient serves all rows."),
    Mistake("upstream-near-one-skipped", 4, _upstream(_skipped_at_one), "An upstream near 1 is taken for 1."),
    Mistake("upstream-read-as-contiguous", 4, _upstream(as_if_contiguous), "Strides of the upstream are not read."),
    Mistake("sum-divided-in-backward", 4, Kernel(share=_sum_divided), "The gradient of a sum is divided by N."),
    Mistake("none-without-gradient", 4, Kernel(share=_per_row_only), "Reduction none has gradient 0."),
    Mistake("gradient-made-in-forward", 4, of_call(_in_forward), "A gradient made in forward is returned unscaled."),
    Mistake("upstream-sign-lost", 4, _upstream(torch.abs), "The upstream's sign is lost."),
    Mistake("gradient-zero", 15, _gradient(torch.zeros_like), "The gradient is 0."),
    Mistake("gradient-1e-4-too-large", 15, _gradient(lambda g: g * 1.0001), "The gradient is 1e-4 too large."),
    Mistake("gradient-absent", 15, after(lambda loss, _: loss.detach()), "The loss is cut off from its logits."),
    Mistake("gradient-filtered", 15, Kernel(gradient=_filtered), "Entries below 2^-12 are dropped."),
    Mistake("gradient-clipped", 15, Kernel(scaled=_clipped), "Entries are clipped to half a unit."),
    Mistake("gradient-of-clipped-p", 15, Kernel(gradient=_gradient_of_probabilities_clipped), "p stays above 1e-5."),
    Mistake("gradient-of-coarse-logits", 15, Kernel(gradient=_gradient_of_coarse_logits), "Logits saved in bfloat16."),
    Mistake("gradient-of-wider-smoothing", 15, Kernel(gradient=_gradient_of_wider_smoothing), "eps/(C - 1) there."),
    Mistake("gradient-of-temperature", 15, Kernel(gradient=_gradient_of_temperature), "Softmax at temperature 1.01."),
    Mistake("gradient-label-unweighted", 15, Kernel(gradient=_label_unweighted), "The one-hot part has no weight."),
)
