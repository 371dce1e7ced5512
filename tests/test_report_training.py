from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_run import make_full_run

from xentbench.report import figures, page
from xentbench.report.training import curve, off


def test_a_curve_is_measured_in_half_widths_of_its_band() -> None:
    low, high = np.array([1.0, 1.0, 2.0, 2.0]), np.array([3.0, 3.0, 2.0, 2.0])
    assert list(off(np.array([2.0, 3.0, 2.0, 2.5]), low, high)) == [0.0, 1.0, 0.0, np.inf]


def test_curves_of_unlike_length_are_compared_as_far_as_all_go() -> None:
    assert len(off(np.zeros(5), np.zeros(3), np.ones(4))) == 3


def test_what_is_no_list_of_numbers_is_no_curve() -> None:
    assert len(curve(None)) == len(curve("loss")) == len(curve(np.nan)) == 0
    assert list(curve([1, None, 2.5])) == pytest.approx([1, np.nan, 2.5], nan_ok=True)


@pytest.mark.parametrize("broken", [None, [], [1.0, None, float("inf")], "loss"])
def test_a_training_that_ended_early_does_not_stop_the_figure(broken: object) -> None:
    run = make_full_run("smoke")
    trainings = run.trainings.copy()
    trainings["losses"] = [broken, *trainings["losses"][1:]]
    trainings["losses_low"] = [broken, *trainings["losses_low"][1:]]
    figure = figures.figures(replace(run, trainings=trainings))["training"]
    assert figures.encode(figure)[0].startswith("<?xml")


def test_whoever_trains_otherwise_is_among_the_failures() -> None:
    failed = page.render(make_full_run("smoke"), {}).partition('id="failures"')[2].partition("</section>")[0]
    assert "the curve leaves the band at step 3" in failed
    assert "xentbench parity --train --implementation naive" in failed
