from __future__ import annotations

import re

import pytest
from matplotlib.patches import Rectangle
from synthetic_run import make_full_run

from xentbench.report import figures
from xentbench.report.hints import Sheet, hinted, rounded
from xentbench.report.marks import polygon
from xentbench.report.style import MARKERS


def sheet(texts: list[str]) -> Sheet:
    figure = Sheet((3, 2))
    (marks,) = figure.subplots().plot([1, 2, 3], [1, 2, 3], "o")
    figure.hint(marks, texts)
    return figure


def test_each_mark_tells_its_own_text_and_markup_in_it_is_dead() -> None:
    titles = re.findall(r"<title>(.*?)</title>", figures.encode(sheet(["a", "<b>", "c"]))[0])
    assert titles == ["a", "&lt;b&gt;", "c"]


def test_marks_that_cannot_be_told_apart_from_each_other_tell_nothing() -> None:
    assert "<title>" not in figures.encode(sheet(["a", "b"]))[0]


def test_a_patch_tells_its_one_text() -> None:
    figure = Sheet((3, 2))
    axes = figure.subplots()
    figure.hint(axes.add_patch(Rectangle((0, 0), 1, 1)), ["a cell"])
    assert "<title>a cell</title>" in hinted(figures.encode(figure)[0], Sheet((1, 1)))


def test_every_timed_cell_of_a_panel_has_its_hint() -> None:
    drawn = figures.figures(make_full_run("smoke"))["latency-forward"]
    titles = re.findall(r"<title>(.*?)</title>", figures.encode(drawn)[0])
    assert len(titles) == 13 * 3 - 3
    assert any(re.fullmatch(r"naive, \(8, 10\): [\d.]+ µs \([\d.]+ µs to [\d.]+ µs\)", title) for title in titles)


def test_places_are_rounded_and_nothing_else_is() -> None:
    path = '<path d="M 1.23456 -0.0001" transform="translate(3.14159 2) scale(0.015625)" x="7.99999"/>'
    assert rounded(path) == '<path d="M 1.23 -0" transform="translate(3.14 2) scale(0.015625)" x="8"/>'


@pytest.mark.parametrize("marker", MARKERS)
def test_a_mark_in_a_table_is_a_polygon_within_its_box(marker: str) -> None:
    corners = [tuple(map(int, pair.replace("%", "").split())) for pair in polygon(marker).split(", ")]
    assert len(corners) >= 3
    assert {0, 100} <= {place for corner in corners for place in corner}
    assert all(0 <= place <= 100 for corner in corners for place in corner)
