from __future__ import annotations

import json
import os
import struct
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xentbench.printed import Printed
from xentbench.worker import wire


@pytest.fixture
def ends():
    down, up = os.pipe(), os.pipe()
    one, other = wire.Channel(up[0], down[1], 2**20), wire.Channel(down[0], up[1])
    yield one, other
    one.close()
    other.close()


@given(hnp.arrays("float32", hnp.array_shapes(min_dims=0, min_side=0, max_side=5)), st.text())
def test_a_record_arrives_as_it_was_sent(array, text: str):
    down, up = os.pipe(), os.pipe()
    one, other = wire.Channel(up[0], down[1]), wire.Channel(down[0], up[1])
    one.send({"text": text}, {"a": torch.from_numpy(array), "b": torch.tensor(3, dtype=torch.int64)})
    record, tensors = other.receive(5)
    one.close()
    other.close()
    assert record == {"text": text}
    assert tensors["a"].shape == array.shape
    assert tensors["a"].numpy().tobytes() == array.tobytes()
    assert int(tensors["b"]) == 3


def test_bfloat16_and_non_contiguous_tensors_arrive(ends):
    one, other = ends
    sent = torch.arange(12.0).reshape(3, 4).to(torch.bfloat16).t()
    one.send({}, {"x": sent})
    assert torch.equal(other.receive(5)[1]["x"], sent)


def test_a_single_number_with_an_odd_stride_arrives(ends):
    one, other = ends
    one.send({}, {"x": torch.tensor([3.0, 4.0], dtype=torch.float16)[::2]})
    assert other.receive(5)[1]["x"].tolist() == [3.0]


def test_more_bytes_than_a_pipe_holds_arrive(ends):
    one, other = ends
    sent = torch.arange(300_000)
    thread = threading.Thread(target=one.send, args=({}, {"x": sent}))
    thread.start()
    assert torch.equal(other.receive(30)[1]["x"], sent)
    thread.join()


def test_silence_ends_at_the_deadline(ends):
    with pytest.raises(wire.DeadlineError):
        ends[0].receive(0.01)


def test_a_reader_that_does_not_read_ends_at_the_deadline(ends):
    with pytest.raises(wire.DeadlineError):
        ends[0].send({}, {"x": torch.zeros(1_000_000)}, within_s=0.05)


def test_a_closed_pipe_is_told(ends):
    one, other = ends
    os.dup2(os.open(os.devnull, os.O_RDONLY), other.fd_in)
    os.dup2(os.open(os.devnull, os.O_WRONLY), other.fd_out)
    with pytest.raises(wire.ChannelClosedError):
        one.receive(1)
    with pytest.raises(wire.ChannelClosedError):
        one.send({})


@pytest.mark.parametrize(
    "text",
    [
        b"no json",
        b"[1]",
        b'{"tensors": [["x", "float12", [1]]]}',
        b'{"tensors": [["x", "float32", [-1]]]}',
        b'{"tensors": 7}',
        b'{"tensors": [["x", "float32", [1000000000]]]}',
        b"\xff\xfe",
        b'{"x": Infinity}',
        b'{"x": 1e999}',
        b'{"x": ' + 5000 * b"9" + b"}",
        b"[" * 100_000,
        b'{"tensors": [' + b", ".join(65 * [b'["x", "float32", [0]]']) + b"]}",
    ],
)
def test_what_is_no_record_is_malformed_and_never_allocated(ends, text: bytes):
    one, other = ends
    thread = threading.Thread(target=other._write, args=(struct.pack(">I", len(text)) + text, lambda: 10.0))
    thread.start()
    with pytest.raises(wire.MalformedError):
        one.receive(10)
    thread.join()


def test_bytes_that_nobody_asked_for_are_seen_before_they_are_read(ends):
    one, other = ends
    assert one.is_silent()
    other.send({})
    assert not one.is_silent()
    one.receive(1)
    assert one.is_silent()


def test_what_is_printed_is_taken_while_an_answer_is_awaited(ends):
    one, other = ends
    fd, end = os.pipe()
    one._beside = printed = Printed(fd)
    os.write(end, b"meanwhile")
    with pytest.raises(wire.DeadlineError):
        one.receive(0.05)
    assert printed._tail == b"meanwhile"
    os.close(end)
    other.send({"done": True})
    assert one.receive(1)[0] == {"done": True}
    printed.close()


class Chatty:
    """What another end prints: so many bytes each time that somebody looks."""

    def __init__(self, there: int) -> None:
        self.there, self.taken = there, 0
        self.fd, self.end = os.pipe()
        os.write(self.end, b"x")  # always something to be read

    def take(self) -> int:
        self.taken += 1
        return self.there


@pytest.mark.parametrize(("there", "looks"), [(100, range(5, 60)), (2**16, range(200, 10**6))])
def test_who_prints_a_little_all_the_time_wakes_nobody_each_time(ends, there: int, looks: range):
    one, _ = ends
    one._beside = Chatty(there)
    with pytest.raises(wire.DeadlineError):
        one.receive(0.05)
    assert one._beside.taken in looks
    os.close(one._beside.fd)
    os.close(one._beside.end)


def test_a_length_beyond_the_limit_is_malformed(ends):
    one, other = ends
    os.write(other.fd_out, struct.pack(">I", 2**32 - 1))
    with pytest.raises(wire.MalformedError, match="longer than"):
        one.receive(1)


def test_the_text_on_the_wire_is_plain_json(ends):
    one, other = ends
    one.send({"ask": "hello"}, {"x": torch.zeros(2)})
    (length,) = struct.unpack(">I", os.read(other.fd_in, 4))
    assert json.loads(os.read(other.fd_in, length)) == {"ask": "hello", "tensors": [["x", "float32", [2]]]}
    assert len(os.read(other.fd_in, 100)) == 8
