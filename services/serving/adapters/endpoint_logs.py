"""An endpoint's log: what its environment's build and its servers wrote, in one file of bounded size and its predecessor."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO

from services.serving.ports import Say

_MAX_BYTES = 10 << 20
_MAX_LINE = 8 << 10


class EndpointLogs:
    """`logs/endpoint-<name>.log` below the platform's home."""

    def __init__(self, home: Path, max_bytes: int = _MAX_BYTES) -> None:
        self._folder = home / "logs"
        self._max_bytes = max_bytes
        self._open: dict[str, _LogFile] = {}

    def of(self, endpoint: str) -> Say:
        if endpoint not in self._open:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._open[endpoint] = _LogFile(self._path(endpoint), self._max_bytes)
        return self._open[endpoint].write

    def tail(self, endpoint: str, lines: int) -> list[str]:
        path = self._path(endpoint)
        found: deque[str] = deque(maxlen=lines)
        for each in (_older(path), path):
            if each.exists():
                with each.open("rb") as file:
                    found.extend(line.decode(errors="replace").rstrip("\r\n") for line in file)
        return list(found)

    def _path(self, endpoint: str) -> Path:
        return self._folder / f"endpoint-{endpoint}.log"


class _LogFile:
    """Thread safe: builds write from threads of their own."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None

    def write(self, line: str) -> None:
        """One line; what would break it into several, or is beyond 8 KiB, goes. A full disk must not end a server: errors are passed over."""
        content = " ".join(line.splitlines()).encode("utf-8", "replace")[:_MAX_LINE] + b"\n"
        with self._lock:
            try:
                self._file = self._file or self._path.open("ab")
                self._file.write(content)
                self._file.flush()
                if self._file.tell() >= self._max_bytes:
                    self._file.close()
                    self._file = None
                    self._path.replace(_older(self._path))
            except OSError:
                self._file = None


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")
