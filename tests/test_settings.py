"""A project's settings as they stand in its file: found upwards, read whole, refused by one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xentbench import settings
from xentbench.spec import Problem, UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


def written(text: str | bytes, folder: str = ".") -> Path:
    file = Path(folder, settings.NAME)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_the_nearest_file_with_the_table_counts():
    written('[tool.xentbench]\nbudget = "5m"')
    written("[tool.ruff]\nline-length = 120", "deep")
    found = settings.read(Path("deep/deeper"))
    assert found.file == Path.cwd() / settings.NAME
    assert found.table == {"budget": "5m"}
    written("[tool.xentbench]", "deep/deeper")
    assert settings.read(Path("deep/deeper")).table == {}
    assert settings.read().table == {"budget": "5m"}


def test_no_file_is_no_settings_and_so_is_a_folder_of_that_name():
    assert settings.read() == settings.Settings()
    Path(settings.NAME).mkdir()
    assert settings.read() == settings.Settings()
    written("[project]\nname = 'x'", "deep")
    assert settings.read(Path("deep")).file is None


def test_a_file_that_is_named_may_be_of_any_name_and_without_the_table():
    Path("bench.toml").write_text("[tool.xentbench]\nworkers = 3")
    assert settings.read_file(Path("bench.toml")).table == {"workers": 3}
    Path("bench.toml").write_text("")
    assert settings.read_file(Path("bench.toml")).table == {}
    with pytest.raises(UsageError, match=r"absent.toml expected a file that can be read: No such file"):
        settings.read_file(Path("absent.toml"))
    with pytest.raises(UsageError, match=r"deep expected a file that can be read: Is a directory"):
        settings.read_file(Path("deep"))


def test_grids_are_lists_of_problems():
    written(
        '[tool.xentbench.grids]\nours = ["N=64,C=50257,dtype=bfloat16", "logits=digits", "C=50257,N=64,dtype=bfloat16"]'
    )
    found = settings.read()
    assert found.grids == {
        "ours": (Problem(batch_size=64, num_classes=50257, dtype="bfloat16"), Problem(logits="digits"))
    }
    assert found.table == {}


BAD = {
    "no TOML": ("[tool.xentbench\n", "expected TOML, got what is none: Expected ']'"),
    "twice the same key": ("[tool.xentbench]\na = 1\na = 2", "expected TOML, got what is none: Cannot overwrite"),
    "no UTF-8": (b"[tool.xentbench]\nbudget = '\xff'", "expected TOML in UTF-8, got the byte 0xff at 27"),
    "very deep": ("a = " + "[" * 100_000, "expected TOML, got what is none"),
    "too large": ("# " + "x" * settings.LARGEST_BYTES, "expected at most 1048576 bytes, got more"),
    "no table": ("[tool]\nxentbench = 3", "tool.xentbench expected a table, got 3"),
    "grids are no table": ("[tool.xentbench]\ngrids = ['small']", "tool.xentbench.grids expected a table of grids"),
    "a grid is no list": ("[tool.xentbench.grids]\nours = 'N=8,C=10'", "grids.ours expected a list of problems"),
    "a grid is empty": ("[tool.xentbench.grids]\nours = []", "grids.ours expected a list of problems"),
    "a grid of numbers": ("[tool.xentbench.grids]\nours = [8]", "grids.ours expected a list of problems"),
    "an axis is unknown": (
        "[tool.xentbench.grids]\nours = ['N=8,C=10', 'N=8,K=10']",
        "grids.ours expected problems, but problem 'N=8,K=10' has the part 'K=10'.*got 'N=8,K=10'",
    ),
    "a value is unknown": ("[tool.xentbench.grids]\nours = ['dtype=float31']", "did you mean 'float32'"),
    "escapes in a name": ('[tool.xentbench.grids]\n"\\u001b[31m" = 3', "expected a list of problems"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_by_one_sentence_that_names_the_file(name: str):
    text, message = BAD[name]
    file = written(text).absolute()
    with pytest.raises(UsageError, match=message) as told:
        settings.read()
    assert str(told.value).startswith(str(file))
    assert "\n" not in str(told.value)
    assert "\x1b" not in str(told.value)


def test_a_file_that_may_not_be_read_is_told(monkeypatch: pytest.MonkeyPatch):
    written("[tool.xentbench]")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(UsageError, match="expected a file that can be read: Permission denied"):
        settings.read()


def test_paths_are_relative_to_the_files_folder():
    found = settings.Settings(written("").absolute())
    assert found.path("losses.py") == "losses.py"
    assert found.path("/abs/losses.py") == "/abs/losses.py"
    os.chdir("deep/deeper")
    assert found.path("losses.py") == "../../losses.py"
    assert settings.Settings().path("losses.py") == "losses.py"
