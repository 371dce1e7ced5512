from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from xentbench import revisions
from xentbench.revisions import Checkouts
from xentbench.spec import AbsentError, UsageError


def git(*arguments: str, cwd: Path) -> str:
    settings = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *settings, *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a repository, and the current one: two commits, of which the first is tagged."""
    folder = tmp_path / "repository" / "project"
    (folder / "src" / "entrant").mkdir(parents=True)
    git("init", cwd=tmp_path / "repository")
    for number in (1, 2):
        (folder / "losses.py").write_text(f"NUMBER = {number}\n")
        (folder / "src" / "entrant" / "inner.py").write_text(f"NUMBER = {number}\n")
        git("add", ".", cwd=folder)
        git("commit", "-m", str(number), cwd=folder)
        git("tag", f"v{number}", cwd=folder)
    (folder / "losses.py").write_text("NUMBER = 3\n")
    monkeypatch.chdir(folder)
    return folder


def place(source) -> Path:
    return Path(source.where.rpartition(":")[0])


def test_a_file_is_as_it_was_in_the_revision_by_any_spelling(project: Path):
    with Checkouts() as checkouts:
        for revision, number in (("v1", 1), ("HEAD~1", 1), ("main", 2), ("HEAD", 2)):
            for spelled in ("losses.py", "./losses.py", "../project/losses.py", str(project / "losses.py")):
                source = checkouts.source(f"{revision}:{spelled}:loss")
                assert place(source).read_text() == f"NUMBER = {number}\n"
                assert source.paths == (str(place(source).parent),)
                assert source.revision == revision


def test_a_module_is_looked_for_here_and_under_src(project: Path):
    with Checkouts() as checkouts:
        source = checkouts.source("v1:entrant.inner:loss")
        (folder,) = source.paths
        assert (Path(folder) / "entrant" / "inner.py").read_text() == "NUMBER = 1\n"
        assert Path(folder).parts[-2:] == ("project", "src")
        (folder,) = checkouts.source("v2:losses:loss").paths
        assert (Path(folder) / "losses.py").read_text() == "NUMBER = 2\n"


def test_a_revision_is_checked_out_once(project: Path):
    with Checkouts() as checkouts:
        assert checkouts.source("v1:losses.py:a").paths == checkouts.source("HEAD~1:losses.py:b").paths
        assert len(git("worktree", "list", cwd=project).splitlines()) == 2
    assert len(git("worktree", "list", cwd=project).splitlines()) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error_either(project: Path, error: type[BaseException]):
    trees = []

    def ended() -> None:
        with Checkouts() as checkouts:
            trees.append(place(checkouts.source("v1:losses.py:loss")))
            (trees[0].parent / "built").write_text("by an implementation")
            raise error

    with pytest.raises(error):
        ended()
    assert not trees[0].exists()
    assert len(git("worktree", "list", cwd=project).splitlines()) == 1
    assert git("worktree", "prune", "--dry-run", "--verbose", cwd=project) == ""


def test_no_hook_runs(project: Path):
    hook = project.parent / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {project}/ran\n")
    hook.chmod(0o755)
    with Checkouts() as checkouts:
        checkouts.source("v1:losses.py:loss")
    assert not (project / "ran").exists()


@pytest.mark.parametrize(
    ("spelled", "told"),
    [
        ("nope:losses.py:loss", "knows no revision 'nope'"),
        ("--all:losses.py:loss", "knows no revision '--all'"),
        (":losses.py:loss", "expected REV:FILE.py:NAME"),
        ("v1:losses.py:no name", "expected REV:FILE.py:NAME"),
        ("v1:absent.py:loss", "there is no file absent.py in revision v1"),
        ("v1:../../absent.py:loss", "there is no file"),
        ("v1:entrant.outer:loss", "there is no module entrant.outer in revision v1"),
    ],
)
@pytest.mark.usefixtures("project")
def test_what_is_not_there_is_one_sentence(spelled: str, told: str):
    with Checkouts() as checkouts, pytest.raises(UsageError, match=told):
        checkouts.source(spelled)


@pytest.mark.parametrize("spelled", ["v1:absent.py:loss", "v1:entrant.outer:loss"])
@pytest.mark.usefixtures("project")
def test_a_place_that_a_revision_does_not_have_yet_is_told_apart(spelled: str):
    with Checkouts() as checkouts, pytest.raises(AbsentError):
        checkouts.source(spelled)


@pytest.mark.usefixtures("project")
def test_no_repository_and_no_git_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with Checkouts() as checkouts, pytest.raises(UsageError, match="needs a current folder in a git repository"):
        checkouts.source("v1:losses.py:loss")
    monkeypatch.setenv("PATH", str(tmp_path))
    with Checkouts() as checkouts, pytest.raises(UsageError, match="there is no git on the PATH"):
        checkouts.source("v1:losses.py:loss")


@pytest.mark.usefixtures("project")
def test_a_first_commit_is_one_function_in_two_revisions():
    assert revisions.is_same("main:losses.py:loss", "losses.py:loss")
    assert revisions.is_same("v1:pkg.losses:loss", "HEAD~1:pkg.losses:loss")
    assert not revisions.is_same("main:losses.py:lost", "losses.py:loss")
    assert not revisions.is_same("losses.py:loss", "losses.py:loss")


def test_three_parts_are_a_revision_unless_a_file_has_a_colon_of_its_own(project: Path):
    assert revisions.is_spelled("main:losses.py:loss")
    assert not revisions.is_spelled("losses.py:loss")
    assert not revisions.is_spelled("losses")
    (project / "a:losses.py").write_text("")
    assert not revisions.is_spelled("a:losses.py:loss")
