import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xentbench.files import create_once, folder_name, write_atomically


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


def test_of_many_that_create_a_file_at_once_one_does_and_nobody_meets_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with ThreadPoolExecutor(8) as pool:
        contents = [str(number) * 100_000 for number in range(8)]
        made = list(pool.map(lambda content: create_once(path, content), contents))
    assert made.count(True) == 1
    assert path.read_text() == contents[made.index(True)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_created_once_where_a_file_cannot_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert create_once(tmp_path / "run.json", "first")
    assert not create_once(tmp_path / "run.json", "second")
    assert (tmp_path / "run.json").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_folder_is_flushed_after_the_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fsync(descriptor: int) -> None:
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "a.txt").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a.txt", "text")
    assert seen == [(False, False), (True, True)]
