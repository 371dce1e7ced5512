from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from xentbench.worker import spinning


class Looked:
    """A clock that advances at every look, and by what the loss takes."""

    def __init__(self, look_ns: int) -> None:
        self.now, self.look_ns = 0, look_ns

    def __call__(self) -> int:
        self.now += self.look_ns
        return self.now

    def loss(self, logits, target, **_options):
        self.now += int(logits)
        return target


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("look_ns", [1, 40])
def test_what_is_added_to_the_control_is_the_share_on_the_average(share: float, look_ns: int):
    def total(by: float) -> int:
        clock = Looked(look_ns)
        arm = spinning.slowed(clock.loss, by, look_ns, now_ns=clock)
        for took in range(3_000, 13_000, 7):
            arm(took, None)
        return clock.now

    work = sum(range(3_000, 13_000, 7))
    assert total(share) - total(0.0) == pytest.approx(share * work, rel=0.02)


def test_arms_answer_as_the_function_does():
    logits, target = torch.randn(8, 10), torch.randint(10, (8,))
    for name in spinning.SHARES:
        arm = getattr(spinning, name)
        assert torch.equal(
            arm(logits, target, reduction="sum"), functional.cross_entropy(logits, target, reduction="sum")
        )


def test_a_look_takes_some_time():
    assert spinning.look_ns(Looked(40)) == pytest.approx(40, rel=0.01)
    assert spinning.wrapper_ns(40.0) > 0
