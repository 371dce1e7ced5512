"""Takes more memory, descriptors and threads than there are, or more with every call."""

from __future__ import annotations

import os
import threading
import time

import torch
from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("memory")
_kept: list[object] = []


@FAULTS("fills-memory", Status.OUT_OF_MEMORY, "GiB for this request")
def fills_memory(logits, target, **options):
    while True:
        _kept.append(torch.empty(2**26))


@FAULTS("fills-memory-in-python", Status.OUT_OF_MEMORY, "MemoryError")
def fills_memory_in_python(logits, target, **options):
    while True:
        _kept.append(bytes(2**28))


@FAULTS("asks-for-petabytes", Status.OUT_OF_MEMORY, "allocate")
def asks_for_petabytes(logits, target, **options):
    return torch.empty(2**50)


@FAULTS("leaks-memory", Status.LEAKING, "resident bytes")
def leaks_memory(logits, target, **options):
    _kept.append(torch.ones(2**18))
    return functional.cross_entropy(logits, target, **options)


@FAULTS("leaks-descriptors", Status.LEAKING, "descriptors")
def leaks_descriptors(logits, target, **options):
    os.open(os.devnull, os.O_RDONLY)
    return functional.cross_entropy(logits, target, **options)


@FAULTS("leaks-threads", Status.LEAKING, "threads")
def leaks_threads(logits, target, **options):
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return functional.cross_entropy(logits, target, **options)


@FAULTS("runs-out-of-descriptors", Status.RAISED, "Too many open files")
def runs_out_of_descriptors(logits, target, **options):
    while True:
        os.open(os.devnull, os.O_RDONLY)


@FAULTS("keeps-a-workspace", Status.PASSED)
def keeps_a_workspace(logits, target, **options):
    if not _kept:
        _kept.append(torch.ones(2**22))
    return functional.cross_entropy(logits, target, **options)
