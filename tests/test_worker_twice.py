import pytest
import torch
from torch.nn import functional

from xentbench.inputs import make
from xentbench.spec import Phase, Problem
from xentbench.worker.storage import Storage
from xentbench.worker.twice import twice

PROBLEM = Problem(num_classes=5, batch_size=3)


def tried(loss, phase=Phase.FORWARD_BACKWARD):
    inputs = make(PROBLEM, 1)
    given = tuple(Storage(PROBLEM, inputs, phase, restore=False) for _ in range(2))
    return twice(loss, phase, given, inputs.upstream)


def by_hand(logits, target):
    return -torch.log_softmax(logits, -1)[torch.arange(len(target)), target].mean()


def test_results_of_their_own_are_told_apart_and_so_is_who_made_them():
    assert tried(functional.cross_entropy) == ("", True)
    assert tried(by_hand) == ("", False)


def test_one_place_for_all_losses_is_seen():
    kept = torch.zeros(())

    def loss(logits, target):
        return kept.detach().copy_(by_hand(logits, target).detach())

    assert tried(loss, Phase.FORWARD)[0] == "the losses of two calls lie in the same memory"


class OneGradient(torch.autograd.Function):
    gradient = torch.zeros(3, 5)

    @staticmethod
    def forward(ctx, logits, target):
        return by_hand(logits, target)

    @staticmethod
    def backward(ctx, upstream):
        return OneGradient.gradient.view(3, 5), None  # a tensor of its own, which autograd takes as it is


def test_one_place_for_all_gradients_is_seen_where_there_are_any():
    assert tried(OneGradient.apply, Phase.BACKWARD)[0] == "the gradients of two calls lie in the same memory"
    assert tried(OneGradient.apply, Phase.FORWARD)[0] == ""


@pytest.mark.parametrize("phase", [Phase.BACKWARD, Phase.FORWARD_BACKWARD])
def test_a_second_call_that_spoils_the_first_ones_backward_is_seen(phase: Phase):
    softmax = torch.zeros(3, 5)

    def loss(logits, target):
        with torch.no_grad():
            softmax.copy_(torch.softmax(logits, -1))
        return (softmax * logits).sum() - logits[torch.arange(len(target)), target].mean()

    assert "spoils the first one's backward" in tried(loss, phase)[0]
