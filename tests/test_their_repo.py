"""`examples/their_repo`, run as its workflow file says: unchanged, with a wrong loss, and with a slow one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from their_repo import EXAMPLE, INSTALLING, LOSSES, SUMMARY, Repository, commands

INSTALL, PARITY, TIMING = commands()
README = Path("README.md")


@pytest.fixture
def plain(tmp_path: Path) -> Repository:
    """The example with a change of words."""
    repository = Repository.at(tmp_path)
    repository.commit({README: "other words\n"})
    return repository


def losses(*changes: tuple[str, str]) -> dict[Path, str]:
    text = (EXAMPLE / LOSSES).read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return {LOSSES: text}


def test_the_workflow_installs_judges_and_times_in_this_order_by_plain_commands():
    assert INSTALL.startswith(INSTALLING)
    assert PARITY == "pytest"
    assert "git merge-base HEAD" in TIMING
    text = (EXAMPLE / ".github/workflows/cross-entropy.yml").read_text(encoding="utf-8")
    assert re.findall(r"uses: (\S+)@", text) == ["actions/checkout", "actions/setup-python"]
    assert "fetch-depth: 0" in text


def test_unchanged_code_is_right_and_what_it_does_not_offer_is_skipped_with_the_reason(plain: Repository):
    done = plain.run(f"{PARITY} -n 2 -rs")
    assert done.returncode == 0, done.stdout
    assert "does not offer weight" in done.stdout
    assert re.search(r"\d+ passed, \d+ skipped", done.stdout)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("losses.sum() / kept.sum()", "losses.mean()", "mean"),
        ("-input.log_softmax(1)", "-input.softmax(1).log()", "inf"),
    ],
)
def test_a_wrong_loss_fails_parity(tmp_path: Path, right: str, wrong: str, told: str):
    repository = Repository.at(tmp_path)
    repository.commit(losses((right, wrong)))
    done = repository.run(f"{PARITY} -k is_cross_entropy")
    assert done.returncode == 1
    assert told in done.stdout
    assert "smallest counter-example" in done.stdout
    assert "ask again: xentbench parity their_package.losses:token_loss --problem" in done.stdout


@pytest.mark.slow
def test_unchanged_code_passes_the_clock(plain: Repository):
    done = plain.run(TIMING)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worse" not in (plain.folder.parent / SUMMARY).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_loss_three_times_as_slow_fails_and_the_summary_says_which_size(tmp_path: Path):
    repository = Repository.at(tmp_path)
    again = "    losses = -input.log_softmax(1)"
    repository.commit(losses((again, "    for _ in range(5):\n        input.exp().log()\n" + again)))
    done = repository.run(TIMING)
    assert done.returncode == 1, done.stdout + done.stderr
    summary = (tmp_path / SUMMARY).read_text(encoding="utf-8")
    assert summary.startswith("### Is `their_package.losses:token_loss` slower than `")
    assert "| `N=128,C=1000` | `forward+backward` |" in summary
    assert "**worse**" in summary
    assert "worse: " in done.stderr


def test_a_loss_that_the_base_does_not_have_passes_and_says_so(tmp_path: Path):
    repository = Repository.at(tmp_path, losses(("def token_loss(", "def old_loss(")) | {PACKAGE: "'''Empty.'''\n"})
    repository.commit(losses())
    done = repository.run(TIMING)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to compare with" in (tmp_path / SUMMARY).read_text(encoding="utf-8")
    strict = repository.run(TIMING.replace("--inconclusive pass", ""))
    assert strict.returncode == 3
    assert "--inconclusive pass" in strict.stderr


def test_a_base_that_does_not_load_is_no_pass(tmp_path: Path):
    repository = Repository.at(tmp_path, {LOSSES: "import nowhere\n", PACKAGE: "'''Empty.'''\n"})
    repository.commit(losses())
    done = repository.run(TIMING)
    assert done.returncode == 2
    assert "nowhere" in done.stderr


def test_a_shallow_clone_is_told_how_to_get_its_base(tmp_path: Path, plain: Repository):
    shallow = tmp_path / "shallow"
    plain.git("clone", "-q", "--depth", "1", f"file://{plain.folder}", str(shallow))
    done = Repository(shallow, plain.environment).run(
        "xentbench compare HEAD~1:their_package.losses:token_loss their_package.losses:token_loss"
    )
    assert done.returncode == 2
    assert "fetch-depth: 0" in done.stderr


PACKAGE = Path("src/their_package/__init__.py")
