"""The executable trainyard-model-server: the model server as a program of its own, in an environment with TensorFlow that is built where there
is none yet. `--tensorflow=2.15` chooses its line; all other flags are the model server's."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from services.chassis import environments
from services.chassis.environments import BuildError
from services.serving.adapters.server_environment import REPO, SERVER_PACKAGES
from services.serving.model_server import options
from trainyard._environment_cache import default_cache

STORE_PACKAGES = ("minio==7.2.20",)
BAD_OPTIONS = 2
_OWN = "--tensorflow="


def main() -> None:
    """Becomes the model server, or ends where that cannot be."""
    arguments = [it for it in sys.argv[1:] if not it.startswith(_OWN)]
    line = next((it.removeprefix(_OWN) for it in sys.argv[1:] if it.startswith(_OWN)), "")
    if not arguments or {"-h", "--help", "--version"} & set(arguments):
        options.parse(arguments, description=__doc__)
    try:
        python = _python(line, needs_store(arguments))
    except BuildError as error:
        print(f"no environment with TensorFlow {line or 'of the default line'}: {error.message}", file=sys.stderr)
        for told in error.last_lines[-20:]:
            print(f"  {told}", file=sys.stderr)
        raise SystemExit(BAD_OPTIONS) from error
    # It ends with whoever started it where that is asked for: a terminal that is closed is no reason.
    command = [python, "-P", "-m", "services.serving.model_server", "--parent_pid=-1", *arguments]
    os.execve(python, command, {**os.environ, "PYTHONPATH": str(REPO), "PYTHONNOUSERSITE": "1"})


def needs_store(arguments: Sequence[str]) -> bool:
    """Whether an argument, or the list of models that one names, speaks of an object store."""
    file = _value("model_config_file", arguments)
    try:
        listed = Path(file).read_text(errors="replace") if file else ""
    except OSError:
        listed = ""  # the model server says what is wrong with it
    return any("s3://" in it for it in (*arguments, listed))


def _value(name: str, arguments: Sequence[str]) -> str:
    spellings = (f"--{name}", f"--{name.replace('_', '-')}")
    for at, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in spellings:
            return value if equals else next(iter(arguments[at + 1 :]), "")
    return ""


def _python(line: str, with_store: bool) -> str:
    """Raises BuildError."""
    packages = ("tensorflow", "minio") if with_store else ("tensorflow",)
    if not line and all(importlib.util.find_spec(it) is not None for it in packages):
        return sys.executable
    extra = (*SERVER_PACKAGES, *STORE_PACKAGES) if with_store else SERVER_PACKAGES
    definition = environments.definition("tensorflow", line, [], extra=extra)
    found, hold = environments.acquire(definition, default_cache(), lambda it: print(it, file=sys.stderr, flush=True))
    hold.outlive_exec()
    return str(found.python)


if __name__ == "__main__":
    main()
