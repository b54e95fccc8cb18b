"""A Python that the user manages: it is looked at, and used as it is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from services.chassis.environments.errors import BuildError

_SECONDS = 30.0
_MOST_BYTES = 64 << 10
# A program that a user names is given nothing of ours to read.
_GIVEN = {"PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH"}
_OLDEST = (3, 11)
_LOOK = (
    "import importlib.util as u, json, sys; "
    "print(json.dumps([list(sys.version_info[:2]), sys.prefix, bool(u.find_spec('azureml') and u.find_spec('azureml.core'))]))"
)


@dataclass(frozen=True)
class Interpreter:
    python: Path
    prefix: Path
    has_azureml: bool
    """The retired SDK is installed there: ours must not stand before it."""


def probe(path: str) -> Interpreter:
    """`path` is absolute, or a name on this node's PATH. Raises BuildError with code "UserError" for what is no Python of 3.11 or later."""
    if "\0" in path or ("/" in path and not path.startswith("/")):
        raise _wrong(path, "give an absolute path, or a name on the node's PATH")
    found = shutil.which(path)
    if found is None:
        raise _wrong(path, "there is no such program on this node, or it may not be executed")
    try:
        version, prefix, has_azureml = json.loads(_answer(found))
        major, minor = map(int, version)
        where = Path(os.fspath(prefix))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, RecursionError) as error:
        raise _wrong(path, f"it does not answer as a Python does ({type(error).__name__})") from error
    if (major, minor) < _OLDEST:
        raise _wrong(path, f"it is Python {major}.{minor}; a script's run needs {'.'.join(map(str, _OLDEST))} or later")
    return Interpreter(Path(found), where, bool(has_azureml))


def _answer(program: str) -> bytes:
    """What it prints, and not more than a Python would: its group is ended, whatever it has begun. Raises OSError and SubprocessError."""
    child = subprocess.Popen(
        [program, "-c", _LOOK],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={name: value for name, value in os.environ.items() if name in _GIVEN},
        start_new_session=True,
    )
    assert child.stdout is not None
    late = threading.Timer(_SECONDS, _end, [child.pid])
    late.start()
    try:
        answer = child.stdout.read(_MOST_BYTES)
    finally:
        late.cancel()
        child.stdout.close()
        # What still writes is no answer; what has ended is not hurt.
        ended = _code_of(child)
        _end(child.pid)
        child.wait()
    if ended != 0:
        raise subprocess.SubprocessError(f"it ended with {ended}")
    return answer


def _code_of(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(1.0)
    except subprocess.TimeoutExpired:
        return None


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _wrong(path: str, what: str) -> BuildError:
    return BuildError("UserError", f"interpreter_path {path[:200]!r} cannot be used: {what}.", target=path[:200])
