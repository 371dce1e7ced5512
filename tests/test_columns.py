"""The columns of a run's tables: each of its kind, whatever a journal holds."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xentbench import columns
from xentbench.spec import Problem

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.floats(), max_size=2), st.just({})
)


def kind(name: str) -> str:
    return "object" if name in columns.STRUCTURED else "Int64" if name in columns.WHOLE else "float64"


@pytest.mark.parametrize("table", columns.TABLES)
def test_an_empty_table_has_every_column_of_its_kind(table: str):
    empty = columns.frame([], columns.TABLES[table])
    assert list(empty.columns) == list(columns.TABLES[table])
    for name in empty:
        text = name not in columns.STRUCTURED | columns.WHOLE | columns.NUMBERS
        assert empty[name].dtype == (pd.Series(["text"]).dtype if text else kind(name)), name


def test_every_column_is_of_one_kind_and_documented():
    documented = {name for table in columns.TABLES.values() for name in table}
    kinds = (columns.STRUCTURED, columns.WHOLE, columns.NUMBERS)
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))
    assert frozenset().union(*kinds) <= documented
    assert all(text for table in columns.TABLES.values() for text in table.values())


def test_a_name_with_a_unit_is_a_number():
    for name in {name for table in columns.TABLES.values() for name in table}:
        if name.endswith(("_s", "_bytes", "_ratio", "_low", "_high", "_faults")) and name not in columns.STRUCTURED:
            assert name in columns.NUMBERS | columns.WHOLE, name


@given(st.lists(st.dictionaries(st.sampled_from(sorted({*columns.CELL_COLUMNS, "stranger"})), ANYTHING), max_size=4))
def test_any_row_makes_a_table_of_the_same_kinds(rows: list[dict[str, object]]):
    made = columns.frame(rows, columns.CELL_COLUMNS)
    assert len(made) == (len(rows) if made.shape[1] else 0)
    assert (made.dtypes == columns.frame([], columns.CELL_COLUMNS).dtypes).all()


def test_values_stay_and_what_is_no_number_is_missing():
    problem = Problem(batch_size=8, num_classes=10)
    rows = [
        {"implementation": "a", "batch_size": 8, "rounds": 12.0, "ratio": 1, "worker_log_ratios": [0.5]},
        {"implementation": None, "batch_size": None, "rounds": 1.5, "ratio": "fast", "worker_log_ratios": "none"},
        {"implementation": 3, "batch_size": 2**70, "rounds": True, "ratio": math.inf, "peak_bytes": 2**62},
    ]
    made = columns.frame(rows, [*rows[0], "peak_bytes"])
    assert made["batch_size"].tolist()[0] == problem.batch_size
    assert made["batch_size"].isna().tolist() == [False, True, True]
    assert made["rounds"].isna().tolist() == [False, True, True]
    assert made["ratio"].isna().tolist() == [False, True, False]
    assert made["worker_log_ratios"].tolist() == [[0.5], None, None]
    assert made["implementation"].isna().tolist() == [False, True, True]
    assert made["peak_bytes"].tolist()[2] == 2**62
