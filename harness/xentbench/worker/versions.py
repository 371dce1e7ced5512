"""Two versions of one package in one process: each side of a direct duel keeps the modules that it imported.

Python finds modules by name, in one table. While one side is loaded the other's modules are out of that table, and an
`import` statement that a function meets later puts its own side's back first. A prime call pays for that, never a timed
one. What finds modules by name without such a statement (`importlib.import_module`, `pickle`) sees the side that was
last put back.
"""

from __future__ import annotations

import builtins
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(slots=True)
class Side:
    """What one side imported, and where it looks: `sys.modules` and `sys.path` without the other's part."""

    path: list[str]
    modules: dict[str, ModuleType] = field(default_factory=dict)

    def owns(self, namespace: dict[str, Any] | None) -> bool:
        """Whether these are the globals of one of its modules."""
        module = self.modules.get((namespace or {}).get("__name__", ""))
        return module is not None and vars(module) is namespace


class Sides:
    """The two sides, of which one stands in `sys.modules`; made before either is loaded."""

    def __init__(self) -> None:
        self._shared = frozenset(sys.modules)
        self._path = list(sys.path)
        self.standing = Side(self._path)
        self.other = Side(self._path)

    def turn(self) -> None:
        """Put the side that stands out of the way, and the other in its place."""
        self.standing.path = list(sys.path)
        self.standing.modules = self._imported()
        for name in self.standing.modules:
            del sys.modules[name]
        self.standing, self.other = self.other, self.standing
        sys.modules.update(self.standing.modules)
        sys.path[:] = self.standing.path

    def clashes(self) -> set[str]:
        """Return the names by which the two sides mean different modules."""
        return self._imported().keys() & self.other.modules.keys()

    def follow_imports(self) -> None:
        """From now on have an `import` statement find the modules of the side whose code it stands in."""
        self.standing.modules = self._imported()
        importing = builtins.__import__

        def follow(name: str, globals: Any = None, *rest: Any, **named: Any) -> ModuleType:  # noqa: A002, ANN401
            if self.other.owns(globals):
                self.turn()
            return importing(name, globals, *rest, **named)

        builtins.__import__ = follow

    def _imported(self) -> dict[str, ModuleType]:
        new = [(name, module) for name, module in sys.modules.items() if name not in self._shared]
        return {name: module for name, module in new if not is_installed(module)}


def is_installed(module: ModuleType) -> bool:
    """Whether a module is the interpreter's, the environment's or ours: of those there is one version for all."""
    known = getattr(module, "__dict__", {})  # asking a lazy module for an attribute would import it
    file = known.get("__file__") or next(iter(known.get("__path__", ())), None)
    place = Path(file or "")
    return (
        file is None
        or known["__name__"].partition(".")[0] == "xentbench"
        or not {"site-packages", "dist-packages"}.isdisjoint(place.parts)
        or place.is_relative_to(sysconfig.get_path("stdlib"))
    )
