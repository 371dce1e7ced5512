import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic_run import SyntheticRun, make_run

from xentbench.report import figures, heatmap
from xentbench.report.style import looks
from xentbench.report.view import View

HOSTILE = "$\\frac{x$ <script>alert(1)</script> --> \N{GRINNING FACE} _"


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


def test_a_mixed_grid_is_drawn_by_problem_and_a_sweep_against_classes() -> None:
    assert "latency-forward+backward" in figures.figures(make_run("default"))
    curve, dots = figures.latency(make_run("small")), figures.latency(make_run("default"))
    assert [axes.get_title("left") for axes in curve.axes] == ["N = 32", "N = 256"]
    assert all(axes.get_xscale() == axes.get_yscale() == "log" for axes in curve.axes)
    assert len(dots.axes) == 1
    assert len(dots.axes[0].get_xticks()) == 6


def test_a_grid_of_both_kinds_gets_both_figures() -> None:
    names = set(figures.figures(make_run("mixed")))
    assert {"speedup-forward+backward", "speedup-forward+backward-classes", "summary"} <= names


def test_every_figure_names_phase_run_device_and_torch() -> None:
    for name, figure in figures.figures(make_run("small")).items():
        words = " ".join(texts(figure))
        phase = name.partition("-")[2] or "forward+backward"
        assert phase in words or name == "accuracy"
        assert "run 2026-03-01T12-00-00-a1b2c3" in words
        assert "torch 2.13.0+cpu" in words


def test_memory_shows_what_is_saved_and_what_is_resident_without_stretching_its_axis() -> None:
    run = make_run("default")
    here = (run.cells["phase"] == "forward+backward") & (run.cells["num_classes"] == 1000)
    plain = run.cells.assign(saved_bytes=np.nan, peak_resident_bytes=np.nan)
    small, large = plain.copy(), plain.copy()
    small.loc[here, "saved_bytes"] = 0.0
    large.loc[here, "peak_resident_bytes"] = 100 * plain["peak_bytes"].max()
    without, with_stems, with_rings = (
        figures.memory(replace(run, cells=cells)).axes[0] for cells in (plain, small, large)
    )
    assert with_stems.get_ylim() == without.get_ylim()
    assert with_rings.get_ylim()[1] > 10 * without.get_ylim()[1]
    assert "stems" in " ".join(texts(figures.memory(run)))
    assert "stems" not in " ".join(texts(figures.memory(make_run("small"))))


def test_an_implementation_looks_the_same_everywhere_and_like_no_other() -> None:
    names = tuple(f"entrant-{number}" for number in range(60))
    cells = pd.DataFrame({"implementation": names, "problem": "p", "phase": "forward"})
    styles = looks(View.of(SyntheticRun(Path(), "x", cells=cells)))
    assert len({(look.colour, look.marker, look.line) for look in styles.values()}) == 60
    first = {look.marker for look in list(styles.values())[:15]}
    assert len(first) == 15


def test_the_summary_shows_a_word_where_there_is_no_speedup() -> None:
    figure = figures.summary(make_run())
    words = texts(figure)
    assert "wrong-value (declared)" in words
    assert words.count("unsupported") == 5
    assert figure.get_size_inches() @ [9, -16] == pytest.approx(0)


def test_the_summary_of_a_few_rows_is_low() -> None:
    run = make_run()
    few = replace(run, cells=run.cells[run.cells["implementation"] == "from-scratch"], info={})
    few = replace(few, verdicts=few.verdicts[few.verdicts["implementation"] == "from-scratch"])
    wide, high = figures.summary(few).get_size_inches()
    assert (wide, high) == (pytest.approx(12.8), pytest.approx(2.72))


@pytest.mark.parametrize(
    ("low", "high", "shown"), [(0.2, 3.0, 1.0), (0.4, 0.5, 0.5), (2.0, 8.0, 2.0), (np.nan, np.nan, 1.0)]
)
def test_the_summary_colours_what_an_interval_shows_and_not_its_middle(low: float, high: float, shown: float) -> None:
    cells = make_run("smoke").cells
    cells = cells[cells["status"] == "passed"].head(1).assign(ratio=0.5, ratio_low=1 / high, ratio_high=1 / low)
    figure = figures.summary(SyntheticRun(Path(), "x", cells=cells))
    (box,) = (box for box in figure.axes[0].patches if box.get_width() == pytest.approx(0.96))
    assert box.get_facecolor() == pytest.approx(heatmap.SCALE(0.5 + np.log2(shown) / 4))


def test_names_of_strangers_are_drawn_as_they_are(tmp_path: Path) -> None:
    run = make_run(names={"naive": HOSTILE, "one-hot": "_hidden", "from-scratch": "x" * 300})
    for path in figures.save({"a": figures.latency(run), "b": figures.summary(run)}, tmp_path).values():
        if path.suffix == ".svg":
            tree = ET.parse(path)  # noqa: S314 - made by this very test
            assert not [node for node in tree.iter() if str(node.tag).endswith("script")]


def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    first = figures.save({"a": figures.speedup(make_run("smoke"))}, tmp_path / "first")
    second = figures.save({"a": figures.speedup(make_run("smoke"))}, tmp_path / "second")
    assert set(first) == {"a.svg", "a.png"}
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes()


def test_a_users_settings_of_matplotlib_neither_matter_nor_change() -> None:
    plain = figures.encode(figures.latency(make_run("smoke")))
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "text.color": "red"}):
        assert figures.encode(figures.latency(make_run("smoke"))) == plain
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.parametrize("grid", ["smoke", "small"])
def test_numbers_that_are_missing_or_zero_do_not_stop_a_figure(grid: str) -> None:
    run = make_run(grid)
    holes = run.cells.copy()
    holes.loc[::3, ["latency_p05_s", "ratio_low", "floor_s", "minimum_bytes"]] = np.nan
    holes.loc[::5, ["latency_s", "peak_bytes"]] = 0.0
    for figure in figures.figures(replace(run, cells=holes)).values():
        assert figures.encode(figure)[0].startswith("<?xml")


def test_one_cell_is_enough_and_none_gives_no_figure() -> None:
    run = make_run("smoke")
    one = replace(run, cells=run.cells.iloc[:1], verdicts=run.verdicts.iloc[:1])
    for figure in figures.figures(one).values():
        figures.encode(figure)
    assert figures.figures(SyntheticRun(Path(), "none")) == {}


def test_labels_lie_within_the_picture_and_apart() -> None:
    for figure in figures.figures(make_run("default")).values():
        figures.encode(figure)
        frame = figure.bbox
        for axes in figure.axes:
            labels = [label for label in axes.get_xticklabels() if label.get_text() and label.get_visible()]
            boxes = [label.get_window_extent() for label in labels]
            inside = [box for box in boxes if axes.bbox.x0 - 2 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 2]
            assert all(frame.x0 <= box.x0 <= box.x1 <= frame.x1 for box in inside)
            ordered = sorted(inside, key=lambda box: box.x0)
            assert all(left.x1 <= right.x0 for left, right in pairwise(ordered))
