"""Modules that fail while they are imported, or once what they declare is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from faults.fault import Fault
from xentbench.spec import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD: Final = "from torch.nn.functional import cross_entropy\nfrom xentbench import implementation\n"
_RIGHT: Final = _HEAD + "right = implementation('NAME')(cross_entropy)\n"


def _fault(name: str, status: Status, told: str, text: str) -> Fault:
    return Fault(name, "", status, told, text.replace("NAME", name))


IMPORTING: Final[Mapping[str, Fault]] = {
    fault.name: fault
    for fault in (
        _fault("import-leaves", Status.EXITED, "code 0 and no answer", "import os\nos._exit(0)\n"),
        _fault("import-sys-exit", Status.IMPORT_FAILED, "SystemExit: 0", "import sys\nsys.exit(0)\n"),
        _fault("import-raises", Status.IMPORT_FAILED, "ValueError: not today", "raise ValueError('not today')\n"),
        _fault("import-no-python", Status.IMPORT_FAILED, "SyntaxError", "def loss(:\n"),
        _fault("import-null-bytes", Status.IMPORT_FAILED, "null bytes", "x = 1\0\n"),
        _fault("import-lacks-a-module", Status.IMPORT_FAILED, "no_such_module", "import no_such_module\n"),
        _fault(
            "import-lacks-a-package",
            Status.UNSUPPORTED,
            "pip install no-such-package",
            _HEAD + "lacks = implementation('NAME', packages=('no_such_package',))(cross_entropy)\n",
        ),
        _fault("import-loops", Status.TIMED_OUT, "describe", "while True: pass\n"),
        _fault("import-crashes", Status.CRASHED, "SIGSEGV", "import ctypes\nctypes.string_at(0)\n"),
        _fault("import-holds-nothing", Status.IMPORT_FAILED, "holds no implementation", "x = 1\n"),
        _fault("import-takes-a-while", Status.PASSED, "", "import time\ntime.sleep(0.5)\n" + _RIGHT),
        _fault(
            "import-removes-itself", Status.IMPORT_FAILED, "No such file", _RIGHT + "import os\nos.remove(__file__)\n"
        ),
        _fault(
            "import-markup-in-its-name",
            Status.IMPORT_FAILED,
            "must match",
            _HEAD + "x = implementation('<script>alert(1)</script>')(cross_entropy)\n",
        ),
        _fault(
            "import-path-in-its-name",
            Status.IMPORT_FAILED,
            "must match",
            _HEAD + "x = implementation('../../etc/passwd')(cross_entropy)\n",
        ),
        _fault(
            "import-name-without-end",
            Status.IMPORT_FAILED,
            "characters",
            _HEAD + "x = implementation('x' * 100_000)(cross_entropy)\n",
        ),
        _fault(
            "import-escapes-in-its-message",
            Status.IMPORT_FAILED,
            "ValueError",
            "raise ValueError('\\x1b[2J\\x1b]0;title\\x07[bold]=1+1|`x`<b>\\u202e')\n",
        ),
        _fault(
            "supports-loops",
            Status.TIMED_OUT,
            "describe",
            _HEAD + "def supports(problem):\n    while True: pass\n"
            "x = implementation('NAME', supports=supports)(cross_entropy)\n",
        ),
        _fault(
            "supports-raises",
            Status.RAISED,
            "cannot say",
            _HEAD + "def supports(problem):\n    raise ValueError('cannot say')\n"
            "x = implementation('NAME', supports=supports)(cross_entropy)\n",
        ),
        _fault(
            "supports-nothing",
            Status.UNSUPPORTED,
            "only on Sundays",
            _HEAD + "x = implementation('NAME', supports=lambda problem: 'only on Sundays')(cross_entropy)\n",
        ),
    )
}
