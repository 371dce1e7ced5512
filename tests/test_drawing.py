"""Numbers are drawn from one raw stream; families, labels and targets are what their names say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xentbench import drawing, inputs
from xentbench.spec import Problem

PINNED = [0.4085441091098043, 0.46198938614655294, 0.19484543318441383]


def test_raw_numbers_are_pinned_for_ever():
    # Recorded when the stream was written: a change here makes seeds of old runs worthless.
    assert drawing.Stream("pinned").uniform(3).tolist() == PINNED
    assert np.isfinite(drawing.Stream("pinned").normal(1001)).all()


def test_numbers_do_not_depend_on_the_block_size(monkeypatch):
    whole = [drawing.Stream("blocks", count).normal(count) for count in (1, 7, 1000)]
    monkeypatch.setattr(drawing, "DRAWN_AT_ONCE", 3)
    again = [drawing.Stream("blocks", count).normal(count) for count in (1, 7, 1000)]
    assert all(map(np.array_equal, whole, again))


def test_special_rows_hold_every_number_that_is_none_and_the_label_is_never_at_inf():
    problem = Problem(batch_size=12, num_classes=10, logits="special", reduction="none")
    made = inputs.make(problem, 0)
    at_label = made.logits.gather(1, made.target[:, None]).squeeze(1)
    assert at_label[1].isneginf()
    assert made.logits[2].isneginf().all()
    assert made.logits[3].isnan().any()
    assert made.logits[4].isposinf().any()
    assert not at_label.isposinf().any()
    assert made.logits[0].isfinite().all()


def test_leading_classes_are_masked_but_for_the_label():
    made = inputs.make(Problem(batch_size=9, num_classes=10, logits="leading-masked"), 0)
    masked = made.logits.isneginf()
    assert masked[:, :5].sum() >= 9 * 4
    assert not masked[:, 5:].any()
    assert made.logits.gather(1, made.target[:, None]).isfinite().all()


@given(st.integers(0, 50))
def test_ignored_rows_lie_unevenly_with_one_end_of_the_batch_whole(seed: int):
    target = inputs.make(Problem(batch_size=300, num_classes=10, ignored=0.5), seed).target
    ignored = (target == -100).double()
    halves = ignored[:150].mean(), ignored[150:].mean()
    assert abs(float(halves[0] - halves[1])) > 0.2
    assert {float(ignored[0]), float(ignored[-1])} == {0.0, 1.0}


@pytest.mark.parametrize(("invalid", "label"), [("label-high", 5), ("label-low", -1)])
def test_one_label_is_out_of_range(invalid: str, label: int):
    target = inputs.make(Problem(batch_size=7, num_classes=5, invalid=invalid), 0).target
    assert int(((target < 0) | (target >= 5)).sum()) == 1
    assert label in target.tolist()


@pytest.mark.parametrize(("invalid", "size"), [("weight-short", 4), ("weight-long", 6)])
def test_class_weights_of_a_wrong_size(invalid: str, size: int):
    weight = inputs.make(Problem(batch_size=7, num_classes=5, invalid=invalid), 0).weight
    assert weight is not None
    assert weight.shape == (size,)


@pytest.mark.parametrize("dtype", ["int32", "int16", "uint8", "float32"])
def test_labels_of_another_dtype_have_the_same_values(dtype: str):
    made = inputs.make(Problem(batch_size=7, num_classes=5, label_dtype=dtype), 0)
    assert made.target.dtype is getattr(torch, dtype)
    assert 0 <= int(made.target.min()) <= int(made.target.max()) < 5


def test_some_unnormalised_targets_are_all_zero():
    made = inputs.make(Problem(batch_size=6, num_classes=4, target="unnormalised"), 0)
    assert made.target.sum(1).eq(0.0).tolist() == [True, False, False, False, False, True]
