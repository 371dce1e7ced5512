"""What a project sets for itself: the table `[tool.xentbench]` of its `pyproject.toml`, as it stands there.

The nearest such file counts, from a folder upwards, that has this table; files without it are passed over. Paths in it
are relative to its own folder. What the options of a verb make of it is `configuration`'s to say.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xentbench.spec import Problem, UsageError, inert

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "pyproject.toml"
TABLE: Final = "tool.xentbench"
GRIDS: Final = "grids"
"""The key of the table in the table that holds a project's own grids."""
LARGEST_BYTES: Final = 1 << 20
"""A larger file is no `pyproject.toml` that a person wrote."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A project's settings.

    Attributes:
        file: that they were read from, or None where there is none.
        table: `[tool.xentbench]` as TOML gives it, less its grids.
        grids: name of a grid of the project's own -> its problems.
    """

    file: Path | None = None
    table: Mapping[str, Any] = field(default_factory=dict)
    grids: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)

    def error(self, *, key: str, expected: str, got: object) -> UsageError:
        """Return the error of one key: a sentence that names file, key, what was expected and what came."""
        where = inert(f"{TABLE}.{key}", 200) if key else TABLE
        return UsageError(f"{self.file}: {where} expected {expected}, got {inert(repr(got), 200)}")

    def path(self, text: str) -> str:
        """Return a path of the file, which is relative to the file's folder, as it is reached from the current one."""
        if self.file is None or os.path.isabs(text):  # noqa: PTH117 - may be FILE.py:NAME
            return text
        return os.path.relpath(self.file.parent / text)


def read(start: Path | None = None) -> Settings:
    """Return the settings of the nearest `pyproject.toml` that has any, from `start` (the current folder) upwards.

    Raises:
        UsageError: a file on the way cannot be read or is no TOML, or its table is not as it should be.
    """
    folder = (start or Path()).absolute()
    for place in (folder, *folder.parents):
        file = place / NAME
        if file.is_file():
            table = _table(file)
            if table is not None:
                return _settings(file, table)
    return Settings()


def read_file(file: Path) -> Settings:
    """Return the settings of a file that a person named; one without the table has none.

    Raises:
        UsageError: as `read`, and where there is no such file.
    """
    return _settings(file.absolute(), _table(file.absolute()) or {})


def results(default: Path) -> Path:
    """Return the folder that the project keeps its runs in, or `default` where it does not say."""
    found = read()
    told = found.table.get("results")
    if told is None:
        return default
    if not isinstance(told, str):
        raise found.error(key="results", expected="text", got=told)
    return Path(found.path(told))


def _table(file: Path) -> Mapping[str, Any] | None:
    """Return the file's table, or None where it has none."""
    msg = f"{file} expected TOML"
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            msg = f"{file} expected at most {LARGEST_BYTES} bytes, got more"
            raise UsageError(msg)
        tool = tomllib.loads(content.decode()).get("tool")
    except OSError as error:
        msg = f"{file} expected a file that can be read: {error.strerror}; mend it, or give --no-config"
        raise UsageError(msg) from None
    except UnicodeDecodeError as error:
        byte = f"the byte {error.object[error.start]:#04x} at {error.start}"
        msg = f"{msg} in UTF-8, got {byte}; mend it, or give --no-config"
        raise UsageError(msg) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        msg = f"{msg}, got what is none: {inert(str(error), 200)}; mend it, or give --no-config"
        raise UsageError(msg) from None
    table = tool.get("xentbench") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise Settings(file).error(key="", expected="a table", got=table)
    return table


def _settings(file: Path, table: Mapping[str, Any]) -> Settings:
    told = Settings(file, {key: value for key, value in table.items() if key != GRIDS})
    grids = table.get(GRIDS, {})
    if not isinstance(grids, dict):
        raise told.error(key=GRIDS, expected='a table of grids such as ours = ["N=64,C=50257"]', got=grids)
    return Settings(file, told.table, {name: _grid(told, name, keys) for name, keys in grids.items()})


def _grid(told: Settings, name: str, keys: object) -> tuple[Problem, ...]:
    key = f"{GRIDS}.{name}"
    if not isinstance(keys, list) or not keys or not all(isinstance(one, str) for one in keys):
        raise told.error(key=key, expected='a list of problems such as ["N=64,C=50257,dtype=bfloat16"]', got=keys)
    problems = []
    for one in keys:
        try:
            problems.append(Problem.parse(one))
        except UsageError as error:
            raise told.error(key=key, expected=f"problems, but {inert(str(error), 400)}", got=one) from None
    return tuple(dict.fromkeys(problems))
