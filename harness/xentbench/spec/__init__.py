"""The nouns: what is asked, who answers, and how an answer can end. Frozen records, no work, no torch.

Dtypes and devices are strings here, so that the command line and the parent's planning never pay for `import torch`.
"""

from xentbench.spec.contract import CROSS_ENTROPY, Contract
from xentbench.spec.errors import AbsentError, EnvironmentMismatchError, UsageError, nearest
from xentbench.spec.implementation import (
    NAME_PATTERN,
    Description,
    Deviation,
    Implementation,
    Source,
    WorkContract,
    first_line,
    implementation,
)
from xentbench.spec.inert import inert
from xentbench.spec.outcome import Comparison, Failure, Grade, Outcome, Phase, Side, Status, Verdict
from xentbench.spec.problem import (
    DEFAULT_IGNORE_INDEX,
    DTYPE_BYTES,
    FAMILIES,
    LAYOUTS,
    UNIT_ROUNDOFF,
    Problem,
    problem_axes,
    read_axis,
)
from xentbench.spec.words import counted

__all__ = [
    "CROSS_ENTROPY",
    "DEFAULT_IGNORE_INDEX",
    "DTYPE_BYTES",
    "FAMILIES",
    "LAYOUTS",
    "NAME_PATTERN",
    "UNIT_ROUNDOFF",
    "AbsentError",
    "Comparison",
    "Contract",
    "Description",
    "Deviation",
    "EnvironmentMismatchError",
    "Failure",
    "Grade",
    "Implementation",
    "Outcome",
    "Phase",
    "Problem",
    "Side",
    "Source",
    "Status",
    "UsageError",
    "Verdict",
    "WorkContract",
    "counted",
    "first_line",
    "implementation",
    "inert",
    "nearest",
    "problem_axes",
    "read_axis",
]
