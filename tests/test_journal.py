"""The journal against torn and flipped bytes, other writers, and disks that are full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xentbench import journal, results
from xentbench.journal import Journal
from xentbench.spec import UsageError

KEYS = [(name, f"cross_entropy:N=8,C={c}", "forward") for name in ("one-hot", "naïve") for c in (10, 20)]
HEAD = {"plan": {"problems": ["cross_entropy:N=8,C=10"], "implementations": ["one-hot"], "phases": ["forward"]}}


def cell(key: tuple[str, str, str], **fields: object) -> dict[str, object]:
    named = dict(zip(results.CELL, key, strict=True))
    return {**named, "status": "passed", "reason": "é\u2028\x00\ud800", "labels": [], "ratio": 1.5e-05, **fields}


def written(folder: Path) -> Path:
    """Write a whole sitting, and return the journal's file."""
    writer = Journal(folder, "r")
    writer.head(HEAD)
    writer.began({"part": "", "started": "2026-03-01T12:00:00+00:00"})
    for key in KEYS:
        verdict = dict(zip(results.CELL[:2], key, strict=False))
        writer.verdict({**verdict, "status": "passed", "grade": "B", "reproduce": "xentbench parity x"})
        writer.cell(cell(key), {"bursts_wall_ns": [[[1, 2]]]})
    writer.ended({"seed": 7, "wall_s": 1.0, "ended": "finished"})
    writer.close()
    return folder / journal.JOURNAL


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    file = written(tmp_path_factory.mktemp("whole"))
    return file, file.read_bytes()


@pytest.fixture(scope="module")
def unharmed(whole: tuple[Path, bytes]) -> dict[tuple[str, ...], str]:
    whole[0].write_bytes(whole[1])
    return records(results.read(whole[0].parent))


def records(run: results.Run) -> dict[tuple[str, ...], str]:
    """Return the cells of a run, each as the text of its row: a key that came twice would fail."""
    keys = list(run.cells[list(results.CELL)].itertuples(index=False, name=None))
    assert len(keys) == len(set(keys))
    return dict(zip(keys, map(repr, run.cells.to_dict("records")), strict=True))


def test_every_byte_that_is_torn_from_the_last_line_costs_that_line_alone(whole):
    file, content = whole
    all_but_last = content[: content.rstrip(b"\n").rfind(b"\n") + 1]
    for end in range(len(all_but_last), len(content)):
        file.write_bytes(content[:end])
        run = results.read(file.parent)
        assert len(run.cells) == len(KEYS)
        assert run.damage == ()
        assert run.info["seed"] is None
    file.write_bytes(content)
    assert results.read(file.parent).info["seed"] == 7


@settings(max_examples=200)
@given(data=st.data())
def test_a_byte_that_is_flipped_anywhere_costs_the_lines_that_it_touches_and_is_told(whole, unharmed, data):
    file, content = whole
    before = unharmed
    where = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[where] ^= data.draw(st.integers(1, 255))
    file.write_bytes(flipped)
    run = results.read(file.parent)
    after = records(run)
    assert after.items() <= before.items()
    # A newline that goes takes two lines with it; that of the last one makes a torn line of it, which is not told.
    assert len(before) - len(after) <= 2
    assert run.damage or where == len(content) - 1


@settings(max_examples=100)
@given(
    junk=st.binary(max_size=60) | st.sampled_from([b"[" * 10_000, b'{"a":' * 10_000, b"\x00" * 9, b"9" * 5000, b"null"])
)
def test_junk_between_the_lines_is_told_and_never_a_traceback(whole, junk: bytes):
    file, content = whole
    lines = content.splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], junk, b"\n", *lines[3:]]))
    run = results.read(file.parent)
    assert len(records(run)) == len(KEYS)
    assert any("damaged and was left out" in note for note in run.damage)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": "cell"},
        {"kind": 7},
        {"kind": "cell", "implementation": "x", "problem": "no such problem", "phase": "forward"},
        {"kind": "cell", "implementation": "x", "problem": 7, "phase": "forward"},
        {"kind": "cell", "implementation": "x", "problem": KEYS[0][1], "phase": "forward", "labels": [7]},
        {"kind": "verdict", "implementation": [], "problem": {}},
        {"kind": "cell", "run": "another", "implementation": "x", "problem": KEYS[0][1], "phase": "forward"},
        {"kind": "cell", "schema": 99, "implementation": "x", "problem": KEYS[0][1], "phase": "forward"},
    ],
)
def test_a_line_that_is_whole_and_makes_no_sense_is_told_too(whole, fields):
    file, content = whole
    file.write_bytes(content + journal.sealed({"schema": journal.SCHEMA, "run": "r", **fields}))
    assert len(records(results.read(file.parent))) == len(KEYS)
    assert len(results.read(file.parent).damage) == 1


