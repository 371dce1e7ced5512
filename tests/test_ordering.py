"""What the options of `bench` come to: a new run, a share, one that goes on; with implementations that nobody loads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xentbench import environment, options, ordering, results, spec
from xentbench.ordering import Given
from xentbench.spec import Description, Phase, Source, UsageError

HOW = {
    "results": "runs",
    "run": None,
    "resume": None,
    "shard": None,
    "preset": None,
    "budget": None,
    "workers": None,
    "phase_names": (),
    "seed": None,
    "threads": 1,
    "allocator": "warm",
    "cache": "hot",
    "flush_denormal": False,
    "train": None,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("losses.py").write_text("# a loss")
    monkeypatch.setattr(environment, "describe", lambda *_: dict.fromkeys(environment.RESUMABLE, 1) | CONDITIONS)
    entry = Description("mine", Source("file", str(tmp_path / "losses.py")), "losses.py")
    monkeypatch.setattr(options, "chosen", lambda *_: [entry])


CONDITIONS = {"threads": 1, "allocator": "warm", "cache": "hot", "flush_denormal": False, "pinned": True}


def given(*classes: int, plugins: tuple[str, ...] = ("losses.py",), **how: object) -> Given:
    axes = {f"axis_{name}": () for name in spec.problem_axes()}
    keys = tuple(f"cross_entropy:N=8,C={c}" for c in classes)
    return Given((), (), plugins, {"grid": (), "problem": keys, "logits_file": None, **axes}, {**HOW, **how})


def placed(*classes: int, **how: object) -> ordering.Order:
    order = ordering.place(given(*classes, **how))
    order.journal.close()
    return order


def test_a_new_run_has_its_head_from_the_start_without_the_seed():
    order = placed(10, 20, run="it")
    text = (order.journal.folder / "run.json").read_text()
    assert str(order.plan.seed) not in text
    assert json.loads(text)["plan"]["seed"] is None
    assert order.missing == 8
    assert order.again == "xentbench bench --resume it --results runs"


def test_a_seed_that_was_given_is_no_secret_and_is_taken_up_again():
    placed(10, run="it", seed=7)
    assert placed(resume="it").plan.seed == 7
    with pytest.raises(UsageError, match="the seed"):
        placed(resume="it", seed=8)


def test_every_sitting_draws_a_seed_of_its_own():
    assert placed(10, run="it").plan.seed != placed(resume="it").plan.seed


def test_what_is_not_given_again_is_as_it_was_asked():
    first = placed(
        10, 20, run="it", preset="quick", phase_names=("forward",), workers=4, budget="33s", allocator="both"
    )
    for again in (placed(resume="it", plugins=()), placed(resume="latest"), placed(resume="runs/it")):
        assert again.plan.problems == first.plan.problems
        assert again.plan.phases == (Phase.FORWARD,)
        assert again.plan.preset == first.plan.preset
        assert again.plan.beside_cold == first.plan.beside_cold


@pytest.mark.parametrize("axes", [{}, {"axis_dtype": ("bfloat16",)}, {"axis_dtype": ("float16,float32",)}])
def test_own_logits_go_on_in_the_dtypes_that_they_were_asked_in(axes):
    logits = torch.randn(2, 3, dtype=torch.bfloat16)
    save_file({"logits": logits, "target": torch.zeros(2, dtype=torch.int64)}, "mine.safetensors")
    begun = given(run="it")
    order = ordering.place(dataclasses.replace(begun, asked={**begun.asked, "logits_file": "mine.safetensors", **axes}))
    order.journal.close()
    assert order.plan.problems[0].recorded == "file"
    assert placed(resume="it", plugins=()).plan.problems == order.plan.problems


def test_training_is_on_but_for_quick_runs_and_may_be_asked_for_or_left_out():
    assert placed(10).plan.trains
    assert placed(10, preset="full").plan.trains
    assert not placed(10, preset="quick").plan.trains
    assert placed(10, preset="quick", train=True).plan.trains
    assert not placed(10, train=False).plan.trains


def test_a_run_of_less_than_five_minutes_trains_only_where_it_is_told_to():
    assert not placed(10, budget="299s").plan.trains
    assert placed(10, budget="5m").plan.trains
    assert placed(10, budget="100s", train=True).plan.trains
    assert not placed(10, preset="full", budget="2m").plan.trains


def test_a_run_goes_on_training_as_it_was_begun_and_not_otherwise():
    placed(10, run="it", train=False)
    assert not placed(resume="it").plan.trains
    with pytest.raises(UsageError, match="the trains .was False, is True"):
        placed(resume="it", train=True)


def test_a_run_of_a_version_that_could_not_train_goes_on_without(tmp_path: Path):
    placed(10, run="it", train=False)
    file = tmp_path / "runs" / "it" / "run.json"
    head = json.loads(file.read_text())
    del head["plan"]["trains"]
    file.write_text(json.dumps(head))
    assert not placed(resume="it").plan.trains


def test_the_first_share_trains_for_all():
    orders = [placed(*range(2, 12), run="it", shard=f"{number}/3") for number in (1, 2, 3)]
    assert [order.plan.trains for order in orders] == [True, False, False]
    assert all(order.whole.trains for order in orders)


def test_a_budget_may_be_given_anew_and_nothing_else():
    placed(10, run="it")
    assert placed(resume="it", budget="1h").plan.preset.budget_s == 3600.0
    for changed in ({"workers": 9}, {"phase_names": ("backward",)}):
        with pytest.raises(UsageError, match="run it cannot be continued"):
            placed(resume="it", **changed)
    with pytest.raises(UsageError, match="problems .without cross_entropy:N=8,C=10 and with cross_entropy:N=8,C=20"):
        placed(20, resume="it")


def test_a_run_of_that_name_goes_on_where_the_same_is_asked():
    placed(10, 20, run="it")
    assert placed(10, 20, run="it").journal.run == "it"
    with pytest.raises(UsageError, match="cannot be continued"):
        placed(10, run="it")


def test_a_source_that_changed_is_refused_by_name():
    placed(10, run="it")
    Path("losses.py").write_text("# another loss")
    with pytest.raises(UsageError, match=r"the source of mine \(losses.py\)"):
        placed(resume="it")


def test_a_plugin_that_is_not_found_from_here_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    placed(10, run="it")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="begun with --plugin losses.py, which is not found from here"):
        placed(resume="../runs/it", plugins=())


def test_shares_make_one_run_and_are_the_whole_of_it():
    orders = [placed(*range(2, 12), run="it", shard=f"{number}/3") for number in (1, 2, 3)]
    assert sum(len(order.plan.problems) for order in orders) == 10
    assert all(len(order.whole.problems) == 10 for order in orders)
    assert orders[2].again == "xentbench bench --resume it --shard 3/3 --results runs"
    for count, told in ((1, "the shards .was 3, is 1"), (2, "the shards .was 3, is 2")):
        with pytest.raises(UsageError, match=told):
            placed(resume="it", shard=f"1/{count}")


def test_a_run_that_is_being_written_is_refused_before_anything_is_looked_at(monkeypatch: pytest.MonkeyPatch):
    holder = ordering.place(given(10, run="it"))
    monkeypatch.setattr(options, "chosen", lambda *_: pytest.fail("looked for implementations"))
    for how in ({"resume": "it"}, {"run": "it"}):
        with pytest.raises(UsageError, match="run it is being written by process"):
            ordering.place(given(10, **how))
    holder.journal.close()


def test_cells_that_are_there_are_finished():
    first = placed(10, 20, run="it")
    journal = results.create(Path("runs"), "it")
    fields = {"implementation": "mine", "problem": "cross_entropy:N=8,C=10", "status": "passed", "reproduce": ""}
    journal.verdict(fields)
    journal.cell({**fields, "phase": "forward"})
    journal.close()
    again = placed(resume="it")
    assert list(again.finished) == [("mine", "cross_entropy:N=8,C=10", Phase.FORWARD)]
    assert (first.missing, again.missing) == (8, 7)
