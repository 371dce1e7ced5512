"""A keeper against real processes: whatever a worker started, and wherever that went, ends with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from worker_fixtures import eventually_gone

from xentbench.worker import keeper

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")

# A keeper of a child that starts a daemon, as plainly as can be; the daemon forgets session, group and environment.
KEEPS = """
import os, sys, time
from xentbench.worker import keeper
keeper.adopt_orphans()
lifeline, end, told = map(int, sys.argv[1:4])
if (worker := os.fork()) == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(told, b"%12d" % os.getpid())
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        os._exit(0)
    if end:
        time.sleep(0.2)
        os._exit(end)
    time.sleep(1000)
os.close(told)
keeper.tell(lifeline, worker)
keeper.Keeper({worker: lifeline}).run()
"""


@pytest.fixture
def kept(request):
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe()
    fds = (theirs.fileno(), write_end)
    command = [sys.executable, "-c", KEEPS, str(fds[0]), str(request.param), str(fds[1])]
    with ours, theirs:
        process = subprocess.Popen(command, pass_fds=fds)
        theirs.close()
        os.close(write_end)
        pid, daemon = int(ours.recv(keeper.NUMBER_BYTES)), int(os.read(read_end, 12))
        os.close(read_end)
        yield process, ours, pid, daemon
        process.kill()
        process.wait()


@pytest.mark.parametrize("kept", [7], indirect=True)
def test_a_worker_that_ends_takes_its_daemon_with_it(kept):
    process, ours, _, daemon = kept
    assert int(ours.recv(keeper.NUMBER_BYTES)) == 7
    assert eventually_gone(daemon)
    assert process.wait(10) == 0


@pytest.mark.parametrize("kept", [0], indirect=True)
def test_a_shut_lifeline_ends_worker_and_daemon(kept):
    process, ours, pid, daemon = kept
    ours.shutdown(socket.SHUT_WR)
    assert int(ours.recv(keeper.NUMBER_BYTES)) == -signal.SIGKILL
    assert eventually_gone(pid)
    assert eventually_gone(daemon)
    assert process.wait(10) == 0


@pytest.mark.parametrize("kept", [0], indirect=True)
def test_the_end_of_the_run_ends_worker_and_daemon(kept):
    process, ours, pid, daemon = kept
    ours.close()
    assert eventually_gone(pid)
    assert eventually_gone(daemon)
    assert process.wait(10) == 0


def test_children_are_found_with_and_without_the_kernels_list(tmp_path: Path):
    child = subprocess.Popen(["sleep", "100"])
    try:
        assert child.pid in keeper.children()
        for pid, parent in ((1, 0), (20, os.getpid()), (30, os.getpid() + 1)):
            (tmp_path / str(pid)).mkdir()
            (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) name) S {parent} 1 1")
        assert keeper.children(tmp_path) == [20]
    finally:
        child.kill()
        child.wait()
