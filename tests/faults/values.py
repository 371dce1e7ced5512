"""Answers wrongly: one of each status."""

from __future__ import annotations

import torch
from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("values")
_buffer = torch.zeros(())


def _right(logits, target, options):
    return functional.cross_entropy(logits, target, **options)


@FAULTS("off-by-a-percent", Status.WRONG_VALUE, "expected")
def off_by_a_percent(logits, target, **options):
    return 1.01 * _right(logits, target, options)


@FAULTS("not-a-number", Status.WRONG_VALUE, "nan")
def not_a_number(logits, target, **options):
    return _right(logits, target, options) * float("nan")


@FAULTS("without-a-gradient", Status.WRONG_GRADIENT)
def without_a_gradient(logits, target, **options):
    return _right(logits, target, options).detach()


@FAULTS("gradient-of-zero", Status.WRONG_GRADIENT)
def gradient_of_zero(logits, target, **options):
    return _right(logits, target, options).detach() + 0 * logits.sum()


@FAULTS("zeroes-its-input", Status.MUTATES_INPUT, "logits after forward")
def zeroes_its_input(logits, target, **options):
    loss = _right(logits.clone(), target, options)
    logits.detach().zero_()
    return loss


@FAULTS("answers-in-a-buffer", Status.ALIASED, "the loss of a later call")
def answers_in_a_buffer(logits, target, **options):
    loss = _right(logits, target, options)
    with torch.no_grad():
        _buffer.copy_(loss)
    return _InPlace.apply(loss)


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(context, loss):
        return _buffer.detach()

    @staticmethod
    def backward(context, upstream):
        return upstream


@FAULTS("answers-in-its-input", Status.ALIASED, "the logits")
def answers_in_its_input(logits, target, **options):
    loss = _right(logits, target, options).detach()
    place = logits.detach().view(-1)[0]
    place.copy_(loss)
    return place


@FAULTS("promises-too-much", Status.IMPRECISE, "promised", min_grade="A")
def promises_too_much(logits, target, **options):
    shift = 300.0
    shifted = logits + shift
    return (torch.logsumexp(shifted, 1) - shifted.gather(1, target[:, None])[:, 0]).mean()


@FAULTS("never-compiles", Status.SET_UP_FAILED, "never used", compiles=True)
def never_compiles(logits, target, **options):
    return _right(logits, target, options)
