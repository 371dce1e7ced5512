"""`examples/their_repo` as a git repository of two commits, in an environment of its own, with its workflow's commands.

What the gate is tried with, here and in the tests, is what the workflow file says, line by line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLE: Final = Path(__file__).parents[1] / "examples" / "their_repo"
WORKFLOW: Final = Path(".github/workflows/cross-entropy.yml")
LOSSES: Final = Path("src/their_package/losses.py")
INSTALLING: Final = "pip install"
SUMMARY: Final = "summary.md"


def commands() -> list[str]:
    """Return the `run` lines of the workflow, in their order."""
    jobs = yaml.safe_load((EXAMPLE / WORKFLOW).read_text(encoding="utf-8"))["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


@dataclass(frozen=True, slots=True)
class Repository:
    """A copy of the example.

    Attributes:
        folder: with its base commit on `main`, and the branch `change` checked out.
        environment: in which its commands run; the base is `main`.
    """

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def at(cls, place: Path, files: Mapping[Path, str] | None = None) -> Repository:
        """Make a copy whose base has other files, if any are given.

        Args:
            place: a folder to make it in, with its environment.
            files: path in the repository -> text.
        """
        folder = place / "their_repo"
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", ".pytest_cache"))
        tools = _installed(place / "venv", folder / "src")
        known = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTEST_"))}
        path = f"{tools}{os.pathsep}{known.get('PATH', '')}"
        told = {"PATH": path, "BASE": "main", "GITHUB_STEP_SUMMARY": str(place / SUMMARY)}
        made = cls(folder, {**known, **told})
        made.git("init", "-q", "-b", "main")
        made.commit(files or {})
        made.git("checkout", "-q", "-b", "change")
        return made

    def git(self, *arguments: str) -> None:
        """Run git in it, as somebody."""
        somebody = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *somebody, *arguments], cwd=self.folder, check=True, capture_output=True)  # noqa: S603, S607

    def commit(self, files: Mapping[Path, str]) -> None:
        """Write files and commit everything, unchanged or not."""
        for path, text in files.items():
            (self.folder / path).write_text(text, encoding="utf-8")
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "a change")

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one line of the workflow as its runner does: by bash, which ends at the first error."""
        asked = ["bash", "-e", "-c", command]
        return subprocess.run(  # noqa: S603 - the workflow's own
            asked, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )


def _installed(place: Path, source: Path) -> Path:
    """Make an environment as `pip install -e '.[test]'` leaves it, without a download; return its folder of commands.

    It sees what this process's environment has, and the package in its source folder.
    """
    venv.create(place, with_pip=False, symlinks=True)
    paths = {"base": str(place), "platbase": str(place)}
    packages, scripts = (Path(sysconfig.get_path(name, "venv", paths)) for name in ("purelib", "scripts"))
    ours = sysconfig.get_path("purelib")
    (packages / "all.pth").write_text(f"import site; site.addsitedir({ours!r})\n{source}\n", encoding="utf-8")
    for name, call in (("xentbench", "xentbench.cli:main"), ("pytest", "pytest:console_main")):
        module, function = call.split(":")
        python = scripts / Path(sys.executable).name
        script = scripts / name
        script.write_text(f"#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        script.chmod(0o755)
    return scripts
