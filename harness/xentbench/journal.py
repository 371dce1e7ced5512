"""The journal of a run: its one writer, and its lines, each whole, checked and on the disk before the next cell begins.

A run's folder holds `run.json` (the plan and its conditions) and parts, one of the whole or one of each shard:
`journal.jsonl`, `samples.jsonl` and `journal.lock`; of shard 3 of 8 `journal-3of8.jsonl` and so on. A line is a JSON
object: `schema`, `run`, `contract`, `kind`, `sitting`, the fields of that kind, and `crc32` over all the rest. What
one process wrote, from its start to its end and under a seed of its own, is a sitting. Kinds:

- `sitting`: one began, with which plan and settings.
- `verdict`, `cell`: what it found; later lines on the same cell stand for earlier ones.
- `accuracy`: a verdict on a problem that was asked for accuracy alone: no cell is of it.
- `training`: what a model came to that was trained with an implementation's loss.
- `ended`: it ended, other than by SIGKILL or a power failure; the seed, a secret until then.

Schema history:
    1: first. Columns that were added since are null in older runs.
    2: sittings and parts; the command that asks a verdict's problem again is kept without its seed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import weakref
import zlib
from typing import TYPE_CHECKING, Any, Final

from xentbench.files import create_once, sync_folder, write_atomically
from xentbench.spec import CROSS_ENTROPY, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCHEMA: Final = 2
READABLE: Final = (1, 2)
HEAD: Final = "run.json"
JOURNAL, SAMPLES, LOCK = "journal.jsonl", "samples.jsonl", "journal.lock"
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


class Journal:
    """The one writer of a run, or of a shard's part of it.

    Args:
        folder: of the run; it exists.
        run: its id.
        part: of a shard, else empty.

    Raises:
        UsageError: another process is writing this part; the message names it.
    """

    def __init__(self, folder: Path, run: str, part: str = "") -> None:
        self.folder, self.run, self.part = folder, run, part
        self.sitting = secrets.token_hex(4)
        self._close = weakref.finalize(self, os.close, _locked(folder / named(LOCK, part), run, part))
        for name in (JOURNAL, SAMPLES):
            _drop_torn(folder / named(name, part))

    def cell(self, fields: Mapping[str, Any], samples: Mapping[str, Any] | None = None) -> None:
        """Append one finished cell, its raw times first: a cell's line implies its samples."""
        if samples is not None:
            keys = {key: fields[key] for key in ("implementation", "problem", "phase")}
            self._append(SAMPLES, "samples", {**keys, **samples})
        self._append(JOURNAL, "cell", fields)

    def verdict(self, fields: Mapping[str, Any]) -> None:
        """Append the judge's verdict on one implementation and problem."""
        self._append(JOURNAL, "verdict", fields)

    def accuracy(self, fields: Mapping[str, Any]) -> None:
        """Append the judge's verdict on a problem that is never timed."""
        self._append(JOURNAL, "accuracy", fields)

    def training(self, fields: Mapping[str, Any]) -> None:
        """Append what came of training with an implementation."""
        self._append(JOURNAL, "training", fields)

    def began(self, fields: Mapping[str, Any]) -> None:
        """Append that this sitting began."""
        self._append(JOURNAL, "sitting", fields)

    def ended(self, fields: Mapping[str, Any]) -> None:
        """Append that this sitting ended."""
        self._append(JOURNAL, "ended", fields)

    def found(self, info: Mapping[str, Any]) -> bool:
        """Write `run.json` where there is none yet; return whether this was done."""
        return create_once(self.folder / HEAD, self._info(info))

    def head(self, info: Mapping[str, Any]) -> None:
        """Write or replace `run.json`: not where shards share it."""
        write_atomically(self.folder / HEAD, self._info(info))

    def _info(self, info: Mapping[str, Any]) -> bytes:
        return json.dumps({**info, "schema": SCHEMA, "run": self.run}, indent=1).encode()

    def close(self) -> None:
        """Let the next writer in; harmless when done already. The system does it for a process that dies."""
        self._close()

    def _append(self, name: str, kind: str, fields: Mapping[str, Any]) -> None:
        """Append a line and flush it; one that does not fit is taken back.

        Raises:
            OSError: the disk is full, or worse; what was there before stays readable.
        """
        marks = {"schema": SCHEMA, "run": self.run, "contract": CROSS_ENTROPY.name, "kind": kind}
        line = sealed({**marks, "sitting": self.sitting, **fields})
        path = self.folder / named(name, self.part)
        is_new = not path.exists()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _write_whole(fd, line)
            os.fsync(fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path.name) from None
        finally:
            os.close(fd)
        if is_new:
            sync_folder(self.folder)


def named(name: str, part: str) -> str:
    """Return the name of a part's file: `journal.jsonl` and `3of8` make `journal-3of8.jsonl`."""
    stem, dot, ending = name.partition(".")
    return f"{stem}-{part}{dot}{ending}" if part else name


def parts(folder: Path, name: str) -> list[Path]:
    """Return the files of this name of all parts of a run, the whole's first."""
    stem, _, ending = name.partition(".")
    return [path for path in (folder / name, *sorted(folder.glob(f"{stem}-*of*.{ending}"))) if path.is_file()]


def sealed(record: Mapping[str, Any]) -> bytes:
    """Return the record as one line with its checksum."""
    crc = f"{zlib.crc32(_canonical(record)):08x}"
    return _canonical({**record, "crc32": crc}) + b"\n"


def unsealed(line: bytes) -> dict[str, Any]:
    """Return the record of one line; what is not, byte for byte, as `sealed` makes it is damaged.

    Raises:
        ValueError: torn, damaged, or of another schema.
    """
    try:
        record: dict[str, Any] = json.loads(line)
        whole = isinstance(record, dict) and "crc32" in record
        fits = whole and sealed({key: value for key, value in record.items() if key != "crc32"}) == line + b"\n"
    except RecursionError:
        whole = fits = False
    if not fits:
        msg = "its checksum does not fit" if whole else "not an object with a checksum"
        raise ValueError(msg)
    del record["crc32"]
    if record.get("schema") not in READABLE:
        msg = f"it has schema {record.get('schema')}, this version reads {' and '.join(map(str, READABLE))}"
        raise ValueError(msg)
    return record


def lines(path: Path, run: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the number of each line with its record, or with what is wrong with it.

    A torn last line is dropped without a word: its cell was never finished.
    """
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            record = unsealed(line)
        except ValueError as error:
            yield number, str(error)
            continue
        yield number, record if record.get("run") == run else "it belongs to another run"


def _canonical(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _locked(path: Path, run: str, part: str) -> int:
    """Return the descriptor that holds the lock: the kernel frees it when its last holder dies, however that comes."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 100, 0).decode(errors="replace").strip() or "another process"
        os.close(fd)
        share = f"shard {part.replace('of', '/')} of run" if part else "run"
        msg = f"{share} {run} is being written by {holder}: wait for its end, or stop it first"
        raise UsageError(msg) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(fd)
            raise
        # A file system without locks: nothing keeps a second writer out, and one writer needs none.
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"process {os.getpid()}\n".encode(), 0)
    return fd


def _write_whole(fd: int, line: bytes) -> None:
    """Append a line; what was written of one that does not fit is taken back. Raises OSError where it does not."""
    size = os.fstat(fd).st_size
    if os.write(fd, line) != len(line):
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _drop_torn(path: Path) -> None:
    """Cut off a last line that was never finished: nothing may be appended to it."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
