"""Ends by a signal."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import threading

import torch
from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("crashes")


def _by(number: signal.Signals) -> None:
    @FAULTS(f"crashes-by-{number.name.lower()}", Status.CRASHED, number.name)
    def loss(logits, target, **options):
        os.kill(os.getpid(), number)
        signal.pause()

    globals()[number.name] = loss


for _number in (signal.SIGFPE, signal.SIGILL, signal.SIGBUS, signal.SIGKILL, signal.SIGTERM):
    _by(_number)


@FAULTS("reads-address-0", Status.CRASHED, "SIGSEGV")
def reads_address_0(logits, target, **options):
    return ctypes.string_at(0)


@FAULTS("aborts", Status.CRASHED, "SIGABRT")
def aborts(logits, target, **options):
    os.abort()


@FAULTS("kills-its-group", Status.CRASHED, "SIGKILL")
def kills_its_group(logits, target, **options):
    os.killpg(0, signal.SIGKILL)


@FAULTS("overflows-the-stack", Status.CRASHED, "SIGSEGV")
def overflows_the_stack(logits, target, **options):
    sys.setrecursionlimit(10**9)

    def deeper(*_):
        return functools.reduce(deeper, (1, 2))

    return deeper()


@FAULTS("crashes-in-a-thread", Status.CRASHED, "SIGABRT")
def crashes_in_a_thread(logits, target, **options):
    thread = threading.Thread(target=os.abort)
    thread.start()
    thread.join()


class _Aborting(torch.autograd.Function):
    @staticmethod
    def forward(context, loss):
        return loss.clone()

    @staticmethod
    def backward(context, upstream):
        os.abort()


@FAULTS("crashes-in-backward", Status.CRASHED, "SIGABRT")
def crashes_in_backward(logits, target, **options):
    return _Aborting.apply(functional.cross_entropy(logits, target, **options))


@FAULTS("prints-before-it-crashes", Status.CRASHED, "it printed: about to fail")
def prints_before_it_crashes(logits, target, **options):
    print("about to fail")
    os.abort()
