"""A Python that the user manages: it is looked at, and used as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from services.chassis.environments.errors import BuildError

_SECONDS = 30.0
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
        answer = subprocess.run(
            [found, "-c", _LOOK],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={name: value for name, value in os.environ.items() if name in _GIVEN},
            check=True,
        )
        version, prefix, has_azureml = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise _wrong(path, f"it does not answer as a Python does ({type(error).__name__})") from error
    if tuple(version) < _OLDEST:
        told = ".".join(map(str, version))
        raise _wrong(path, f"it is Python {told}; a script's run needs {'.'.join(map(str, _OLDEST))} or later")
    return Interpreter(Path(found), Path(prefix), bool(has_azureml))


def _wrong(path: str, what: str) -> BuildError:
    return BuildError("UserError", f"interpreter_path {path[:200]!r} cannot be used: {what}.", target=path[:200])
