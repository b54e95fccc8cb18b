"""uv, and conda where it is wanted, as child processes: its own process group, its output line by line, and none of our secrets in its environment."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from uv import find_uv_bin

from services.chassis.environments.errors import BuildCanceled, BuildError, build_failed

_LOOK_SECONDS = 0.1
_KEPT_ON_KILL = 20
# What uv needs to reach an index: proxies, certificates, mirrors. Everything else stays out, keys of the platform above all.
# The two names of ours say whose child it is, for whoever sweeps up after a parent that was killed.
_PASSED = {
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "NETRC", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "TRAINYARD_SETTINGS", "TRAINYARD_NODE",
    "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "LD_LIBRARY_PATH", "MAKEFLAGS", "CMAKE_PREFIX_PATH", "PKG_CONFIG_PATH",
}  # fmt: skip
_PASSED_PREFIXES = ("PIP_", "UV_", "SSL_", "CONDA_", "MAMBA_")
# What would make something else than the definition says, and what publishes.
_KEPT_BACK = {
    "UV_CACHE_DIR", "UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_EXCLUDE_NEWER", "UV_RESOLUTION", "UV_PRERELEASE", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_REQUIRE_HASHES", "UV_NO_DEPS", "UV_PUBLISH_TOKEN", "UV_PUBLISH_PASSWORD",
    "UV_PUBLISH_USERNAME", "UV_PUBLISH_URL",
}  # fmt: skip


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The variables that uv and the build backends below it are given."""
    passed = {
        name: value
        for name, value in ours.items()
        if (name.upper() in _PASSED or name.startswith(_PASSED_PREFIXES)) and name not in _KEPT_BACK
    }
    # A mirror that was set up for pip holds for uv too, which does not read pip's names.
    for theirs, its in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL")):
        if theirs in passed:
            passed.setdefault(its, passed[theirs])
    return {**passed, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}


def command(cache: Path, *arguments: str) -> list[str]:
    return [find_uv_bin(), "--cache-dir", str(cache), *arguments]


def run(
    argv: Sequence[str],
    *,
    folder: Path,
    say: Callable[[str], None],
    deadline: float,
    cancelled: Callable[[], bool],
    held: int,
    variables: Mapping[str, str] | None = None,
) -> None:
    """`deadline` is on time.monotonic()'s clock. `held` is a file descriptor that the process and its children keep open; `variables`
    are given to it besides what passes of ours. Raises BuildError."""
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**environment(os.environ), **(variables or {})},
        start_new_session=True,
        pass_fds=(held,),
    )
    lines: list[str] = []
    try:
        for line in _lines(process):
            if line is not None:
                lines.append(line)
                say(line)
            if cancelled():
                raise BuildCanceled("Canceled", "The build of the environment was canceled.")
            if time.monotonic() >= deadline:
                raise BuildError("EnvironmentBuildTimedOut", "The environment was not built in time.", last_lines=lines[-_KEPT_ON_KILL:])
        code = process.wait()
    finally:
        _end(process)
    if code:
        raise build_failed(lines)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str | None]:
    """Each line as it is written; None every now and then where nothing is."""
    assert process.stdout is not None
    pipe, rest = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(_LOOK_SECONDS):
                yield None
                continue
            block = os.read(pipe, 65536)
            if not block:
                break
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace").rstrip()
    if rest:
        yield rest.decode(errors="replace").rstrip()


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole group: uv has children that compile, and a killed parent does not take them along."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
