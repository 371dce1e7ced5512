"""Answers with something that is no loss."""

from __future__ import annotations

import torch
from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("kinds")


class Lazy(torch.Tensor):
    pass


def _right(logits, target, options):
    return functional.cross_entropy(logits, target, **options)


@FAULTS("returns-nothing", Status.WRONG_TYPE, "NoneType")
def returns_nothing(logits, target, **options):
    return None


@FAULTS("returns-a-number", Status.WRONG_TYPE, "float")
def returns_a_number(logits, target, **options):
    return float(_right(logits, target, options))


@FAULTS("returns-an-array", Status.WRONG_TYPE, "ndarray")
def returns_an_array(logits, target, **options):
    return _right(logits, target, options).detach().numpy()


@FAULTS("returns-integers", Status.WRONG_TYPE, "int64")
def returns_integers(logits, target, **options):
    return _right(logits, target, options).long()


@FAULTS("returns-complex", Status.WRONG_TYPE, "complex64")
def returns_complex(logits, target, **options):
    return _right(logits, target, options).to(torch.complex64)


@FAULTS("returns-a-subclass", Status.DEFERRED, "plain torch.Tensor")
def returns_a_subclass(logits, target, **options):
    return _right(logits, target, options).as_subclass(Lazy)


@FAULTS("returns-attributes", Status.DEFERRED, "plain torch.Tensor")
def returns_attributes(logits, target, **options):
    loss = _right(logits, target, options)
    loss.item = lambda: 0.0
    return loss


@FAULTS("returns-sparse", Status.WRONG_TYPE, "dense")
def returns_sparse(logits, target, **options):
    return _right(logits, target, options).reshape(1).to_sparse()


@FAULTS("returns-meta", Status.WRONG_TYPE, "device")
def returns_meta(logits, target, **options):
    return _right(logits, target, options).to("meta")


@FAULTS("returns-another-dtype", Status.WRONG_TYPE, "float64")
def returns_another_dtype(logits, target, **options):
    return _right(logits, target, options).double()


@FAULTS("returns-another-shape", Status.WRONG_VALUE, "shape")
def returns_another_shape(logits, target, **options):
    return _right(logits, target, options).reshape(1)
