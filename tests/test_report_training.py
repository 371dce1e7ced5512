"""The figure of training curves, from rows as a journal holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from synthetic_run import make_full_run, make_run

from xentbench.columns import TRAINING_COLUMNS
from xentbench.report import figures, page
from xentbench.report import training as room
from xentbench.report.style import looks
from xentbench.report.view import View

HOSTILE = "$\\frac{x$ <script>alert(1)</script> \N{GRINNING FACE} _"


def row(name: str, workload: str = "digits", steps: int = 30, by: float = 0.0, **fields) -> dict:
    losses = np.exp(-np.arange(steps) / 10.0)
    band = {"losses_low": (losses - 1e-5).tolist(), "losses_high": (losses + 1e-5).tolist()}
    told = {"implementation": name, "workload": workload, "status": "passed", "losses": (losses + by).tolist()}
    return {**dict.fromkeys(TRAINING_COLUMNS), **told, **band, **fields}


def drawn(*rows: dict):
    return figures.figures(replace(make_run("smoke"), trainings=pd.DataFrame(rows))).get("training")


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_a_column_for_each_workload_with_distances_below():
    figure = drawn(row("naive"), row("naive", "text"), row("one-hot", by=1e-3))
    assert [axes.get_title("left") for axes in figure.axes] == ["digits", "text", "", ""]
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "linear", "log", "log"]
    lines = figure.axes[2].get_lines()
    assert lines[0].get_ydata().max() == pytest.approx(room.LEAST)
    assert lines[1].get_ydata() == pytest.approx(100.0)
    assert lines[-1].get_ydata() == [1.0, 1.0]


def test_everybody_looks_as_in_the_runs_other_figures_and_a_stranger_has_a_look_too():
    figure = drawn(row("one-hot"), row("stranger"))
    colours = [line.get_color() for line in figure.axes[0].get_lines()]
    assert colours[0] == looks(View.of(make_run("smoke")))["one-hot"].colour
    assert "stranger" in words(figure)


def test_who_did_not_pass_is_counted_and_who_has_no_curve_is_left_out():
    skipped = {"losses": None, "losses_low": None, "losses_high": None, "status": "unsupported"}
    figure = drawn(row("naive"), row("bce", **skipped), row("steep", by=1, status="trains-differently"))
    assert "1 of 3 unsupported" in words(figure)
    assert "1 of 3 trains-differently" in words(figure)
    assert len(figure.axes[0].get_lines()) == 2
    assert "all within it" in words(drawn(row("naive")))


def test_nobody_trained_makes_no_figure(tmp_path: Path):
    nothing = pd.DataFrame(columns=list(TRAINING_COLUMNS))
    assert "training" not in figures.figures(replace(make_run("smoke"), trainings=nothing))
    assert drawn() is None
    assert not figures.draw_training([], {}, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".svg", ".PNG"])
def test_a_curve_that_ends_in_nan_a_short_one_and_a_hostile_name_are_drawn(tmp_path: Path, ending: str):
    poisoned = row("nan")
    poisoned["losses"][20:] = [None] * 10
    odd = [poisoned, row(HOSTILE), row("short", steps=1), row("torn", losses_low=[0.0]), row("words", losses="abc")]
    assert figures.draw_training(odd, {"torch": HOSTILE}, tmp_path / f"curves{ending}")
    content = (tmp_path / f"curves{ending}").read_bytes()
    assert content.startswith(b"<?xml" if ending == ".svg" else b"\x89PNG")
    assert b"<script>" not in content


def test_equal_rows_give_equal_bytes(tmp_path: Path):
    for name in ("one.svg", "other.svg"):
        figures.draw_training([row("naive"), row("naive", "text")], {"torch": "2"}, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_a_curve_says_whose_it_is_and_how_far_it_lies():
    figure = drawn(row("naive", curve_ratio=0.5, weights_ratio=0.25))
    assert "naive, digits: passed, curve 0.5, weights 0.25 of the bound" in figures.encode(figure)[0]


def test_whoever_trains_otherwise_is_among_the_failures():
    failed = page.render(make_full_run("smoke"), {}).partition('id="failures"')[2].partition("</section>")[0]
    assert "the curve leaves the band at step 3" in failed
    assert "xentbench parity --train --implementation naive" in failed
