"""What a worker loads: `cheats.entrance:NAME`, with underscores for hyphens, builds the one entry that is named."""

from __future__ import annotations

import functools

from cheats import CHEATS, HONEST
from xentbench.spec import Implementation


@functools.cache
def _built(name: str) -> Implementation:
    entry = {**CHEATS, **HONEST}[name]
    return Implementation(entry.name, entry.build(), summary=entry.note, work=entry.work)


def __getattr__(name: str) -> Implementation:
    try:
        return _built(name.replace("_", "-"))
    except KeyError:
        raise AttributeError(name) from None
