"""From a script to its agent: a Unix socket, JSON lines. Standard library only.

    {"metrics": [[name, kind, value, at, step, description], ...], "run": "<a child's id, else absent>"}     no answer
    {"ask": "<what>", ...}      one line back: {"ok": ...} or {"error": {"code", "message", "target"}}

What is logged goes into a queue that a thread empties; a forked child has neither and writes at once, because it may end
without exit handlers, as those of multiprocessing do.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import threading
import time
from collections import deque
from typing import Any

from trainyard import _errors
from trainyard._logger import Point, complain

LINE_BYTES = 1 << 20
ASK_SECONDS = 300.0
_LAST_WORDS_SECONDS = 10.0
# An agent that reads nothing for so long, Kafka being away, is as good as gone.
_PATIENCE_SECONDS = 3600.0
_GATHER_SECONDS = 0.005
_BATCH, _WAITING = 500, 1_000_000


class Wire:
    def __init__(self, path: str) -> None:
        self._path = path
        self._start(forked=False)
        atexit.register(self._drain, _LAST_WORDS_SECONDS)
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        """The child's copy of the connection is closed: the parent's lines and the child's must not mix."""
        self._line.close()
        self._start(forked=True)

    def _start(self, *, forked: bool) -> None:
        self._forked = forked
        self._items: deque[tuple[str, Point]] = deque()
        self._lost = 0
        self._lock = threading.Lock()
        self._line = _Line(self._path)
        self._idle = False
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, run: str, point: Point) -> None:
        """run: "" for the script's own."""
        if len(self._items) >= _WAITING:
            self._lost += 1
            return
        self._items.append((run, point))
        if self._forked:
            self._drain(_LAST_WORDS_SECONDS)
        elif self._idle:
            self._wake.set()
        elif self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="trainyard-run", daemon=True)
                    self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Whether all that was logged up to now lies in the log, where anybody can read it."""
        return self._drain(seconds, then="flush")

    def ask(self, request: dict[str, Any], seconds: float = ASK_SECONDS) -> Any:
        """The agent's answer, after it has taken what was logged before. Raises a typed exception: its own, or Unavailable."""
        self._drain(seconds, then="sync")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(seconds)
                connection.connect(self._path)
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    answer = json.loads(lines.readline())
        except (OSError, ValueError) as error:
            what = f"The agent did not answer {request['ask']!r}: {error or type(error).__name__}"
            raise _errors.PlatformUnavailableException(what, target=str(request["ask"])) from error
        if "error" in answer:
            raise _errors.from_parts(answer["error"])
        return answer.get("ok")

    def _work(self) -> None:
        while True:
            if not self._items:
                self._idle = True
                if not self._items:
                    self._wake.wait()
                self._idle = False
                self._wake.clear()
                # The first of many is about to be followed: one line for all of them is cheaper for both ends.
                time.sleep(_GATHER_SECONDS)
            self._drain(_PATIENCE_SECONDS)

    def _drain(self, seconds: float, then: str = "") -> bool:
        """Writes what waits; False where another thread held the line for that long, or the agent did not confirm it."""
        deadline = time.monotonic() + seconds
        if not self._lock.acquire(timeout=seconds):
            return False
        try:
            while self._items:
                run = self._items[0][0]
                batch: list[Point] = []
                while self._items and len(batch) < _BATCH and self._items[0][0] == run:
                    batch.append(self._items.popleft()[1])
                self._line.write(run, batch, deadline)
            if self._lost:
                lost, self._lost = self._lost, 0
                complain(f"{lost} metrics were not logged: the agent takes them more slowly than they come")
            return not then or self._line.confirmed(then, max(0.1, deadline - time.monotonic()))
        finally:
            self._lock.release()


class _Line:
    """The connection that metrics go over, made when first needed. A broken one drops what comes, after one complaint."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: socket.socket | None = None
        self._broken = False

    def write(self, run: str, batch: list[Point], deadline: float) -> None:
        if self._broken:
            return
        try:
            line = json.dumps({"metrics": batch, **({"run": run} if run else {})}).encode() + b"\n"
        except (ValueError, TypeError) as error:
            self._apart(run, batch, deadline, str(error))
            return
        if len(line) > LINE_BYTES:
            self._apart(run, batch, deadline, f"it takes {len(line)} bytes, and {LINE_BYTES} is the most")
            return
        try:
            if self._connection is None:
                self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._connection.connect(self._path)
            self._connection.settimeout(max(0.1, deadline - time.monotonic()))
            self._connection.sendall(line)
        except OSError as error:
            self._broken = True
            complain(f"a metric was not logged, and none will be: the agent is gone ({error})")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def confirmed(self, how: str, seconds: float) -> bool:
        """Asks on this very line, so that the answer comes after all that went before."""
        if self._broken or self._connection is None:
            return not self._broken
        try:
            self._connection.settimeout(seconds)
            self._connection.sendall(json.dumps({"ask": how, "seconds": seconds}).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                more = self._connection.recv(4096)
                if not more:
                    raise ConnectionError("it closed the connection")
                answer += more
            return bool(json.loads(answer).get("ok"))
        except (OSError, ValueError) as error:
            # A late answer must not be taken for that of a later question.
            self._connection.close()
            self._connection = None
            complain(f"what was logged is not confirmed: {error or type(error).__name__}")
            return False

    def _apart(self, run: str, batch: list[Point], deadline: float, trouble: str) -> None:
        if len(batch) == 1:
            complain(f"metric {batch[0][0]!r} was not logged: {trouble}")
            return
        for point in batch:
            self.write(run, [point], deadline)
