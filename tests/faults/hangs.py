"""Never ends."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import threading

import torch
from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("hangs")


@FAULTS("loops", Status.TIMED_OUT, "set-up")
def loops(logits, target, **options):
    while True:
        pass


@FAULTS("loops-and-ignores-signals", Status.TIMED_OUT, "set-up")
def loops_and_ignores_signals(logits, target, **options):
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


@FAULTS("stops-itself", Status.TIMED_OUT, "set-up")
def stops_itself(logits, target, **options):
    os.kill(os.getpid(), signal.SIGSTOP)


@FAULTS("sleeps-with-the-lock", Status.TIMED_OUT, "set-up")
def sleeps_with_the_lock(logits, target, **options):
    ctypes.PyDLL(None).sleep(1000)


@FAULTS("matches-for-ever", Status.TIMED_OUT, "set-up")
def matches_for_ever(logits, target, **options):
    re.match("(a+)+$", 64 * "a" + "b")


@FAULTS("waits-for-itself", Status.TIMED_OUT, "set-up")
def waits_for_itself(logits, target, **options):
    lock = threading.Lock()
    for _ in range(2):
        lock.acquire()


class _Looping(torch.autograd.Function):
    @staticmethod
    def forward(context, loss):
        return loss.clone()

    @staticmethod
    def backward(context, upstream):
        while True:
            pass


@FAULTS("loops-in-backward", Status.TIMED_OUT, "set-up")
def loops_in_backward(logits, target, **options):
    return _Looping.apply(functional.cross_entropy(logits, target, **options))


@FAULTS("loops-in-its-factory", Status.TIMED_OUT, "set-up", factory=True)
def loops_in_its_factory():
    while True:
        pass


@FAULTS("loops-beside-others", Status.TIMED_OUT, "set-up")
def loops_beside_others(logits, target, **options):
    for apart in (False, True):
        subprocess.Popen(["sleep", "1000"], start_new_session=apart)
    while True:
        pass


_calls = iter(range(10**9))


@FAULTS("loops-when-it-is-judged", Status.TIMED_OUT, "answer")
def loops_when_it_is_judged(logits, target, **options):
    while next(_calls) >= 4:  # set-up calls it once in each of four phases
        pass
    return functional.cross_entropy(logits, target, **options)
