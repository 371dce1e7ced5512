"""From entropy in bits to cross-entropy and its gradient, with this project's implementations: run it and read along.

    python examples/tutorial.py

Each chapter is a function that prints what it computes; all take a few seconds together.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional
from tutorial_bug import custom_cross_entropy
from xentbench.implementations.from_scratch import from_scratch, shift
from xentbench.implementations.logsumexp_gather import logsumexp_gather
from xentbench.implementations.naive import naive

CLASSES = ("cat", "dog", "bird")


def main() -> None:
    """Tell the story from its beginning."""
    torch.manual_seed(0)
    entropy_in_bits()
    cross_entropy_in_bits()
    logits_and_softmax()
    loss_of_a_batch()
    gradient()
    one_step_downhill()
    overflow()
    one_minus_too_many()


def entropy_in_bits() -> None:
    """Entropy: the fewest yes-no questions that name an outcome, on average (Shannon 1948)."""
    title("1. Entropy: how many yes-no questions?")
    for name, p in (("a fair coin", (0.5, 0.5)), ("a loaded coin", (0.9, 0.1)), ("a fair die of 8", (0.125,) * 8)):
        print(f"  {name:16} H = -sum p log2 p = {entropy(p):.3f} bits")
    print("  What is less certain takes more questions; where all is certain, none is left.")


def cross_entropy_in_bits() -> None:
    """Cross-entropy: the same count when the questions were planned for the wrong odds."""
    title("2. Cross-entropy: planned for the wrong odds")
    truth, belief = (0.5, 0.25, 0.25), (0.25, 0.25, 0.5)
    crossed = -sum(p * math.log2(q) for p, q in zip(truth, belief, strict=True))
    print(f"  truth  {truth}: H(truth)         = {entropy(truth):.3f} bits")
    print(f"  belief {belief}: H(truth, belief) = {crossed:.3f} bits")
    print(f"  The {crossed - entropy(truth):.3f} bits too many are the price of a wrong belief (Kullback-Leibler).")
    print(f"  PyTorch counts in nats, with the natural logarithm: 1 bit = {math.log(2):.4f} nats.")


def logits_and_softmax() -> None:
    """Logits are any real scores; softmax makes probabilities of them."""
    title("3. A network gives logits; softmax makes probabilities")
    logits = torch.tensor([2.0, 1.0, -1.0])
    odds = shift(logits).exp()
    for name, logit, part in zip(CLASSES, logits, odds / odds.sum(), strict=True):
        print(f"  {name:5} logit {logit:5.1f}   probability {part:.4f}")
    print("  softmax(x)[j] = exp(x[j]) / sum_k exp(x[k]): positive, summing to 1, and blind to a common offset.")


def loss_of_a_batch() -> None:
    """The truth names one class, so of the sum only -log p of that class is left."""
    title("4. The loss: -log of the probability of the right class")
    logits, target = example()
    for row, loss in enumerate(from_scratch(logits, target, reduction="none")):
        print(f"  row {row}: right class {target[row]}, p = {math.exp(-loss):.4f}, loss = {loss:.4f} nats")
    print(f"  mean, from-scratch:     {from_scratch(logits, target):.4f}")
    print(f"  mean, logsumexp-gather: {logsumexp_gather(logits, target):.4f}")
    print(f"  mean, F.cross_entropy:  {functional.cross_entropy(logits, target):.4f}")
    print(f"  (who guesses evenly among 3 classes loses log 3 = {math.log(3):.4f})")


def gradient() -> None:
    """The derivative of the loss by the logits is what was said less what is so."""
    title("5. The gradient: p - y")
    logits, target = example()
    leaf = logits.clone().requires_grad_()
    from_scratch(leaf, target, reduction="sum").backward()
    expected = torch.softmax(logits, dim=1) - functional.one_hot(target, len(CLASSES))
    if leaf.grad is None:
        msg = "backward left no gradient"
        raise RuntimeError(msg)
    for row in range(2):
        print(f"  row {row}: autograd {numbers(leaf.grad[row])}   p - y {numbers(expected[row])}")
    print(f"  largest difference over all rows: {(leaf.grad - expected).abs().max():.1e}")
    print("  Up for every wrong class by its probability, down for the right one by what it lacks; the row sums to 0.")


def one_step_downhill() -> None:
    """Following the gradient makes the right classes likelier."""
    title("6. Training: step against the gradient, repeat")
    logits, target = example()
    leaf = logits.clone().requires_grad_()
    optimizer = torch.optim.SGD([leaf], lr=1.0)
    for step in range(31):
        loss = from_scratch(leaf, target)
        if step % 10 == 0:
            right = torch.softmax(leaf, dim=1).gather(1, target.unsqueeze(1)).mean()
            print(f"  step {step:2}: loss {loss:.4f}, mean probability of the right class {right:.4f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def overflow() -> None:
    """The formula on paper overflows; subtracting the maximum first gives the same number, safely."""
    title("7. Why the maximum is subtracted")
    target = torch.tensor([0])
    for top in (10.0, 80.0, 100.0):
        logits = torch.tensor([[top, top - 1.0, top - 3.0]])
        unshifted, shifted = naive(logits, target), from_scratch(logits, target)
        print(f"  logits near {top:5.0f}: naive {unshifted:.4f}, from-scratch {shifted:.4f}")
    print("  exp(100) is more than float32 can hold: the naive sum is infinite, and so is its loss.")


def one_minus_too_many() -> None:
    """A mistake that was published: the negative log-likelihood, negated."""
    title("8. A loss below zero is no cross-entropy")
    logits, target = example()
    print(f"  the tutorial's custom loss: {custom_cross_entropy(logits, target):.4f}")
    print(f"  F.cross_entropy:            {functional.cross_entropy(logits, target):.4f}")
    print("  Let the harness judge it: xentbench parity examples/tutorial_bug.py:custom_cross_entropy")


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `(4, 3)` logits and `(4,)` labels of the classic tutorial, whose loss is 1.4412."""
    torch.manual_seed(0)
    return torch.randn(4, 3), torch.tensor([0, 1, 2, 1])


def entropy(probabilities: tuple[float, ...]) -> float:
    """Return `-sum p log2 p`, in bits."""
    return -sum(p * math.log2(p) for p in probabilities if p > 0)


def numbers(row: torch.Tensor) -> str:
    """Return the entries of a `(C,)` row with four digits."""
    return "[" + ", ".join(f"{value:7.4f}" for value in row.tolist()) + "]"


def title(text: str) -> None:
    """Print a chapter's title."""
    print(f"\n{text}\n{'-' * len(text)}")


if __name__ == "__main__":
    main()
