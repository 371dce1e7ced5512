"""What fresh seeds found: kept once, bounded, and asked again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xentbench import found
from xentbench.checking import Checked
from xentbench.found import MOST, Found
from xentbench.spec import Description, Problem, Source, Status, UsageError

ONE, TWO = Problem(batch_size=8).key, Problem(batch_size=8, dtype="bfloat16").key
ENTRIES = st.builds(
    Found,
    problem=st.sampled_from([ONE, TWO]),
    seed=st.integers(0, 60),
    implementation=st.sampled_from(["mine", "yours"]),
    quantity=st.sampled_from(["value", "gradient"]),
)


def failing(*failures: tuple[str, str], name: str = "mine") -> Checked:
    told = tuple({"problem": problem, "quantity": quantity, "message": "off"} for problem, quantity in failures)
    entry = Description(name, Source("object", f"losses.py:{name}"), "losses.py")
    return Checked(entry, "fail", Status.WRONG_VALUE, failures=told)


def test_of_each_implementation_the_first_failure_of_each_quantity_is_kept():
    checked = [failing((ONE, "value"), (TWO, "value"), (TWO, "gradient")), failing((TWO, "value"), name="yours")]
    assert found.fresh(checked, 7, []) == (
        Found(ONE, 7, "mine", "value"),
        Found(TWO, 7, "mine", "gradient"),
        Found(TWO, 7, "yours", "value"),
    )


def test_what_failed_in_the_replay_is_no_news():
    again = [{"implementation": "mine", "quantity": "value"}]
    assert found.fresh([failing((ONE, "value"), (ONE, "gradient"))], 7, again) == (Found(ONE, 7, "mine", "gradient"),)


def test_recorded_logits_and_what_belongs_to_no_problem_are_not_kept():
    recorded = Problem(batch_size=8, logits="digits").key
    assert found.fresh([failing((recorded, "value"), ("", "exception"))], 7, []) == ()


@given(st.lists(ENTRIES, max_size=150), st.lists(ENTRIES, max_size=150))
def test_a_merge_is_sorted_without_doubles_bounded_and_keeps_the_old_first(kept: list[Found], new: list[Found]):
    merged = found.merge(kept, new)
    assert list(merged) == sorted(set(merged))
    assert len(merged) == min(MOST, len({*kept, *new}))
    assert set(merged) <= {*kept, *new}
    assert len(set(kept)) > MOST or set(kept) <= set(merged)
    assert found.merge(merged, kept[:MOST]) == merged or len({*kept, *new}) > MOST


def test_the_file_gives_back_its_entries_sorted_and_holds_one_a_line(tmp_path):
    file = tmp_path / "found.json"
    assert found.read(file) == ()
    entries = (Found(TWO, 3, "mine", "value"), Found(ONE, 7, "mine", "value"))
    found.write(file, entries)
    assert found.read(file) == tuple(sorted(entries))
    assert sum('"quantity"' in line for line in file.read_text().splitlines()) == len(entries)
    found.write(file, ())
    assert json.loads(file.read_text()) == {"schema": 1, "found": []}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 2, "found": []}',
        '{"schema": 1, "found": [{"problem": "N=8,C=10"}]}',
        '{"schema": 1, "found": [{"problem": "N=8,Q=1", "seed": 7, "implementation": "a", "quantity": "value"}]}',
        '{"schema": 1, "found": [{"problem": "logits=text", "seed": 7, "implementation": "a", "quantity": "value"}]}',
    ],
)
def test_a_file_of_another_kind_is_told_in_one_sentence(tmp_path, text: str):
    file = tmp_path / "found.json"
    file.write_text(text)
    with pytest.raises(UsageError, match="--found expected a file"):
        found.read(file)


class Quiet:
    def stage(self, *_): ...

    def step(self, *_): ...


def test_a_replay_asks_everybody_with_the_seeds_that_failed(tmp_path):
    file = tmp_path / "losses.py"
    file.write_text(
        "from torch.nn import functional as F\n"
        "def right(x, y):\n    return F.cross_entropy(x, y)\n"
        "def wrong(x, y):\n    return -F.cross_entropy(x, y)\n"
    )
    entries = [
        Description(name, Source("object", f"{file}:{name}", (str(tmp_path),)), file.name)
        for name in ("right", "wrong")
    ]
    kept = [Found(ONE, 7, "gone", "value"), Found(ONE, 8, "gone", "value"), Found(ONE, 8, "right", "gradient")]
    failures = found.replay(entries, kept, Quiet())
    assert {failure["implementation"] for failure in failures} == {"wrong"}
    values = [failure["reproduce"] for failure in failures if failure["quantity"] == "value"]
    assert [command.partition("--seed ")[2] for command in values] == ["7", "8"]


def test_a_replay_asks_nobody_what_is_refused_and_of_a_compiler_only_its_own(tmp_path):
    source = Source("object", f"{tmp_path}/absent.py:mine", (str(tmp_path),))
    refusing = Description("mine", source, "absent.py", refusals={ONE: "no"})
    compiling = Description("mine", source, "absent.py", compiles=True)
    assert found.replay([refusing, compiling], [Found(ONE, 7, "yours", "value")], Quiet()) == []


def test_a_replay_leaves_out_what_this_machine_has_no_device_for(tmp_path):
    source = Source("object", f"{tmp_path}/absent.py:mine", (str(tmp_path),))
    elsewhere = Problem(batch_size=8, device="cuda:99").key
    assert found.replay([Description("mine", source, "absent.py")], [Found(elsewhere, 7, "a", "value")], Quiet()) == []
