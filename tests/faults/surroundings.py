"""Disturbs what is around it, and answers rightly: that must cost nobody else anything."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
from pathlib import Path

from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("surroundings")


@FAULTS("removes-its-folder", Status.RAISED, "FileNotFoundError")
def removes_its_folder(logits, target, **options):
    shutil.rmtree(Path.cwd())
    return functional.cross_entropy(logits, target, **options)


@FAULTS("changes-folder-and-mask", Status.PASSED, timed=Status.TAMPERED)
def changes_folder_and_mask(logits, target, **options):
    os.chdir("/")
    os.umask(0o777)
    return functional.cross_entropy(logits, target, **options)


@FAULTS("changes-the-interpreter", Status.PASSED, timed=Status.TAMPERED)
def changes_the_interpreter(logits, target, **options):
    sys.setrecursionlimit(10**6)
    os.environ.clear()
    gc.disable()
    return functional.cross_entropy(logits, target, **options)


@FAULTS("ignores-every-signal", Status.PASSED, timed=Status.TAMPERED)
def ignores_every_signal(logits, target, **options):
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    return functional.cross_entropy(logits, target, **options)


def _farewell():
    os.write(1, b"never to be run")
    os.abort()


@FAULTS("says-farewell", Status.PASSED)
def says_farewell(logits, target, **options):
    atexit.register(_farewell)
    return functional.cross_entropy(logits, target, **options)
