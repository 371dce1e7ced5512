"""A `Source` -> the implementations in it. This runs their modules: workers and in-process drivers only."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xentbench.spec import NAME_PATTERN, AbsentError, Implementation, Source, UsageError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

BUILT_IN = "xentbench.implementations"


@dataclass(frozen=True, slots=True)
class Broken:
    """A module or object that could not be loaded: shown with its message, never dropped.

    Attributes:
        name: what it would have been called.
        origin: module or file.
        message: type and text of the error, one line.
    """

    name: str
    origin: str
    message: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a source held: implementations with the module or file each came from, and what failed."""

    found: tuple[tuple[str, Implementation], ...]
    broken: tuple[Broken, ...]


def load(source: Source) -> Loaded:
    """Import a source and return what it holds; errors of one module never hide the others."""
    for path in reversed(source.paths):
        if path not in sys.path:
            sys.path.insert(0, path)
    found: dict[int, tuple[str, Implementation]] = {}
    broken: list[Broken] = []
    for origin, name, importer in _parts(source):
        try:
            loaded = importer()
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit included
            broken.append(Broken(name, origin, one_line(error)))
            continue
        for entry in _entries(loaded, name, source):
            found.setdefault(id(entry), (origin, entry))
    if not found and not broken:
        broken.append(Broken(*_nothing(source)))
    return Loaded(tuple(found.values()), tuple(broken))


def missing_package(implementation: Implementation) -> str | None:
    """Return the first declared package that is not installed, or None; so is one whose parents are not there."""
    return next((name for name in implementation.packages if not _is_installed(name.rpartition(":")[2])), None)


def remedy(package: str) -> str:
    """Return, for people, that a declared package is missing, and the one command that adds it."""
    distribution, _, name = package.rpartition(":")
    return f"needs the package {name!r}: pip install {distribution or name.partition('.')[0].replace('_', '-')}"


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def one_line(error: BaseException) -> str:
    """Return type and message of an error as one bounded line (its text may be megabytes, or unprintable)."""
    try:
        text = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 - __str__ belongs to the plugin
        text = "(its message cannot be printed)"
    return without_folders(f"{type(error).__name__}: {text}"[:4000])[:2000]


def without_folders(text: str) -> str:
    """Return text with every absolute path cut down to its last name: results tell no folders of this machine."""
    return re.sub(r"(?<![\w.:/])/(?:[^\s/:\"'<>|()]+/)+", "", text)


def _parts(source: Source) -> Iterator[tuple[str, str, Any]]:
    """Yield (origin, name, a function that imports it) for each part of a source that may fail on its own."""
    if source.kind == "built-in":
        package = importlib.import_module(source.where)
        for info in pkgutil.iter_modules(package.__path__):
            if not info.name.startswith("_"):
                module = f"{source.where}.{info.name}"
                yield f"implementations/{info.name}.py", info.name.replace("_", "-"), _importer(module)
        return
    named = source.kind != "file" and ":" in source.where  # a file's folder may hold a colon of its own
    place, _, attribute = source.where.rpartition(":") if named else (source.where, "", "")
    origin = os.path.basename(place) if place.endswith(".py") else place  # noqa: PTH119 - text, not a path to open
    origin += f" in {source.revision}" if source.revision else ""
    name = attribute or Path(place).stem
    importer = _file_importer(place) if place.endswith(".py") else _importer(place)
    yield origin, name, (lambda: _attribute(importer(), attribute, place)) if attribute else importer


def _importer(module: str) -> Any:  # noqa: ANN401 - a thunk
    return lambda: importlib.import_module(module)


def _file_importer(path: str) -> Any:  # noqa: ANN401 - a thunk
    def run() -> ModuleType:
        name = f"xentbench_plugin_{Path(path).stem}"
        while name in sys.modules:  # another version of this file, in a direct duel
            name += "_"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            msg = f"{path} is no Python file"
            raise ImportError(msg)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickling of the plugin's own classes look themselves up here
        spec.loader.exec_module(module)
        return module

    return run


def _attribute(module: ModuleType, name: str, place: str) -> Any:  # noqa: ANN401 - anything
    value = module
    for part in name.split("."):
        if not hasattr(value, part):
            known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            msg = f"{os.path.basename(place)} has no {name!r}; it has {', '.join(known[:20]) or 'nothing callable'}"  # noqa: PTH119
            raise AbsentError(msg)
        value = getattr(value, part)
    return value


def _entries(loaded: Any, name: str, source: Source) -> list[Implementation]:  # noqa: ANN401 - anything
    """Return the implementations in a module, list, tuple or callable."""
    if isinstance(loaded, Implementation):
        return [loaded]
    if isinstance(loaded, list | tuple):
        return [entry for entry in loaded if isinstance(entry, Implementation)]
    if source.kind in ("object", "entry-point") and callable(loaded):
        plain = name if NAME_PATTERN.fullmatch(name) else name.strip("_.") or "loss"
        return [Implementation(name=plain, function=loaded, summary=first_line(loaded))]
    values = (
        [value for key, value in vars(loaded).items() if not key.startswith("__")]
        if hasattr(loaded, "__dict__")
        else []
    )
    nested = [_entries(value, name, source) for value in values if isinstance(value, list | tuple | Implementation)]
    return [entry for entries in nested for entry in entries if source.kind == "built-in" or not _is_ours(entry)]


def _is_ours(entry: Implementation) -> bool:
    """Whether a plugin merely imported a built-in implementation; that is no second definition of it."""
    return str(getattr(entry.function, "__module__", "")).startswith(BUILT_IN + ".")


def _nothing(source: Source) -> tuple[str, str, str]:
    place = os.path.basename(source.where)  # noqa: PTH119 - text for people
    hint = (
        f"decorate a loss with @xentbench.implementation(NAME), or judge one function as {place}:NAME"
        if source.kind == "file"
        else "expected a callable, an Implementation, or a module or list that holds some"
    )
    return Path(source.where).stem, place, str(UsageError(f"{place} holds no implementation: {hint}"))
