"""One process that the keeper holds: what it wrote and nobody has read yet, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass, field
from typing import Any

from services.serving.keeper.lending import Lent

MOST_KEPT = 1 << 20  # of each stream's output, while nobody reads it
BLOCK = 1 << 16


@dataclass
class Stream:
    """One of its two outputs. Whoever prints never waits for a reader: the oldest is dropped."""

    descriptor: int  # -1: nothing comes any more
    kept: bytearray = field(default_factory=bytearray)
    lost: int = 0
    told_over: bool = False

    def read(self) -> bool:
        """What is there now. False: it was the last."""
        try:
            data = os.read(self.descriptor, BLOCK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.kept += data
        if (over := len(self.kept) - MOST_KEPT) > 0:
            del self.kept[:over]
            self.lost += over
        return bool(data)

    def take(self) -> bytes:
        found, self.kept = bytes(self.kept), bytearray()
        if self.lost:
            found = f"\n-- {self.lost} bytes of output are lost: nobody read them\n".encode() + found
            self.lost = 0
        return found

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Child:
    def __init__(self, id: str, key: str, digest: str, process: subprocess.Popen[bytes], lent: Lent | None) -> None:
        """`key` and `digest` are the service's: what it is, and what it was started with."""
        self.id = id
        self.key = key
        self.digest = digest
        self.lent = lent
        self.note: Any = None
        self.code: int | None = None
        self.told_exit = False
        self._process = process
        assert process.stdout is not None and process.stderr is not None
        self.streams = [Stream(os.dup(it.fileno())) for it in (process.stdout, process.stderr)]
        for pipe in (process.stdout, process.stderr):
            pipe.close()
        for stream in self.streams:
            os.set_blocking(stream.descriptor, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_told(self) -> bool:
        """All that there is to say of it was said."""
        return self.told_exit and all(it.told_over for it in self.streams)

    def about(self) -> dict[str, Any]:
        port = self.lent.port if self.lent is not None else 0
        return {"id": self.id, "key": self.key, "digest": self.digest, "pid": self.pid, "port": port, "note": self.note, "code": self.code}

    def signal(self, number: int) -> None:
        """To all its group. Until it was reaped its number is nobody else's."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def has_ended(self) -> bool:
        """Just now: reaped, and what it left behind in its group is killed before its number is free."""
        if self.code is not None or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        self.signal(signal.SIGKILL)
        self.code = self._process.wait()
        return True

    def forget_told(self) -> None:
        """For a service that was told nothing yet."""
        self.told_exit = False
        for stream in self.streams:
            stream.told_over = False
