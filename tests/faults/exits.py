"""Leaves in the middle of a request."""

from __future__ import annotations

import os
import sys

import torch
from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("exits")


@FAULTS("leaves-with-0", Status.EXITED, "code 0 and no answer")
def leaves_with_0(logits, target, **options):
    os._exit(0)


@FAULTS("leaves-with-7", Status.EXITED, "code 7")
def leaves_with_7(logits, target, **options):
    os._exit(7)


@FAULTS("exits-as-programs-do", Status.RAISED, "SystemExit: 0")
def exits_as_programs_do(logits, target, **options):
    sys.exit(0)


class _Leaving(torch.autograd.Function):
    @staticmethod
    def forward(context, loss):
        return loss.clone()

    @staticmethod
    def backward(context, upstream):
        os._exit(0)


@FAULTS("leaves-in-backward", Status.EXITED, "code 0 and no answer")
def leaves_in_backward(logits, target, **options):
    return _Leaving.apply(functional.cross_entropy(logits, target, **options))


@FAULTS("goes-on-as-its-child", Status.EXITED, "code 0")
def goes_on_as_its_child(logits, target, **options):
    if os.fork():
        os._exit(0)
    return functional.cross_entropy(logits, target, **options)


@FAULTS("closes-every-descriptor", Status.EXITED, "code 1 and no answer")
def closes_every_descriptor(logits, target, **options):
    os.closerange(0, 256)
    return functional.cross_entropy(logits, target, **options)
