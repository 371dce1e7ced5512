import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xentbench.report import text


@given(st.text())
def test_plain_text_has_one_line_and_nothing_that_acts(words: str) -> None:
    shown = text.plain(words)
    assert shown.isprintable() or text.REPLACEMENT in shown
    assert not set(shown) & set("\n\r\t\x1b\x00\u202e\u200b")
    assert text.plain(shown) == shown


@given(st.text(min_size=1), st.integers(2, 20))
def test_plain_text_keeps_its_limit(words: str, limit: int) -> None:
    assert len(text.plain(words, limit)) <= limit


@given(st.text())
def test_a_code_span_cannot_be_left(words: str) -> None:
    span = text.code_span(words)
    inner = text.plain(words)
    if not inner:
        assert span == ""
        return
    fence = span[: len(span) - len(span.lstrip("`"))]
    body = span[len(fence) : -len(fence)]
    assert span.endswith(fence)
    assert fence not in body
    assert "|" not in body


@given(st.text())
def test_a_code_block_cannot_be_closed_from_within(words: str) -> None:
    lines = text.code_block(words, "sh").split("\n")
    fence = lines[0].removesuffix("sh")
    assert len(lines) == 3
    assert fence not in lines[1]
    assert lines[2] == fence


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", "  =1+1", "\t=1", "\x00=1"])
def test_a_csv_cell_is_no_formula(formula: str) -> None:
    assert text.csv_cell(formula)[0] not in "=+-@\t\r"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4.2e-6, "4.20 µs"),
        (0.9997, "1.00 s"),
        (999.7e-6, "1.00 ms"),
        (0.03, "30.0 ms"),
        (123e-9, "123 ns"),
        (65.0, "65.0 s"),
        (0.0, "0 s"),
        (math.nan, ""),
        (None, ""),
    ],
)
def test_seconds_carry_an_si_prefix(value: float | None, expected: str) -> None:
    assert text.seconds(value) == expected


@given(st.floats(1e-8, 1e11))
def test_a_quantity_says_its_value_to_three_digits(value: float) -> None:
    number, _, unit = text.quantity(value, "s").partition(" ")
    factor = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}[unit.removesuffix("s")]
    assert float(number) * factor == pytest.approx(value, rel=6e-3)
    assert 1 <= float(number) < 1000


@pytest.mark.parametrize(
    ("value", "expected"), [(1.3249, "1.32x"), (12.34, "12.3x"), (123.4, "123x"), (0.0512, "0.051x"), (0.5, "0.50x")]
)
def test_times_shows_about_three_digits(value: float, expected: str) -> None:
    assert text.times(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0042, "0.4 %"), (0.0996, "10 %"), (0.34, "34 %"), (1.6, "160 %"), (0.0, "0.0 %"), (3e-4, "<0.1 %"), (None, "")],
)
def test_percent_shows_a_decimal_where_there_is_one_digit(value: float | None, expected: str) -> None:
    assert text.percent(value) == expected


def test_bytes_below_a_kilobyte_are_whole() -> None:
    assert text.count_bytes(36.0) == "36 B"
    assert text.count_bytes(4.096e6) == "4.10 MB"


def test_an_interval_needs_both_ends() -> None:
    assert text.interval(1.28, 1.37) == "[1.28, 1.37]"
    assert text.interval(1.28, math.nan) == ""


def test_a_long_listing_is_cut_short() -> None:
    assert text.listing(["a"]) == "a"
    assert text.listing(["a", "b", "c"]) == "a, b and c"
    assert text.listing(list("abcdefg"), 4) == "a, b, c and 4 more"
