"""What training sees: right losses, wrong ones, small biases. `python benchmarks/training_parity.py [SEED…]`.

The losses of `xentbench.mistakes` train both models at each seed, in this process and on one thread; printed are the
right ones' largest distance in units of the bound, which wrong ones are caught of those whose fault the judge sees in
the plain call that training makes, which are not, and how far each bias is; then what Adam would see of a bias. Wrong
ones that do not show in the plain call train the smaller model only. Four minutes a seed.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from xentbench import environment, inputs, mistakes, tolerances, trained, training
from xentbench.examining import examine_here
from xentbench.posing import Question
from xentbench.registry import object_source
from xentbench.spec import Description, Implementation, Problem, Status
from xentbench.worker import calls
from xentbench.worker.training import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from xentbench.tolerances import Tolerance
    from xentbench.worker.calls import Loss

HERE = Description("loss", object_source("xentbench.mistakes:WRONG"), "benchmark", speaks=True)
PLAIN = [
    Problem(batch_size=n, num_classes=c, logits=f, upstream="one")
    for n, c in ((64, 10), (32, 8192))
    for f in ("normal", "peaked")
]


def main(seeds: list[int]) -> None:
    """Print what is seen at each seed."""
    torch.set_num_threads(1)
    print(f"{environment.cpu_model()}, torch {torch.__version__}, one thread")
    shown = {name for name, mistake in mistakes.WRONG.items() if shows(mistake.loss)}
    print(f"{len(shown)} of {len(mistakes.WRONG)} wrong losses show in the plain call")
    for seed in seeds:
        start_s = time.monotonic()
        held = [tolerance(name, seed) for name in training.WORKLOADS]
        for one in held:
            print(f"seed {seed}, {one.course.lesson.name}: {tolerances.rounding(one.course.lesson, one.baseline)}")
            for name, (loss, way) in one.seen.items():
                print(f"    {name}: loss {loss:.1e}, weights {way:.1e} of the way they went")
        report_right(held)
        report_wrong(held, shown)
        for name, loss in biases().items():
            print(f"    bias {name}: " + ", ".join(told(one, loss) for one in held))
        print(f"seed {seed} took {time.monotonic() - start_s:.0f} s", flush=True)
    for name in training.WORKLOADS:
        report_adam(name, seeds[0])


def report_right(held: list[Tolerance]) -> None:
    """Print the largest distances of right losses, and who is objected to."""
    came = {name: [attempt(one, entry.loss) for one in held] for name, entry in mistakes.RIGHT.items()}
    ends = {name: [one.status for one in several] for name, several in came.items()}
    wrong = {name: statuses for name, statuses in ends.items() if any(status.is_wrong for status in statuses)}
    for column in ("curve_ratio", "weights_ratio"):
        far = max(getattr(one, column) or 0.0 for several in came.values() for one in several)
        print(f"    right: largest {column} {far:.3g}")
    print(f"    right: {len(came) - len(wrong)} of {len(came)} pass{', but not ' + str(wrong) if wrong else ''}")


def report_wrong(held: list[Tolerance], shown: set[str]) -> None:
    """Print who is caught of those that show in the plain call and of the others, and who is not."""
    ends = {
        name: [attempt(one, mistake.loss).status for one in (held if name in shown else held[:1])]
        for name, mistake in mistakes.WRONG.items()
    }
    caught = {name for name, several in ends.items() if any(status.is_wrong for status in several)}
    seen = f"{len(caught & shown)} of {len(shown)} that show in the plain call are caught"
    print(f"    wrong: {seen}, {len(caught - shown)} others")
    for place, workload in enumerate(training.WORKLOADS):
        print(f"    wrong: {sum(ends[name][place].is_wrong for name in shown)} of these on {workload}")
    print(f"    missed: {', '.join(sorted(shown - caught))}")
    print(f"    others caught: {', '.join(sorted(caught - shown))}")


def report_adam(name: str, seed: int) -> None:
    """Print how far Adam moves where the gradient is 1 % too large, and where it is computed in float64."""
    lesson = trained.course(name, seed).lesson

    def curve(loss: Loss) -> torch.Tensor:
        weights = [weight.clone().requires_grad_() for weight in lesson.weights]
        optimiser, losses = torch.optim.Adam(weights, lr=3e-3), []
        for step in range(lesson.steps):
            optimiser.zero_grad()
            logits = lesson.logits(weights, step)
            losses.append(F.cross_entropy(logits.detach().double(), lesson.target[step]))
            loss(logits, lesson.target[step]).backward()
            optimiser.step()
        return torch.stack(losses)

    right = curve(F.cross_entropy)
    steep = curve(lambda logits, target: F.cross_entropy(logits, target) * 1.01)
    exact = curve(lambda logits, target: F.cross_entropy(logits.double(), target).float())
    far = [float((one - right).abs().max()) for one in (steep, exact)]
    print(f"Adam on {name}: 1 % too large moves the curve by {far[0]:.1e}, float64 inside by {far[1]:.1e}")


def shows(loss: Callable[..., torch.Tensor]) -> bool:
    """Whether the judge finds value, gradient or writing wrong in the call that training makes."""
    kinds = {"value", "gradient", "mutation", "exception", "shape", "dtype"}
    for problem in PLAIN:
        question = Question.of(problem, inputs.make(problem, seed=0))
        verdict = examine_here(Implementation(name="loss", function=loss), HERE, question)
        if verdict.is_wrong and kinds & {failure.quantity for failure in verdict.failures}:
            return True
    return False


def tolerance(name: str, seed: int) -> Tolerance:
    """Return what may be apart on this workload."""
    course = trained.course(name, seed)
    own = tolerances.baseline(course.lesson)
    others = {member: train(course.lesson, loss) for member, loss in tolerances.members(course.lesson, own).items()}
    return tolerances.tolerance(course, own, others)


def attempt(held: Tolerance, loss: Callable[..., torch.Tensor]) -> training.Trained:
    """Train with a loss, and judge."""
    name = held.course.lesson.name
    try:
        return training.judge(HERE, held, training.Attempt(0.0, train(held.course.lesson, calls.checked(loss))))
    except NotImplementedError as error:
        return training.Trained("loss", name, Status.UNSUPPORTED, str(error))
    except Exception as error:  # noqa: BLE001 - a wrong loss may raise anything
        return training.Trained("loss", name, Status.RAISED, str(error))


def told(held: Tolerance, loss: Loss) -> str:
    """Return how far a biased loss is, in units of the bound."""
    one = attempt(held, loss)
    ratios = ["nothing" if ratio is None else f"{ratio:.2g}" for ratio in (one.curve_ratio, one.weights_ratio)]
    return f"{held.course.lesson.name} {one.status} (curve {ratios[0]}, weights {ratios[1]})"


def biases() -> dict[str, Loss]:
    """Return losses whose gradient alone is a little off, unless they say otherwise."""

    def gradient(push: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Loss:
        def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            given = logits.detach()
            logits.register_hook(lambda slope: push(slope, given, target))  # type: ignore[no-untyped-call]
            return F.cross_entropy(logits, target)

        return loss

    def without_class_3(slope: torch.Tensor, _logits: torch.Tensor, _target: torch.Tensor) -> torch.Tensor:
        kept = slope.clone()
        kept[:, 3] = 0.0
        return kept

    def summed(dtype: torch.dtype) -> Loss:
        def push(_slope: torch.Tensor, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            exponentials = (logits - logits.amax(1, keepdim=True)).exp()
            total = exponentials.to(dtype).cumsum(1)[:, -1:].float()
            return (exponentials / total - F.one_hot(target, logits.shape[1])) / len(target)

        return gradient(push)

    return {
        **{
            f"{share:g} too large": gradient(lambda g, _l, _t, by=share: g * (1.0 + by))
            for share in (1e-2, 1e-3, 1e-4, 1e-5)
        },
        "divided by N - 1": gradient(lambda g, _l, t: g * (len(t) / (len(t) - 1))),
        "class 3 dropped": gradient(without_class_3),
        "rounded to float16": gradient(lambda g, _l, _t: g.half().float()),
        "rounded to bfloat16": gradient(lambda g, _l, _t: g.bfloat16().float()),
        "summed one by one in float16": summed(torch.float16),
        "summed one by one in bfloat16": summed(torch.bfloat16),
        "label smoothing 0.01 left on": lambda z, t: F.cross_entropy(z, t, label_smoothing=0.01),
        "label smoothing 1e-4 left on": lambda z, t: F.cross_entropy(z, t, label_smoothing=1e-4),
        "z-loss 1e-4 left on": lambda z, t: F.cross_entropy(z, t) + 1e-4 * (z.logsumexp(1) ** 2).mean(),
    }


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [0])
