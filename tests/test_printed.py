from __future__ import annotations

import os

import pytest

from xentbench.printed import KEPT_BYTES, Printed


@pytest.fixture
def pipe():
    fd, write_end = os.pipe()
    printed = Printed(fd)
    yield printed, write_end
    printed.close()


def test_the_last_of_it_is_kept_as_inert_text(pipe):
    printed, end = pipe
    os.write(end, b"\x1b[31mred\x1b[0m\x1b]0;title\x07\n\xff\x00 [bold]|`=1")
    assert printed.tail() == "red \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} [bold]|`=1"
    os.close(end)


def test_however_much_is_printed_a_bounded_part_is_kept(pipe):
    printed, end = pipe
    for _ in range(100):
        os.write(end, 1000 * b"a" + 1000 * b"b")
        printed.take()
    os.write(end, b"the end")
    assert len(printed.tail()) == KEPT_BYTES
    assert printed.tail().endswith("bthe end")
    os.close(end)


def test_silence_and_the_end_are_no_errors(pipe):
    printed, end = pipe
    assert not printed.take()
    assert printed.fd is not None
    os.close(end)
    assert not printed.take()
    assert printed.fd is None
    assert printed.tail() == ""
