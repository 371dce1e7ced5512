"""The documentation is true: commands do what the pages show, options exist, links lead somewhere, doctests hold."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pages
import pytest
import yaml
from pages import ROOT, Block, Command, Page

import xentbench

PAGES = pages.pages()
PACKAGE = Path(xentbench.__file__).parent
FOREIGN = ("--benchmark-", "--xentbench-")
"""Beginnings of options that are pytest's: of a plugin of another, or of ours."""
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
RUN = [page for page in PAGES if any(block.language == "console" for block in page.blocks)]
SLOW = [page for page in RUN if any(block.is_slow for block in page.blocks)]


@pytest.mark.parametrize("page", RUN, ids=str)
def test_commands_print_what_the_page_shows(page: Page, tmp_path: Path):
    follow(page, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=str)
def test_commands_that_take_long_print_what_the_page_shows(page: Page, tmp_path: Path):
    follow(page, tmp_path, slow=True)


def follow(page: Page, folder: Path, *, slow: bool) -> None:
    """Do in a folder what the page tells its reader to do, from top to bottom."""
    settle(page, folder)
    for block in page.blocks:
        if block.is_slow and not slow:
            continue
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
        elif block.language == "console":
            commands = block.commands()
            for command in commands:
                shown_alike(command, folder, block.exit_code if command is commands[-1] else 0, f"{page}:{block.line}")
        elif block.language == "python" and "run" in block.marks:
            done = ran([sys.executable, "-"], folder, block.text)
            assert done.returncode == 0, f"{page}:{block.line}: {done.stderr}"


def settle(page: Page, folder: Path) -> None:
    """Put into a folder what a page may take for granted: an example's own files, else those of a clone."""
    if page.path.is_relative_to(ROOT / "examples") and page.path.parent != ROOT / "examples":
        shutil.copytree(page.path.parent, folder, dirs_exist_ok=True)
        return
    for name in ("examples", "implementations"):
        (folder / name).symlink_to(ROOT / name)


def ran(command: list[str] | str, folder: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as a reader would who has activated the environment that these tests run in."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"cwd": folder, "input": text, "env": {**os.environ, "PATH": path, "COLUMNS": "120"}}
    return subprocess.run(
        command, shell=isinstance(command, str), capture_output=True, text=True, check=False, timeout=900, **settings
    )


def shown_alike(command: Command, folder: Path, code: int, where: str) -> None:
    """Assert that a command ends and prints as the page says; progress on standard error may be left out there."""
    done = ran(command.line, folder)
    told = f"{where}: $ {command.line}\n{done.stdout}{done.stderr}"
    assert done.returncode == code, f"exit code {done.returncode}, not {code}: {told}"
    if command.shown:
        printed = (done.stdout, done.stderr, done.stdout + done.stderr)
        assert any(matches(f"{command.shown}\n", text) for text in printed), told


def matches(shown: str, printed: str) -> bool:
    """Whether a text is as shown, where `…` stands for anything and any white space for any other."""
    # A number's own dot, before the three that doctest knows, would count as one of them.
    wanted, got = (text.replace(".", "·").replace("…", "...") for text in (shown, printed))
    return doctest.OutputChecker().check_output(wanted, got, ALIKE)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_line_shown_is_one_that_the_program_takes(page: Page):
    refused = {line: reason for line in page.invocations() if (reason := pages.objection(line))}
    refused |= {line: reason for line in page.mentions() if (reason := pages.objection(line, mentioned=True))}
    assert refused == {}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_option_named_exists(page: Page):
    named = {span.split()[0].partition("=")[0] for span in page.spans() if span.startswith("--")}
    assert {name for name in named - pages.options() if not name.startswith(FOREIGN)} == set()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_nox_session_named_exists(page: Page):
    text = page.path.read_text(encoding="utf-8")
    named = {name for run in re.findall(r"nox -s ((?:[a-z][\w-]* ?)+)", text) for name in run.split()[:1]}
    assert named <= sessions()


def sessions() -> set[str]:
    """Return the names of the sessions in the noxfile, without running it."""
    found = set()
    for node in ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body:
        for decorator in getattr(node, "decorator_list", []):
            if ast.unparse(decorator).startswith("nox.session"):
                given = re.search(r"name='([\w-]+)'", ast.unparse(decorator))
                found.add(given[1] if given else node.name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Page):
    assert [link for link in page.links() if not leads_somewhere(page, link)] == []


def leads_somewhere(page: Page, link: str) -> bool:
    """Whether a link is to another site, or to a file of ours and, where it names one, a heading in it."""
    if re.match(r"(https?|mailto):", link):
        return True
    path, _, anchor = link.partition("#")
    target = (page.path.parent / path).resolve() if path else page.path
    return target.exists() and (not anchor or anchor in Page(target).anchors())


def test_every_page_can_be_reached_from_the_index():
    seen, ahead = set(), [ROOT / "README.md", ROOT / "docs" / "README.md"]
    while ahead:
        path = ahead.pop()
        path = path / "README.md" if path.is_dir() else path
        if path in seen or path.suffix != ".md" or not path.exists():
            continue
        seen.add(path)
        ahead += [(path.parent / link.partition("#")[0]).resolve() for link in Page(path).links() if ":" not in link]
    assert [str(page) for page in PAGES if page.path not in seen] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_code_that_is_shown_is_code(page: Page):
    for block in page.blocks:
        check(block, str(page))


def check(block: Block, name: str) -> None:
    """Parse a block by its language; a block of Python with prompts is a doctest."""
    if block.language == "python" and ">>>" in block.text:
        public = {public: getattr(xentbench, public) for public in xentbench.__all__}
        test = doctest.DocTestParser().get_doctest(block.text, public, name, name, block.line)
        assert doctest.DocTestRunner(optionflags=ALIKE).run(test).failed == 0
    elif block.language == "python":
        compile(block.text, f"{name}:{block.line}", "exec")
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)


