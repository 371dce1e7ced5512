"""The reference pages are what the code says, and the words beside them name everything that there is."""

from __future__ import annotations

import re
import sys

import pytest
from pages import ROOT

from xentbench.spec import Status

sys.path.append(str(ROOT / "docs" / "reference"))
import generate

REFERENCE = ROOT / "docs" / "reference"
WRITTEN = generate.pages()


@pytest.mark.parametrize("name", WRITTEN)
def test_the_committed_page_is_what_the_code_says(name: str):
    committed = (REFERENCE / name).read_text(encoding="utf-8")
    assert committed == WRITTEN[name], f"run `nox -s docs` and commit docs/reference/{name}"


def test_no_page_of_the_reference_is_left_over():
    assert {path.name for path in REFERENCE.glob("*.md")} == set(WRITTEN)


def test_every_option_of_every_verb_is_told():
    for name, verb in generate.cli.commands.items():
        own = re.search(rf"^## xentbench {name}\n(.*?)(?=^## )", WRITTEN["cli.md"], re.MULTILINE | re.DOTALL)[1]
        told = own + WRITTEN["cli.md"].partition("## Which problems")[2]
        assert [
            option for one in verb.params for option in one.opts if f"`{option}" not in told and option[0] == "-"
        ] == []


def test_every_option_says_what_it_does():
    pages = [line for line in WRITTEN["cli.md"].splitlines() if line.startswith("| `--")]
    assert [line for line in pages if not re.match(r"\| `[^`]+` \| [A-Z]", line)] == []


def test_every_status_is_explained():
    told = (
        (ROOT / "docs" / "trust.md").read_text(encoding="utf-8").partition("## Statuses")[2].partition("## Labels")[0]
    )
    assert set(re.findall(r"`([a-z-]+)`", " ".join(re.findall(r"^\| (.*?) \|", told, re.MULTILINE)))) == set(Status)


def test_every_family_of_logits_is_explained():
    rows = WRITTEN["problems.md"].partition("## Families")[2].partition("## Grids")[0]
    assert [line for line in rows.splitlines() if line.startswith("| `") and line.endswith("|  |")] == []
