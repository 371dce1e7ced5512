"""Revisions of a git repository, checked out for as long as they are asked: `REV:pkg.mod:NAME`, `REV:FILE.py:NAME`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from xentbench.spec import AbsentError, Source, UsageError

if TYPE_CHECKING:
    from types import TracebackType

FORMS: Final = "REV:FILE.py:NAME or REV:package.module:NAME"


def is_spelled(name: str) -> bool:
    """Whether a name asks for a revision: of three parts, and no file of that name has a colon of its own."""
    return name.count(":") > 1 and not Path(name.rpartition(":")[0]).is_file()


def is_same(first: str, second: str) -> bool:
    """Whether the first name asks for a revision of the second: `REV:FILE.py:NAME` of `FILE.py:NAME`, or of another."""
    places = [name.split(":", 1)[1] if is_spelled(name) else name for name in (first, second)]
    return is_spelled(first) and places[0] == places[1]


class Checkouts:
    """A context that holds detached worktrees of the repository of the current folder; its end removes them all."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._trees: dict[str, Path] = {}

    def source(self, spelled: str) -> Source:
        """Return the source of one callable in a revision, which is checked out now unless it has been.

        A file or module is looked for where the current folder is in the repository; a module under `src/` too.

        Args:
            spelled: `REV:FILE.py:NAME` or `REV:package.module:NAME`; REV is what `git rev-parse` takes for a commit.

        Raises:
            AbsentError: the revision has no such file or module.
            UsageError: no git, no repository, or no such revision.
        """
        revision, place, name = spelled.rsplit(":", 2)
        if not revision or not place or not all(part.isidentifier() for part in name.split(".")):
            msg = f"expected {FORMS}, got {spelled!r}"
            raise UsageError(msg)
        top = _git("rev-parse", "--show-toplevel", needed=f"{spelled!r} needs a current folder in a git repository")
        tree = self._tree(revision, spelled)
        here = tree / os.path.relpath(Path.cwd(), top)
        if place.endswith(".py"):
            file = (tree / os.path.relpath(place, top)).resolve()  # a path that is absolute too: it names the place
            if file.is_file() and file.is_relative_to(tree):
                return Source("object", f"{file}:{name}", (str(file.parent),), revision)
            msg = f"expected {FORMS}, got {spelled!r}: there is no file {place} in revision {revision}"
            raise AbsentError(msg)
        for folder in dict.fromkeys(Path(os.path.normpath(path)) for path in (here, here / "src", tree / "src")):
            if _holds(folder, place):
                return Source("object", f"{place}:{name}", (str(folder),), revision)
        msg = f"expected {FORMS}, got {spelled!r}: there is no module {place} in revision {revision}, nor in its src/"
        raise AbsentError(msg)

    def _tree(self, revision: str, spelled: str) -> Path:
        """Return the folder that this revision is checked out in."""
        asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
        needed = f"expected {FORMS}, got {spelled!r}: git knows no revision {revision!r}"
        shallow = _git("rev-parse", "--is-shallow-repository", needed=needed) == "true"
        hint = ", since this clone is shallow: clone or check out with its history (fetch-depth: 0)" if shallow else ""
        commit = _git(*asked, needed=needed + hint)
        if commit not in self._trees:
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="xentbench-revision-")).resolve()
            tree = self._trees[commit] = self._folder / f"{len(self._trees)}-{commit[:10]}"
            # A hook of the repository is nobody's implementation: it does not run.
            quiet = ("-c", "core.hooksPath=/dev/null")
            needed = f"revision {revision!r} could not be checked out"
            _git(*quiet, "worktree", "add", "--detach", str(tree), commit, needed=needed)
        return self._trees[commit]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is None:
            return
        for tree in self._trees.values():
            with contextlib.suppress(UsageError):  # one that was never made
                _git("worktree", "remove", "--force", "--force", str(tree), needed="")
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(UsageError):
            _git("worktree", "prune", needed="")


def _holds(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _git(*arguments: str, needed: str) -> str:
    """Return what git printed about the repository of the current folder.

    It is let finish when Ctrl-C comes: a worktree that is half made is locked, and stays.

    Args:
        arguments: of git.
        needed: what a person is told, with git's own last line, where git refuses.

    Raises:
        UsageError: there is no git, or it refused.
    """
    command, piped = ["git", *arguments], subprocess.PIPE
    try:
        process = subprocess.Popen(  # noqa: S603 - no shell, and revisions follow --end-of-options
            command, stdin=subprocess.DEVNULL, stdout=piped, stderr=piped, text=True, start_new_session=True
        )
    except FileNotFoundError:
        msg = f"{needed}, and there is no git on the PATH"
        raise UsageError(msg) from None
    with process:
        try:
            told, complaint = process.communicate()
        except BaseException:
            process.wait()
            raise
    if process.returncode != 0:
        lines = complaint.strip().splitlines()
        msg = f"{needed} ({lines[-1]})" if lines else needed
        raise UsageError(msg)
    return told.strip()