def test_a_line_with_a_forged_checksum_is_not_believed(whole):
    file, content = whole
    line = journal.sealed({"schema": journal.SCHEMA, "run": "r", "kind": "cell", **cell(KEYS[0], ratio=0.001)})
    forged = {**json.loads(line), "crc32": "00000000"}
    file.write_bytes(content + json.dumps(forged, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    assert "0.001" not in records(results.read(file.parent))[KEYS[0]]
    assert "its checksum does not fit" in results.read(file.parent).damage[0]


def test_lines_that_come_twice_count_once_and_the_latest_stands(whole):
    file, content = whole
    later = journal.sealed({"schema": journal.SCHEMA, "run": "r", "kind": "cell", **cell(KEYS[0], ratio=3.0)})
    file.write_bytes(content + content + later)
    assert len(records(results.read(file.parent))) == len(KEYS)
    run = results.read(file.parent)
    assert len(run.verdicts) == len(KEYS)
    assert set(run.cells.loc[run.cells["implementation"] == KEYS[0][0], "ratio"]) == {3.0, 1.5e-05}


@pytest.mark.parametrize("cut", [1, 30])
def test_nothing_is_appended_to_a_torn_line(tmp_path: Path, cut: int):
    file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:-cut])
    Journal(tmp_path, "r").cell(cell(("later", KEYS[0][1], "forward")))
    run = results.read(tmp_path)
    assert run.damage == ()
    assert "later" in set(run.cells["implementation"])


def test_a_second_writer_is_refused_at_once_and_told_who_writes(tmp_path: Path):
    writer = Journal(tmp_path, "nightly")
    with pytest.raises(UsageError, match=rf"run nightly is being written by process {os.getpid()}"):
        Journal(tmp_path, "nightly")
    shard = Journal(tmp_path, "nightly", "3of8")  # a part of its own
    with pytest.raises(UsageError, match="shard 3/8 of run nightly"):
        Journal(tmp_path, "nightly", "3of8")
    shard.close()
    writer.close()
    Journal(tmp_path, "nightly").close()


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path):
    script = (
        "import sys; from pathlib import Path; from xentbench.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), 'r'); print('locked', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(UsageError, match=f"process {process.pid}"):
            Journal(tmp_path, "r")
        process.kill()
    Journal(tmp_path, "r").close()


def test_parts_have_files_of_their_own_and_are_read_as_one(tmp_path: Path):
    for number, key in enumerate(KEYS, start=1):
        writer = Journal(tmp_path, "r", f"{number}of4")
        assert writer.found(HEAD) == (number == 1)
        writer.began({"part": writer.part, "started": f"2026-03-0{number}"})
        writer.cell(cell(key), {"bursts_wall_ns": []})
        writer.ended({"seed": number, "wall_s": 2.0, "machine": {"cpu": {"speed": number}}, "ended": "finished"})
    assert (tmp_path / "journal-3of4.jsonl").is_file()
    assert not (tmp_path / "journal.jsonl").exists()
    assert set(records(results.read(tmp_path))) == set(KEYS)
    assert len(results.samples(tmp_path)) == len(KEYS)
    info = results.read(tmp_path).info
    assert [(one["part"], one["seed"]) for one in info["sittings"]] == [(f"{n}of4", n) for n in (1, 2, 3, 4)]
    assert (info["seed"], info["wall_s"], info["machine"]) == (None, 8.0, {"cpu": {"speed": 4}})
