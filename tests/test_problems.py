from __future__ import annotations

import tracemalloc

import pytest

from xentbench import inputs, problems
from xentbench.spec import FAMILIES, Problem, UsageError


def test_every_grid_is_made_of_different_problems():
    for name in problems.GRIDS:
        made = problems.grid(name)
        assert len({problem.key for problem in made}) == len(made) > 0


def test_the_named_grids_hold_the_promised_sizes():
    sizes = {
        name: [(p.batch_size, p.num_classes) for p in problems.grid(name) if not p.recorded] for name in problems.GRIDS
    }
    assert sizes["smoke"] == [(8, 10), (128, 1000)]
    assert sizes["default"] == [(1024, 2), (8, 10), (128, 1000), (32, 32000)]
    assert set(sizes["small"]) == {(n, c) for n in (32, 256) for c in (10, 100, 1000, 10000)}
    assert (8192, 256_000) in sizes["llm"]
    assert (8192, 262_144) in sizes["ladder"]
    assert len(sizes["ladder"]) == 11
    assert all(n * c > 2**31 for n, c in sizes["huge"])
    assert {problem.dtype for problem in problems.grid("huge")} == {"bfloat16"}


def test_an_unknown_grid_is_told_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'default'"):
        problems.grid("defualt")


def test_a_sweep_is_the_product_of_its_axes():
    made = problems.by_hand({"num_classes": [10, 100], "dtype": ["float32", "bfloat16"], "reduction": []})
    assert [(p.batch_size, p.num_classes, p.dtype) for p in made] == [
        (128, 10, "float32"),
        (128, 10, "bfloat16"),
        (128, 100, "float32"),
        (128, 100, "bfloat16"),
    ]


def test_a_sweep_names_a_problem_once():
    assert len(problems.product([Problem(batch_size=8)], {"dtype": ["float32", "float32"]})) == 1


def test_a_sweep_leaves_out_what_makes_no_sense_where_it_may_and_something_does():
    refused, plain = Problem.parse("N=4,C=3,invalid=label-low"), Problem.parse("N=4,C=3")
    soft = Problem.parse("N=4,C=3,target=soft")
    assert problems.product([refused, plain], {"target": ["soft"]}, leaves_out=True) == (soft,)
    for base, leaves_out in (([refused], True), ([refused, plain], False)):
        with pytest.raises(UsageError, match="'label-low' needs class indices"):
            problems.product(base, {"target": ["soft"]}, leaves_out=leaves_out)


def test_bytes_grow_with_the_problem_and_count_float32_inside_half():
    half, single = (Problem(batch_size=64, num_classes=1000, dtype=dtype) for dtype in ("bfloat16", "float32"))
    assert problems.worker_bytes(half) == problems.worker_bytes(single) == 8 * 64_000 * 4
    assert problems.judge_bytes(single) > 8 * 64_000


@pytest.mark.parametrize("target", ["index", "soft"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_of_a_large_problem_hold_while_its_numbers_are_drawn(family, target, monkeypatch):
    problem = Problem(batch_size=400, num_classes=1000, logits=family, target=target)
    monkeypatch.setattr(problems, "SAMPLED_ELEMENTS", 0)
    monkeypatch.setattr(problems, "SAMPLED_ROWS", 0)
    tracemalloc.start()
    inputs.make(problem, 0)
    drawn_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Tensors made by torch are not traced: logits in their own dtype, and those still held as they were drawn.
    assert 8 * problem.elements <= drawn_bytes <= problems.judge_bytes(problem)


def test_bytes_of_a_large_problem_are_a_fraction_of_those_of_solving_it_whole():
    large = Problem(batch_size=8192, num_classes=256_000)
    assert problems.solved_elements(large) == 64 * 256_000
    assert problems.judge_bytes(large) < 24 * large.elements
