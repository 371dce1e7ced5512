"""One lean pass brings the losses of the whole truth, and ingredients of the bounds that are no smaller."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from large_fixtures import nothing_is_small
from test_panel import OPTIONS

from xentbench import inputs, oracle, rows, sampling

__all__ = ["nothing_is_small"]


@settings(max_examples=300, deadline=None)
@given(problem=OPTIONS, special=st.booleans())
def test_losses_and_ingredients_are_those_of_the_whole_truth_or_safer(problem, special):
    given_ = inputs.make(problem, 0)
    if special and problem.batch_size:
        given_.logits[0, 1:] = -torch.inf
        given_.logits[-1, 0] = torch.nan
    whole, lean = oracle.solve(problem, given_), sampling.solve(problem, given_, 0)
    for wanted, found in ((whole.loss.torch, lean.loss.torch), (whole.loss.masked, lean.loss.masked)):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
    loose = ("spread", "target_logits", "underflow", "working_underflow")
    for name in rows.Rows.__slots__:
        wanted, found = getattr(whole.rows, name), getattr(lean.rows, name)
        known = np.isfinite(whole.rows.largest) & np.isfinite(wanted)
        wanted, found = wanted[known], found[known]
        if name in loose:
            assert (found >= wanted * (1.0 - 1e-12) - 1e-300).all(), name
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12, err_msg=name)
