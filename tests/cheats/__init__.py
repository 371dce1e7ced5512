"""Implementations that cheat, and honest ones that look odd: by them the clock and the isolation are judged.

`CHEATS` holds several for each of the 24 classes of cheats that benchmarks of losses have met; `HONEST` the controls.
Nothing is done by importing them: an entry is built in a worker, when it is loaded (`entrance`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cheats import (
    clocks,
    comparers,
    delegates,
    draws,
    forgers,
    gradients,
    honest,
    loops,
    mutations,
    outputs,
    readers,
    replays,
    settings,
    shortcuts,
    sidework,
)
from cheats.cheat import Cheat, Honest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CHEATS", "HONEST", "ROWS", "Cheat", "Honest"]

_THEMES = (
    replays,
    loops,
    draws,
    readers,
    clocks,
    comparers,
    forgers,
    outputs,
    sidework,
    mutations,
    shortcuts,
    gradients,
    delegates,
    settings,
)

ROWS: Final[Mapping[int, str]] = dict(
    enumerate(
        (
            "replay by pointer, identity, shape",
            "fingerprint of a few elements",
            "version counter",
            "detected loop, skipped work",
            "known seed",
            "reseeded inputs",
            "answer from freed memory",
            "answer from frames or the collector",
            "patched clock",
            "patched comparison",
            "lazy tensor",
            "work beside the call",
            "skipped where no gradient is wanted",
            "changed input",
            "aliased output",
            "part of the work",
            "wrong, old or absent gradient",
            "lower precision",
            "delegated",
            "NaN",
            "global state",
            "forged record",
            "caches",
            "too good to be true",
        ),
        start=1,
    )
)
"""The classes of cheats by their numbers."""
CHEATS: Final[Mapping[str, Cheat]] = {entry.name: entry for theme in _THEMES for entry in theme.CHEATS}
"""Every cheat by its name."""
HONEST: Final[Mapping[str, Honest]] = {entry.name: entry for entry in honest.HONEST}
"""Every honest control by its name."""
