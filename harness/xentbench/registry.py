"""Where implementations are found: name -> where it lives. The parent imports none of them; workers tell.

Sources: the built-in folder; the entry-point group `xentbench.implementations` of installed distributions; plugin
files; any callable as `FILE.py:NAME` or `package.module:NAME`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import sys
from importlib import machinery, metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xentbench import environment
from xentbench.files import user_cache, write_atomically
from xentbench.spec import AbsentError, Description, Source, Status, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Describe = Callable[[Source, Sequence[str]], list[Description]]

GROUP: Final = "xentbench.implementations"
BUILT_IN: Final = Source("built-in", "xentbench.implementations")
YOUR_OWN: Final = "a function of your own is an argument: FILE.py:NAME or package.module:NAME"
CODE: Final = (".py", ".so", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp")
"""Endings of files that an implementation may be made from."""


def sources(plugins: Sequence[str]) -> list[Source]:
    """Return the built-in folder, the installed entry points and the plugin files, in this order.

    Raises:
        UsageError: a plugin that is no Python file.
    """
    entry_points = [Source("entry-point", point.value) for point in metadata.entry_points(group=GROUP)]
    return [BUILT_IN, *entry_points, *map(plugin_source, plugins)]


def plugin_source(path: str) -> Source:
    """Return the source of `--plugin FILE`; raises UsageError where it is no Python file."""
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        state = "does not exist" if not file.exists() else "is no Python file"
        msg = f"--plugin expected a Python file such as my_loss.py, got {path!r}, which {state}"
        raise UsageError(msg)
    return Source("file", str(file.resolve()), (str(file.resolve().parent),))


def object_source(spelled: str) -> Source:
    """Return the source of `FILE.py:NAME` or `package.module:NAME`.

    Raises:
        UsageError: the file does not exist, or the text has another form.
    """
    place, colon, name = spelled.rpartition(":")
    if not colon or not place or not all(part.isidentifier() for part in name.split(".")):
        msg = f"expected FILE.py:NAME or package.module:NAME, got {spelled!r}"
        raise UsageError(msg)
    if place.endswith(".py"):
        file = Path(place).resolve()
        if not file.is_file():
            msg = f"expected FILE.py:NAME with an existing file, got {spelled!r}: {place} does not exist"
            raise UsageError(msg)
        return Source("object", f"{file}:{name}", (str(file.parent),))
    return Source("object", spelled, (str(Path.cwd()),))


def discover(where: Iterable[Source], problems: Sequence[str], describe: Describe) -> list[Description]:
    """Return what every source holds; a name that is used twice is an error entry that names both places.

    Args:
        where: sources, in the order of their claim to a name.
        problems: keys of the planned problems; refusals are told for these.
        describe: asks a source (a worker's, in earnest).
    """
    found: dict[str, Description] = {}
    for source in where:
        for entry in describe(source, problems):
            if entry.name in found and entry.status.is_wrong:  # what does not load takes no name from what does
                found[f"{entry.name} in {entry.origin}"] = entry
                continue
            if entry.name in found and found[entry.name].status.is_wrong:
                broken = found.pop(entry.name)
                found[f"{broken.name} in {broken.origin}"] = broken
            if entry.name in found:
                entry = _duplicate(found[entry.name], entry)  # noqa: PLW2901 - the error takes the entry's place
            found[entry.name] = entry
    return list(found.values())


def _duplicate(first: Description, second: Description) -> Description:
    reason = f"{first.name!r} is defined twice: in {first.origin} and in {second.origin}; rename one of them"
    return dataclasses.replace(
        first, status=Status.IMPORT_FAILED, reason=reason, origin=f"{first.origin}, {second.origin}"
    )


def select(found: Sequence[Description], globs: Sequence[str]) -> list[Description]:
    """Return the implementations that match any of the globs, in order; without globs all but those on request.

    Raises:
        UsageError: a glob that matches nothing.
    """
    names = [entry.name for entry in found]
    for glob in globs:
        if not fnmatch.filter(names, glob):
            msg = f"implementation {glob!r} is unknown: {nearest(glob, names)}; {YOUR_OWN}"
            raise UsageError(msg)
    if not globs:
        return [entry for entry in found if not entry.on_request]
    return [entry for entry in found if any(fnmatch.fnmatchcase(entry.name, glob) for glob in globs)]


def demand_plugins(found: Sequence[Description]) -> None:
    """Refuse to start long work when what the person named by hand cannot be loaded; a broken built-in is only shown.

    Raises:
        AbsentError: nothing of that name is in an object's module.
        UsageError: names the file or object, and the error.
    """
    for entry in found:
        if entry.source.kind in ("file", "object") and entry.status.is_wrong:
            msg = f"{entry.origin} could not be loaded: {entry.reason}"
            raise AbsentError(msg) if entry.reason.startswith(f"{AbsentError.__name__}: ") else UsageError(msg)


def cached(describe: Describe, folder: Path | None = None) -> Describe:
    """Return `describe` that remembers the built-in folder and plugin files by their contents, for `list`.

    Only sources of which every part loaded are remembered: a missing package may be installed tomorrow.
    """
    place = folder or user_cache("descriptions")

    def remembered(source: Source, problems: Sequence[str]) -> list[Description]:
        digest = _digest(source)
        if digest is None or problems:
            return describe(source, problems)
        file = place / f"{digest}.json"
        try:
            return [Description.read(source, entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError, KeyError):
            told = describe(source, problems)
        if all(entry.status is Status.PASSED for entry in told):
            _remember(file, [dataclasses.asdict(entry) for entry in told])
        return told

    return remembered


def fingerprint(entry: Description) -> str:
    """Return a hash of the code that an implementation comes from: its file, and what lies beside it in its folder.

    It is empty where no file is found: a package that an import hook brings. Nothing is imported to find out.
    """
    source = entry.source
    if source.kind == "built-in":
        package = Path(str(resources.files(source.where)))
        shared = (one for one in package.glob("_*/*") if one.suffix in CODE)
        files = [package / Path(entry.origin).name, *sorted(package.glob("_*.py")), *sorted(shared)]
    else:
        place = source.where.rpartition(":")[0] if source.kind != "file" and ":" in source.where else source.where
        file = Path(place) if place.endswith(".py") else _module_file(place, source.paths)
        files = [] if file is None else sorted(one for one in file.parent.glob("*") if one.suffix in CODE)
    digest = hashlib.sha256()
    try:
        for file in filter(Path.is_file, files):
            digest.update(f"{file.name}|{file.stat().st_size}|".encode() + file.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:32] if files else ""


def _module_file(module: str, paths: Sequence[str]) -> Path | None:
    """Return the file of a module without importing its packages, or None."""
    folders: Sequence[str] | None = [*paths, *sys.path]
    names, origin = module.split("."), None
    for depth in range(1, len(names) + 1):
        spec = machinery.PathFinder.find_spec(".".join(names[:depth]), folders)
        if spec is None:
            return None
        folders, origin = spec.submodule_search_locations, spec.origin
    return None if origin is None else Path(origin)


def _digest(source: Source) -> str | None:
    """Return a hash of the source's files and of the versions that read them, or None where its files are not known."""
    if source.kind == "built-in":
        files = sorted(Path(str(resources.files("xentbench"))).glob("spec/*.py"))
        package = Path(str(resources.files(source.where)))
        files += sorted(package.glob("*.py"))
    elif source.kind == "file":
        files = sorted(Path(source.where).parent.glob("*.py"))
    else:
        return None
    digest = hashlib.sha256(f"{source}|{environment.version('torch')}|{environment.version('xentbench')}".encode())
    try:
        for file in filter(Path.is_file, files):
            digest.update(file.read_bytes())
    except OSError:
        return None
    return digest.hexdigest()[:32]


def _remember(file: Path, entries: list[dict[str, Any]]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(entries))
    except OSError:
        return  # a cache that cannot be written costs time, nothing else
