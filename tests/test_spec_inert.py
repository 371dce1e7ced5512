from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xentbench.spec import inert

REPLACED = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain [bold]=1+1|`x`<b>", "plain [bold]=1+1|`x`<b>"),
        ("two\nlines\tand\r\nmore", "two lines and more"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07shown", "shown"),
        ("\x1b]8;;https://example.org\x1b\\link", "link"),
        ("\x1bPq#0;2\x1b\\after", "after"),
        ("a\x00b\x9bc", f"a{REPLACED}b{REPLACED}c"),
        ("right\u202eleft \ud800", f"right{REPLACED}left {REPLACED}"),
        ("", ""),
    ],
)
def test_text_keeps_its_words_and_nothing_that_acts(text: str, expected: str):
    assert inert(text) == expected


@given(st.text(st.characters()))
def test_any_text_is_one_printable_line_that_can_be_written(text: str):
    shown = inert(text, 50)
    assert shown.isprintable()
    assert len(shown) <= 50
    shown.encode()
    assert inert(shown, 50) == shown
