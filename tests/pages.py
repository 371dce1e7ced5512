"""Reads the documentation as a program can check it: blocks of code, commands, links and headings of a page.

How a block is marked decides what is done with it (`CONTRIBUTING.md` tells writers the same):

- `console`: every line that begins with `$ ` is run, the page's blocks one after another in one folder, and must print
  what stands below it; `…` stands for any text. `exit=1` after `console` is the exit code of the block's last command
  (else 0), and `slow` leaves the block to `-m slow`.
- a block whose first line is a comment that names a file (`# my_loss.py`) is written to that file first.
- `python` with `>>>` is a doctest, with `run` it is run; any other one must compile, and `toml`, `yaml`, `json` parse.
- in every block, and in code within a line, a line that begins with `xentbench` must be one that its parser takes.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click
from markdown_it import MarkdownIt

from xentbench.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
HEAD = re.compile(r"# ([\w./-]+\.\w+)\n")
BEFORE_COMMAND = re.compile(r"^(\$ |- run: |run: |srun |uv run |pipx run |.*(&& |\|\| |; ))?(\S*/)?$")
SHELL_ENDS = re.compile(r"[;&|<>]|\d?>")


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block and what it is shown to print."""

    line: str
    shown: str


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, marks after it, text, and the line of the page that it begins at."""

    language: str
    marks: tuple[str, ...]
    text: str
    line: int

    @property
    def is_slow(self) -> bool:
        return "slow" in self.marks

    @property
    def exit_code(self) -> int:
        return next((int(mark.partition("=")[2]) for mark in self.marks if mark.startswith("exit=")), 0)

    @property
    def file(self) -> str:
        """Name of the file that the block is the text of, or empty."""
        found = HEAD.match(self.text)
        return found[1] if found else ""

    def commands(self) -> list[Command]:
        """Return the commands of a console block, lines that end in a backslash joined."""
        told: list[Command] = []
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            end = next(number for number, line in enumerate(lines) if not line.endswith("\\"))
            told.append(Command("\n".join(lines[: end + 1]), "\n".join(lines[end + 1 :]).strip()))
        return told


@dataclass(frozen=True)
class Page:
    """A Markdown file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.path.read_text(encoding="utf-8"))

    @cached_property
    def blocks(self) -> list[Block]:
        return [
            Block(language, tuple(marks), token.content, token.map[0] + 1)
            for token in self.tokens
            if token.type == "fence" and token.map
            for language, *marks in [token.info.split() or [""]]
        ]

    def inline(self, kind: str) -> Iterator[Token]:
        """Yield tokens of a kind within paragraphs, headings and table cells."""
        for token in self.tokens:
            yield from (child for child in token.children or () if child.type == kind)

    def spans(self) -> list[str]:
        """Return the texts of code within a line."""
        return [token.content for token in self.inline("code_inline")]

    def links(self) -> list[str]:
        """Return where links and images lead."""
        return [str(t.attrs["href"]) for t in self.inline("link_open")] + [
            str(t.attrs["src"]) for t in self.inline("image")
        ]

    def anchors(self) -> set[str]:
        """Return the names of the page's headings, as GitHub makes them."""
        titles = [
            after.content for at, after in zip(self.tokens, self.tokens[1:], strict=False) if at.type == "heading_open"
        ]
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    def mentions(self) -> list[str]:
        """Return every command line of this program within a line of text; it may leave out what it is not about."""
        return [span for span in self.spans() if span.startswith("xentbench ") and "[" not in span]

    def invocations(self) -> list[str]:
        """Return every command line of this program that a block of the page shows, without the prompt."""
        shown = []
        for block in self.blocks:
            if block.language == "console":
                shown += [found for command in block.commands() for found in invocation(f"$ {command.line}")]
            elif block.language != "python":
                joined = block.text.replace("\\\n", " ").splitlines()
                shown += [found for line in joined for found in invocation(line)]
        return shown


def invocation(line: str) -> list[str]:
    """Return the command line of this program that a line of a block holds, as a list of one or none."""
    at = re.search(r"\bxentbench (?=[a-z-])", line)
    return [line[at.start() :]] if at and BEFORE_COMMAND.match(line[: at.start()].lstrip()) else []


def pages() -> list[Page]:
    """Return every page of the documentation."""
    found = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
    return [Page(path) for path in sorted(found)]


def objection(invoked: str, *, mentioned: bool = False) -> str:
    """Return what the command line's parser says against a command line, or an empty string; nothing is run."""
    words = shlex.split(re.sub(r"\${{.*?}}", "value", invoked), comments=True)[1:]
    words = words[: next((at for at, word in enumerate(words) if SHELL_ENDS.match(word)), len(words))]
    if not words or words[0].startswith("…") or words[0].isupper():  # any verb
        return ""
    try:
        context = cli.make_context("xentbench", list(words))
        verb, command, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(verb, list(rest), parent=context).close()
    except click.exceptions.Exit:  # --help, --version
        return ""
    except (click.MissingParameter, click.BadOptionUsage) as error:
        return "" if mentioned else error.format_message()
    except click.ClickException as error:
        return error.format_message()
    return ""


def options() -> set[str]:
    """Return every option that some verb has."""
    params = [option for verb in (cli, *cli.commands.values()) for option in verb.params]
    return {"--help"} | {name for option in params for name in (*option.opts, *option.secondary_opts)}
