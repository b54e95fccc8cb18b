"""One process a service."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


class OnlyOne:
    """Two processes of one service would each write half of its state: the second ends with a reason."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise RuntimeError(f"another process of this service holds {self._path}") from error

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
