from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xentbench import processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system tells it on Linux only")

TAKES = """
import sys
sys.stdin.readline()
try:
    held = bytes(int(sys.argv[1]))
    print("taken")
except MemoryError:
    print("refused")
"""


def test_what_this_process_holds_grows_with_it():
    before = processes.held(os.getpid())
    fd = os.open(os.devnull, os.O_RDONLY)
    after = processes.held(os.getpid())
    os.close(fd)
    assert before is not None
    assert after is not None
    assert after.descriptors == before.descriptors + 1
    assert after.threads >= 1
    assert after.resident_bytes > 2**20


def test_of_a_process_that_is_gone_nothing_is_told_and_nothing_is_limited():
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert processes.held(gone.pid) is None
    assert processes.limit_memory(gone.pid, 2**30) == 0


@pytest.mark.parametrize(("budget", "wanted", "said"), [(2**28, 2**29, "refused"), (2**28, 2**26, "taken")])
def test_a_cap_refuses_what_is_beyond_it_and_nothing_else(budget: int, wanted: int, said: str):
    command = [sys.executable, "-c", TAKES, str(wanted)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert processes.limit_memory(child.pid, budget) == budget
        assert child.communicate("go\n")[0].strip() == said


def test_a_cap_can_be_taken_back():
    command = [sys.executable, "-c", TAKES, str(2**29)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        processes.limit_memory(child.pid, 2**28)
        assert processes.limit_memory(child.pid, None) == 0
        assert child.communicate("go\n")[0].strip() == "taken"
