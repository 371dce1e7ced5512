import os
from pathlib import Path

import pytest

from xentbench.files import folder_name, write_atomically


def test_text_and_bytes_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "first")
    assert write_atomically(path, b"second") == path
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_atomically(tmp_path / "a.txt", "old")

    def fail(_: int) -> None:
        msg = "disk full"
        raise OSError(msg)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["", "..", "/etc/passwd", "a/../../b", "x\0y", "line\nbreak", 5000 * "x", "\ud800", "-rf"]
)
def test_any_text_gives_a_folder_of_its_own(tmp_path: Path, text: str) -> None:
    folder = tmp_path / folder_name(text)
    folder.mkdir()
    assert folder.parent == tmp_path
    assert folder.resolve().parent == tmp_path.resolve()
    assert folder_name(text) != folder_name(text + " ")
