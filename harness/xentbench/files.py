"""Files that are whole or absent: whoever reads one never meets half of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_OFFERED: Final = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM)
"""What file systems answer that cannot flush a folder or hold two names of one file."""


def user_cache(name: str) -> Path:
    """Return a folder of the user's cache: in `XDG_CACHE_HOME` if that is absolute, else in `~/.cache`."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # a user without a home: a folder that cannot exist, hence no cache
            base = Path(os.devnull)
    return base / "xentbench" / name


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write `content` to a temporary file beside `path`, flush it to the disk and move it into place; return `path`.

    Raises:
        OSError: the folder cannot be written; whatever stood at `path` is untouched.
    """
    with _flushed(path, content) as temporary:
        temporary.replace(path)
    sync_folder(path.parent)
    return path


def create_once(path: Path, content: bytes | str) -> bool:
    """Write `content` to `path` where nothing stands there yet; return whether this was done.

    Of many that try at once, on many hosts of one file system too, one succeeds, and nobody meets half of its file.

    Raises:
        OSError: the folder cannot be written.
    """
    with _flushed(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
            if path.exists():
                return False
            temporary.replace(path)  # without second names the last of several that try at once would win
        finally:
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a power failure, where the file system can promise that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _flushed(path: Path, content: bytes | str) -> Iterator[Path]:
    """Give a temporary file beside `path` that holds `content`, on the disk; it is removed where an error comes."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner reads; results are meant to be shared.
        temporary.chmod(0o644)
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def folder_name(text: str) -> str:
    """Return a name for a folder that is this text's alone: neither a path, nor hidden, nor too long."""
    plain = re.sub(r"[^A-Za-z0-9+-]", "_", text)[:60]
    return f"{plain}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:12]}"
