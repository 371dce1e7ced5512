from __future__ import annotations

import sys
from pathlib import Path

import pytest
from worker_fixtures import ONE_GOOD, plugin

from xentbench.spec import Implementation, Source
from xentbench.worker import loading


@pytest.fixture(autouse=True)
def clean_import_state(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("xentbench_plugin_")]:
        del sys.modules[name]


def names(loaded: loading.Loaded) -> list[str]:
    return [entry.name for _, entry in loaded.found]


def test_the_built_in_folder_loads_without_a_broken_module():
    loaded = loading.load(Source("built-in", "xentbench.implementations"))
    assert loaded.broken == ()
    assert len(names(loaded)) == len(set(names(loaded))) >= 13
    assert all(origin.startswith("implementations/") for origin, _ in loaded.found)


def test_a_plugin_gives_its_top_level_implementations_lists_and_tuples_once(tmp_path: Path):
    file = plugin(
        tmp_path,
        ONE_GOOD
        + "again = good\n"
        + "more = [implementation('second')(F.cross_entropy), (1, 2)]\n"
        + "def hidden():\n    return implementation('hidden')(F.cross_entropy)\n",
    )
    assert names(loading.load(Source("file", str(file)))) == ["good", "second"]


def test_a_plugin_that_imports_a_built_in_does_not_define_it_again(tmp_path: Path):
    file = plugin(tmp_path, "from xentbench.implementations.naive import *\n" + ONE_GOOD)
    assert names(loading.load(Source("file", str(file)))) == ["good"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise RuntimeError('no\\nluck')\n", "RuntimeError: no luck"),
        ("import no_such_package_here\n", "No module named 'no_such_package_here'"),
        ("def broken(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("implementation('bad name')(F.cross_entropy)\n", "must match"),
        ("x = 1\n", "holds no implementation"),
    ],
)
def test_a_plugin_that_fails_is_shown_with_its_message(tmp_path: Path, text: str, told: str):
    loaded = loading.load(Source("file", str(plugin(tmp_path, text))))
    assert names(loaded) == []
    assert [told in part.message for part in loaded.broken] == [True]


def test_any_callable_is_wrapped_under_its_own_name(tmp_path: Path):
    file = plugin(tmp_path, "def my_loss(logits, labels):\n    '''Mine.'''\n    return logits.sum()\n")
    ((origin, entry),) = loading.load(Source("object", f"{file}:my_loss")).found
    assert (origin, entry.name, entry.summary) == ("losses.py", "my_loss", "Mine.")
    ((_, module),) = loading.load(Source("object", "torch.nn:CrossEntropyLoss")).found
    assert isinstance(module, Implementation)


@pytest.mark.parametrize("attribute", ["missing", "number"])
def test_what_is_not_callable_is_told(tmp_path: Path, attribute: str):
    file = plugin(tmp_path, "number = 7\ndef other(a, b): ...\n")
    (part,) = loading.load(Source("object", f"{file}:{attribute}")).broken
    assert "losses.py" in part.message
    assert ("other" in part.message) == (attribute == "missing")


def test_a_plugin_sees_the_modules_beside_it(tmp_path: Path):
    (tmp_path / "neighbour_of_plugin.py").write_text("VALUE = 1\n")
    file = plugin(tmp_path, "from neighbour_of_plugin import VALUE\n" + ONE_GOOD)
    assert names(loading.load(Source("file", str(file), (str(tmp_path),)))) == ["good"]


def test_a_missing_package_is_named():
    entry = Implementation("x", print, packages=("json", "no_such_package_here"))
    assert loading.missing_package(entry) == "no_such_package_here"
    assert loading.missing_package(Implementation("x", print, packages=("json",))) is None


def test_folders_of_this_machine_are_cut_from_messages():
    text = "Error: in /home/me/secret/code.py:7 and https://example.org/a/b, at 3/4 of '/tmp/x y'"
    assert loading.without_folders(text) == "Error: in code.py:7 and https://example.org/a/b, at 3/4 of 'x y'"


def test_an_error_becomes_one_bounded_line_even_when_it_cannot_be_printed():
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert loading.one_line(UnprintableError()) == "UnprintableError: (its message cannot be printed)"
    assert len(loading.one_line(ValueError("x" * 10**6))) == 2000
