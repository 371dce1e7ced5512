"""Files that are whole or absent: whoever reads one never meets half of it."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write `content` to a temporary file beside `path`, flush it to the disk and move it into place; return `path`.

    Raises:
        OSError: the folder cannot be written; whatever stood at `path` is untouched.
    """
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
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def folder_name(text: str) -> str:
    """Return a name for a folder that is this text's alone: neither a path, nor hidden, nor too long."""
    plain = re.sub(r"[^A-Za-z0-9+-]", "_", text)[:60]
    return f"{plain}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:12]}"
