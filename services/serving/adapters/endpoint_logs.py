"""An endpoint's log: what its environment's build and its servers wrote, in one file of bounded size and its predecessor."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from pathlib import Path

from services.serving.ports import Say

_MAX_BYTES = 10 << 20
_MAX_LINE = 8 << 10


class EndpointLogs:
    """`logs/endpoint-<name>.log` below the platform's home."""

    def __init__(self, home: Path, max_bytes: int = _MAX_BYTES) -> None:
        self._folder = home / "logs"
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # builds write from threads of their own

    def of(self, endpoint: str) -> Say:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(endpoint)
        return lambda line: self._write(path, line)

    def tail(self, endpoint: str, lines: int) -> list[str]:
        path = self._path(endpoint)
        found: deque[str] = deque(maxlen=lines)
        for each in (_older(path), path):
            with contextlib.suppress(FileNotFoundError), each.open("rb") as file:
                found.extend(line.decode(errors="replace").rstrip("\r\n") for line in file)
        return list(found)

    def _write(self, path: Path, line: str) -> None:
        """One line; line ends within it go, and what is beyond 8 KiB. A full disk must not end a server: errors are passed over."""
        content = " ".join(line.splitlines()).encode("utf-8", "replace")[:_MAX_LINE] + b"\n"
        with self._lock, contextlib.suppress(OSError):
            with path.open("ab") as file:
                file.write(content)
                size = file.tell()
            if size >= self._max_bytes:
                path.replace(_older(path))

    def _path(self, endpoint: str) -> Path:
        return self._folder / f"endpoint-{endpoint}.log"


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")
