"""The run as its own script sees it. Standard library only: it works in any environment, and nothing here may fail a run.

The agent listens on a Unix socket for JSON lines. A call puts a small dictionary into a queue; a thread writes. At the end of
the process what is queued is written out, for a few seconds at most.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import queue
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

SOCKET = "TRAINYARD_RUN_SOCKET"
_LAST_WORDS_SECONDS = 10.0
_NAME_LIMIT, _TEXT_LIMIT = 256, 3000


def get_context(allow_offline: bool = True) -> ScriptRun | OfflineRun:
    """The submitted run this script is part of; outside of one an offline run that prints, or RuntimeError."""
    global _current
    if _current is None:
        path = os.environ.get(SOCKET)
        if path:
            _current = ScriptRun(_Wire(path))
        elif allow_offline:
            _current = OfflineRun()
        else:
            raise RuntimeError("This script is not part of a submitted run, and allow_offline is False.")
    return _current


_current: ScriptRun | OfflineRun | None = None


class Experiment:
    """The name under which the run is kept."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Experiment(name={self.name!r})"


def _never_fails(method: Callable[..., None]) -> Callable[..., None]:
    """A metric that cannot be taken is a line on standard error, never the end of a training."""

    @functools.wraps(method)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            method(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - whatever a value's own code raises
            _complain(f"{method.__name__}({', '.join(repr(item)[:80] for item in arguments[1:2])}) was not logged: {error}")

    return guarded


class _Logger:
    """What can be logged, whoever takes it."""

    def _emit(self, name: str, kind: str, value: Any) -> None:
        raise NotImplementedError

    @_never_fails
    def log(self, name: str, value: Any, description: str = "") -> None:
        """One value; numbers of any library become floats, anything else its text. Lists belong to log_list."""
        if isinstance(value, list | tuple | range | set | dict) or hasattr(value, "__next__"):
            _complain(
                f"log({name!r}) takes one value, not a {type(value).__name__}: use log_list, log_row or log_table. It was not logged."
            )
            return
        self._emit(name, "scalar", plain(value))

    @_never_fails
    def log_list(self, name: str, value: Iterable[Any], description: str = "") -> None:
        self._emit(name, "list", [plain(item) for item in value])

    @_never_fails
    def log_row(self, name: str, description: str | None = None, **columns: Any) -> None:
        self._emit(name, "row", {column: plain(item) for column, item in columns.items()})

    @_never_fails
    def log_table(self, name: str, value: Mapping[str, Any], description: str = "") -> None:
        table = {
            str(column): [plain(item) for item in cell] if isinstance(cell, Sequence) and not isinstance(cell, str) else plain(cell)
            for column, cell in value.items()
        }
        self._emit(name, "table", table)

    def complete(self) -> None:
        """Nothing: the run is complete when its script has ended well."""

    def fail(self, error_details: object = None) -> None:
        """Nothing: the run has failed when its script ends badly."""

    def cancel(self) -> None:
        """Nothing: a run is canceled from outside."""


class ScriptRun(_Logger):
    """A submitted run, from inside."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self.id = os.environ.get("AZUREML_RUN_ID", "")
        self.experiment = Experiment(os.environ.get("AZUREML_ARM_PROJECT_NAME", ""))
        self.input_datasets: dict[str, str] = json.loads(os.environ.get("TRAINYARD_INPUTS", "{}"))

    def __repr__(self) -> str:
        return f"Run(experiment={self.experiment.name!r}, id={self.id!r})"

    @property
    def run_id(self) -> str:
        return self.id

    @property
    def name(self) -> str:
        return self.id

    def _emit(self, name: str, kind: str, value: Any) -> None:
        trouble = wrong_name(name)
        if trouble:
            _complain(f"{trouble} It was not logged.")
            return
        self._wire.send({"name": name, "kind": kind, "value": value, "at": time.time()})

    def flush(self, timeout_seconds: float = 300.0) -> None:
        """Returns when all that was logged is written to the agent, or after the time."""
        self._wire.flush(timeout_seconds)

    def get_status(self) -> str:
        return "Running"


class OfflineRun(_Logger):
    """No platform: prints what would have been logged."""

    def __init__(self) -> None:
        self.id = f"OfflineRun_{uuid.uuid4()}"
        self.experiment = Experiment("offline")
        self.input_datasets: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Run(id={self.id!r}, offline)"

    @property
    def run_id(self) -> str:
        return self.id

    def _emit(self, name: str, kind: str, value: Any) -> None:
        print(f"Attempted to log {kind} metric {name}:\n{value}", flush=True)

    def flush(self, timeout_seconds: float = 300.0) -> None:
        """Nothing is kept back."""

    def get_status(self) -> str:
        return "Running"


class _Wire:
    """A queue and the thread that empties it into the socket.

    A forked child has neither, and may end without exit handlers, as those of multiprocessing do: it writes at once.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._start(forked=False)
        atexit.register(self.flush, _LAST_WORDS_SECONDS)
        os.register_at_fork(after_in_child=lambda: self._start(forked=True))

    def _start(self, *, forked: bool) -> None:
        self._forked = forked
        self._lock = threading.Lock()
        self._line = _Line(self._path)
        self._queue: queue.SimpleQueue[dict[str, Any] | threading.Event] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(self._queue, self._line), name="trainyard-run", daemon=True)
        self._thread_started = False

    def send(self, item: dict[str, Any]) -> None:
        if self._forked:
            with self._lock:
                self._line.write(item)
            return
        self._queue.put(item)
        with self._lock:
            if not self._thread_started:
                self._thread_started = True
                self._thread.start()

    def flush(self, seconds: float) -> None:
        if self._thread_started:
            written = threading.Event()
            self._queue.put(written)
            written.wait(seconds)

    @staticmethod
    def _work(items: queue.SimpleQueue[dict[str, Any] | threading.Event], line: _Line) -> None:
        while True:
            item = items.get()
            if isinstance(item, threading.Event):
                item.set()
            else:
                line.write(item)


class _Line:
    """The connection to the agent, made when first needed. A broken one drops what comes, after one complaint."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: socket.socket | None = None
        self._broken = False

    def write(self, item: dict[str, Any]) -> None:
        if self._broken:
            return
        try:
            if self._connection is None:
                self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._connection.connect(self._path)
            self._connection.sendall(json.dumps(item).encode() + b"\n")
        except (OSError, ValueError, TypeError) as error:
            self._broken = isinstance(error, OSError)
            _complain(f"a metric was not logged: {error}")


def plain(value: Any) -> float | int | str | bool | None:
    """A JSON value: numbers stay numbers (NumPy's and TensorFlow's too), the rest becomes its repr."""
    if value is None or isinstance(value, bool | str):
        return value[:_TEXT_LIMIT] if isinstance(value, str) else value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return repr(value)[:_TEXT_LIMIT]


def wrong_name(name: object) -> str:
    """What is wrong with a metric's name, or nothing."""
    if not isinstance(name, str) or not name or len(name) > _NAME_LIMIT:
        return f"A metric's name is a text of 1 to {_NAME_LIMIT} characters; {str(name)[:80]!r} is not."
    if name != name.strip() or any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in name):
        return f"A metric's name has no space at its ends and no control character; {name!r} has."
    return ""


def _complain(text: str) -> None:
    try:
        print(f"trainyard: {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass
