from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from synthetic_run import SyntheticRun, make_run

from xentbench.report import digest

LARGEST_BYTES = 65_536
HOSTILE = "`<img src=http:x>` @all [x](javascript:1) | \x1b[31m\n# head"


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `")]


def many(implementations: int, problems: int, name: str = "loss-{}") -> SyntheticRun:
    base = make_run("default")
    keys = list(base.cells["problem"].unique())
    one = base.cells[(base.cells["implementation"] == "naive") & (base.cells["problem"] == keys[0])]
    made = [
        one.assign(implementation=name.format(i), problem=f"p{p}", label=f"({p}, 10)", elements=10 * p)
        for i in range(implementations)
        for p in range(problems)
    ]
    cells = pd.concat(made, ignore_index=True)
    return replace(base, info={**base.info, "implementations": []}, cells=cells, verdicts=base.verdicts.iloc[:0])


def test_it_is_one_sentence_one_table_who_answers_nothing_and_one_line():
    text = digest.compact(make_run("smoke"))
    parts = text.strip().split("\n\n")
    assert len(parts) == 5
    assert parts[0].startswith("**Cross-entropy in PyTorch.** Of 13 implementations")
    assert "`compiled-from-scratch`" in parts[0] or "`autograd-function`" in parts[0]
    assert len(rows(text)) == 13
    assert "[1.0" in parts[2] or "[0.9" in parts[2]
    assert parts[3] == "12 cells unsupported: `two classes only, got C=10` (12)"
    assert "run `2026-03-01T12-00-00-a1b2c3` · `Intel(R) Xeon(R)" in parts[4]
    assert "torch `2.13.0+cpu`" in parts[4]


def test_a_few_problems_are_shown_the_smallest_and_the_largest_among_them_and_the_rest_is_told():
    text = digest.compact(make_run("mixed"))
    head = next(line for line in text.splitlines() if line.startswith("| implementation"))
    assert "`(32, 10)`" in head
    assert "`(256, 128256) bfloat16`" in head
    assert "Not shown: 17 of 21 problems" in text


def test_what_is_wrong_comes_first_and_then_the_fastest():
    names = [row.split("`")[1] for row in rows(digest.compact(make_run()))]
    assert names[:2] == ["one-hot", "compiled-from-scratch"]
    assert names[-1] == "bce-with-logits"


def test_a_run_of_any_size_fits_a_comment_and_says_what_is_left_out():
    text = digest.compact(many(24, 8))
    assert len(text.encode()) <= LARGEST_BYTES
    assert len(rows(text)) == digest.ROWS
    assert "Not shown: 9 of 24 implementations and 4 of 8 problems; `report.md`" in text


@pytest.mark.parametrize("worst", ["`", "\U0001f600", "` "])
def test_names_of_the_worst_kind_fit_too(worst: str):
    run = many(16, 6, name="{}" + worst * 200)
    labels = [f"{key}{worst * 200}" for key in run.cells["problem"]]
    hostile = replace(run, id=worst * 200, cells=run.cells.assign(label=labels, labels=worst * 200, status="x" * 200))
    text = digest.compact(hostile)
    assert len(text.encode()) <= LARGEST_BYTES / 2
    assert len(rows(text)) == digest.ROWS


def test_those_left_out_that_are_wrong_are_counted():
    run = many(40, 1)
    cells = run.cells.assign(status="timed-out", verdict="", ratio=None)
    assert "Not shown: 25 of 40 implementations, 25 of them wrong or failing" in digest.compact(
        replace(run, cells=cells)
    )


def test_a_strangers_words_stay_in_code():
    run = make_run(names={"naive": HOSTILE})
    hostile = replace(run, id=HOSTILE, cells=run.cells.assign(labels=HOSTILE, label=HOSTILE, status=HOSTILE))
    text = digest.compact(hostile)
    assert "\x1b" not in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    bare = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    for word in ("@all", "<img", "javascript", "http"):
        assert word in text
        assert word not in bare


def test_a_run_of_nothing_is_a_sentence_and_a_line():
    text = digest.compact(SyntheticRun(Path(), "none"))
    assert text == "**Cross-entropy in PyTorch.** Nothing was run.\n\n<sub>run `none`</sub>\n"


def test_warnings_and_damage_are_counted():
    run = make_run("smoke")
    assert digest.compact(run).rstrip().endswith("1 warning</sub>")
