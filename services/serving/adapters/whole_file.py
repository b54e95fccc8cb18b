"""Files that others read while they are written anew: they find the old one or the new one. For their owner alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: Path, text: str) -> Iterator[Path]:
    """A file with that text in the same folder, under a name that begins with a dot; gone at the end, unless it was moved. Raises OSError."""
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        yield Path(made)
    finally:
        Path(made).unlink(missing_ok=True)


def replace_whole(path: Path, text: str) -> None:
    """Raises OSError; then the old one is there still."""
    with beside(path, text) as made:
        made.replace(path)
