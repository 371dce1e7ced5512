"""Start of an exec'd worker: `python -m xentbench.worker FD_IN FD_OUT PARENT_PID`."""

import os
import sys

from xentbench.worker.keeper import die_with_parent, hold_back
from xentbench.worker.serving import serve

if __name__ == "__main__":
    fd_in, fd_out, parent = map(int, sys.argv[1:4])
    die_with_parent(parent)
    hold_back()
    serve(fd_in, fd_out)
    # Leaving without the interpreter's farewell saves seconds of torch's, and runs nothing that a plugin registered.
    os._exit(0)
