"""Start of an exec'd worker: `python -m xentbench.worker FD_IN FD_OUT PARENT_PID`."""

import sys

from xentbench.worker.keeper import die_with_parent, hold_back, leave
from xentbench.worker.serving import serve

if __name__ == "__main__":
    fd_in, fd_out, parent = map(int, sys.argv[1:4])
    die_with_parent(parent)
    hold_back()
    code = 1
    try:
        serve(fd_in, fd_out)
        code = 0
    finally:
        leave(code)
