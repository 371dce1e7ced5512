"""Starts processes, and leaves them behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from torch.nn import functional

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("kin")


def _daemon() -> None:
    """Leave session, group and parent, as daemons do."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        os._exit(0)
    os.wait()


@FAULTS("orphan-holds-the-pipe", Status.EXITED, "code 3")
def orphan_holds_the_pipe(logits, target, **options):
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(3)


@FAULTS("daemon-holds-the-pipe", Status.EXITED, "code 4")
def daemon_holds_the_pipe(logits, target, **options):
    _daemon()
    os._exit(4)


@FAULTS("daemon-outlives-an-exception", Status.RAISED, "ValueError")
def daemon_outlives_an_exception(logits, target, **options):
    _daemon()
    raise ValueError


@FAULTS("forks-and-forks", Status.EXITED, "code 5")
def forks_and_forks(logits, target, **options):
    for _ in range(5):
        os.fork()
    me = os.getpid()
    if me != os.getsid(0):
        os.setpgid(0, 0)
        time.sleep(1000)
    os._exit(5)


@FAULTS("daemon-without-an-environment", Status.CRASHED, "SIGABRT")
def daemon_without_an_environment(logits, target, **options):
    subprocess.Popen(["sleep", "1000"], env={}, start_new_session=True)
    _daemon()
    os.abort()


@FAULTS("leaves-a-daemon-and-is-right", Status.PASSED)
def leaves_a_daemon_and_is_right(logits, target, **options):
    if not Path("daemon").exists():
        Path("daemon").touch()
        _daemon()
    return functional.cross_entropy(logits, target, **options)
