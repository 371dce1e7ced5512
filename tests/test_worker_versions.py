from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path

import pytest
import torch

from xentbench.spec import Source
from xentbench.worker import loading
from xentbench.worker.versions import Sides, is_installed


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch):
    modules, path = dict(sys.modules), list(sys.path)
    monkeypatch.setattr(builtins, "__import__", builtins.__import__)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


def version(folder: Path, number: int) -> Source:
    package = folder / f"v{number}" / "entrant"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(f"NUMBER = {number}\n")
    (package / "late.py").write_text(f"NUMBER = {10 * number}\n")
    (package.parent / "beside.py").write_text(f"NUMBER = {100 * number}\n")
    (package / "losses.py").write_text(
        "from entrant import inner\n"
        "def loss(input, target):\n"
        "    from entrant.late import NUMBER\n"
        "    import beside\n"
        "    return inner.NUMBER + NUMBER + beside.NUMBER\n"
    )
    return Source("object", "entrant.losses:loss", (str(package.parent),))


def function(source: Source):
    ((_, entry),) = loading.load(source).found
    return entry.function


@pytest.mark.usefixtures("clean")
def test_each_version_imports_its_own_modules_at_once_and_later(tmp_path: Path):
    sides = Sides()
    first = function(version(tmp_path, 1))
    sides.turn()
    second = function(version(tmp_path, 2))
    sides.follow_imports()
    assert [first(0, 0), second(0, 0), second(0, 0), first(0, 0)] == [111, 222, 222, 111]
    assert sides.clashes() == {"beside", "entrant", "entrant.inner", "entrant.late", "entrant.losses"}


@pytest.mark.usefixtures("clean")
def test_what_only_the_other_version_has_is_not_found(tmp_path: Path):
    sides, first, second = Sides(), version(tmp_path, 1), version(tmp_path, 2)
    (tmp_path / "v2" / "beside.py").unlink()
    function(first)(0, 0)
    sides.turn()
    loss = function(second)
    sides.follow_imports()
    with pytest.raises(ModuleNotFoundError, match="beside"):
        loss(0, 0)


@pytest.mark.usefixtures("clean")
def test_two_versions_of_a_file_are_two_modules(tmp_path: Path):
    (tmp_path / "losses.py").write_text("def loss(input, target):\n    return 1\n")
    source = Source("object", f"{tmp_path / 'losses.py'}:loss", (str(tmp_path),))
    assert function(source).__module__ != function(source).__module__


def test_there_is_one_torch_one_standard_library_and_one_of_us():
    assert all(is_installed(module) for module in (torch, json, loading, sys))
    assert not is_installed(sys.modules[__name__])
