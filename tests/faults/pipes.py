"""Meddles with the pipe by which it answers."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from pathlib import Path

from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("pipes")


def _to_every_pipe(data: bytes) -> None:
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(fd, data)


def _frame(record: object) -> bytes:
    text = json.dumps(record).encode()
    return struct.pack(">I", len(text)) + text


@FAULTS("answers-for-the-worker", Status.FORGED, "answers no request")
def answers_for_the_worker(logits, target, **options):
    _to_every_pipe(_frame({"ok": True, "setup_s": 0.0, "changed": [], "notes": [], "shared": []}))
    return functional.cross_entropy(logits, target, **options)


@FAULTS("passes-itself", Status.FORGED, "answers no request")
def passes_itself(logits, target, **options):
    _to_every_pipe(_frame({"ok": False, "status": "passed", "reason": ""}))
    return functional.cross_entropy(logits, target, **options)


@FAULTS("writes-garbage", Status.FORGED, "longer than")
def writes_garbage(logits, target, **options):
    _to_every_pipe(b"\xff" * 100)
    return functional.cross_entropy(logits, target, **options)


@FAULTS("writes-no-json", Status.FORGED, "not JSON")
def writes_no_json(logits, target, **options):
    _to_every_pipe(struct.pack(">I", 4) + b"{{{{")
    return functional.cross_entropy(logits, target, **options)


@FAULTS("promises-terabytes", Status.FORGED, "bytes in one record")
def promises_terabytes(logits, target, **options):
    _to_every_pipe(_frame({"ok": True, "tensors": [["loss", "float64", [2**40]]]}))
    return functional.cross_entropy(logits, target, **options)


@FAULTS("promises-and-waits", Status.TIMED_OUT, "set-up")
def promises_and_waits(logits, target, **options):
    _to_every_pipe(struct.pack(">I", 1000) + b"{")
    time.sleep(1000)


@FAULTS("replaces-the-pipe", Status.EXITED, "closed its pipe and lived on")
def replaces_the_pipe(logits, target, **options):
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            if str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("pipe:"):
                os.dup2(nowhere, fd)
    time.sleep(1000)


_begun: list[int] = []


@FAULTS("child-writes-later", Status.FORGED, "answer")
def child_writes_later(logits, target, **options):
    if not _begun:
        _begun.append(os.fork())
        if _begun == [0]:
            os.setsid()
            time.sleep(0.2)
            _to_every_pipe(_frame({"ok": True}))
            os._exit(0)
    elif len(_begun) == 1 and options["reduction"]:
        _begun.append(0)
        os.waitpid(_begun[0], 0)
    return functional.cross_entropy(logits, target, **options)