def documented() -> list[str]:
    """Return the modules of the package whose docstrings hold examples that can be run as they stand."""
    shown = re.compile(r">>> (?!.*doctest: \+SKIP)")
    files = [path for path in PACKAGE.rglob("*.py") if shown.search(path.read_text(encoding="utf-8"))]
    return [".".join(("xentbench", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in sorted(files)]


@pytest.mark.parametrize("module", documented())
def test_docstrings_show_what_happens(module: str):
    done = doctest.testmod(importlib.import_module(module), optionflags=ALIKE)
    assert done.attempted > 0
    assert done.failed == 0


NOT_TAKEN = {
    "xentbench bench --quik": "--quik",
    "xentbench compare one": "SECOND",
    "xentbench benhc": "benhc",
    "xentbench bench --workers many": "many",
}


@pytest.mark.parametrize("line", NOT_TAKEN)
def test_a_command_line_that_the_program_does_not_take_is_found(line: str):
    assert NOT_TAKEN[line] in pages.objection(line)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("$ xentbench list", ["xentbench list"]),
        ("      - run: xentbench report ci", ["xentbench report ci"]),
        ("pip install -e . && xentbench bench", ["xentbench bench"]),
        ("srun xentbench bench --run x", ["xentbench bench --run x"]),
        (".venv/bin/xentbench list", ["xentbench list"]),
        ("import xentbench as x", []),
        ("this is how xentbench works", []),
    ],
)
def test_a_command_line_is_found_in_its_line(line: str, found: list[str]):
    assert pages.invocation(line) == found


def test_a_page_that_lies_is_found_out(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# A b\n[x](gone.md) [y](#a-b) [z](#c)\n\n```console\n$ echo one two\none …\n```\n")
    shown_alike(Command("echo one two", "one …"), tmp_path, 0, "page")
    shown_alike(Command("echo '0.502  [0.4]'", "0.… [0.…]"), tmp_path, 0, "page")
    with pytest.raises(AssertionError, match="echo one two"):
        shown_alike(Command("echo one two", "two"), tmp_path, 0, "page")
    with pytest.raises(AssertionError, match="exit code 3, not 0"):
        shown_alike(Command("exit 3", ""), tmp_path, 0, "page")
    assert [link for link in Page(page).links() if not leads_somewhere(Page(page), link)] == ["gone.md", "#c"]
    assert Page(page).blocks[0].commands() == [Command("echo one two", "one …")]
