"""Both forms of xentbench's plugin: one test for the whole panel, and one test a problem."""

from __future__ import annotations

import pytest
import xentbench
from their_package.losses import token_loss
from xentbench.pytest import parity_problems


def test_token_loss_is_cross_entropy(cross_entropy_parity):
    """Some seconds, for the loop of edit and run; the options that we rely on must be offered."""
    found = cross_entropy_parity(token_loss, require_options=["ignore_index", "reduction"])
    assert xentbench.Grade(found.grades["float32"]).rank <= xentbench.Grade("B-").rank


@pytest.mark.parametrize("problem", parity_problems("full"))
def test_token_loss_on_the_full_panel(problem, cross_entropy_parity):
    """What the gate stands on: rare sizes and layouts too. What the loss does not offer is skipped, with the reason."""
    cross_entropy_parity(token_loss, problem)
