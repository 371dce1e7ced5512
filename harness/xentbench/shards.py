"""Shares of a run: which problems fall to one of n processes, on any machine and in any version of Python alike."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xentbench.spec import Problem, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `number` of `count`, from 1; the whole where there is one."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that `3/8` names; raises UsageError for anything else."""
        match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text, re.ASCII)
        if not match or int(match[1]) > int(match[2]):
            msg = f"--shard expected I/N with I from 1 to N, such as 3/8, got {text!r}"
            raise UsageError(msg)
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def part(self) -> str:
        """What marks its files in the run's folder: `3of8`, nothing where it is the whole."""
        return "" if self.count == 1 else f"{self.number}of{self.count}"

    def of(self, problems: Sequence[Problem]) -> tuple[Problem, ...]:
        """Return its share of a plan's problems: dealt out in the order of a hash of their keys, like cards.

        The groups of a problem stay together: its truth is computed, and its answers are judged, once.
        """
        dealt = sorted(problems, key=lambda problem: hashlib.sha256(problem.key.encode()).digest())
        mine = set(dealt[self.number - 1 :: self.count])
        return tuple(problem for problem in problems if problem in mine)
