"""Prints what nobody wants to read."""

from __future__ import annotations

import json
import os
import sys

from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("prints")


@FAULTS("prints-200-megabytes", Status.RAISED, "it printed: xxxx")
def prints_200_megabytes(logits, target, **options):
    for _ in range(200):
        os.write(1, 10**6 * b"x")
    raise ValueError("done")


@FAULTS("prints-bytes-and-escapes", Status.EXITED, "code 3 and no answer; it printed: red")
def prints_bytes_and_escapes(logits, target, **options):
    os.write(2, b"\x1b[31mred\x1b[0m\x1b]0;title\x07\x00\xff\xfe\x1b[2J\r\b\b[bold]|`")
    os._exit(3)


@FAULTS("prints-a-report", Status.WRONG_VALUE)
def prints_a_report(logits, target, **options):
    print(json.dumps({"ok": True, "status": "passed", "loss": 0.0}), flush=True)
    return functional.cross_entropy(logits, target, **options) * 1.01


@FAULTS("prints-every-call", Status.PASSED)
def prints_every_call(logits, target, **options):
    print("another call", 1000 * "x")
    return functional.cross_entropy(logits, target, **options)


@FAULTS("closes-what-it-prints-to", Status.PASSED)
def closes_what_it_prints_to(logits, target, **options):
    sys.stdout.close()
    for fd in (0, 1, 2):
        try:
            os.close(fd)
        except OSError:
            break
    return functional.cross_entropy(logits, target, **options)
