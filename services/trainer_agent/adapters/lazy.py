"""Mounts that fetch a file when it is opened, for data larger than the node's cache may hold. Where FUSE cannot be used, nothing is lost:
the files are put there as ever."""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from services.parent import die_with

log = structlog.get_logger()
REPO = Path(__file__).resolve().parents[3]
_DETACH = 2
_START_SECONDS = 20.0
_libc = ctypes.CDLL(None, use_errno=True)


def is_possible() -> bool:
    """The kernel's device may be used, and libfuse and its binding are there."""
    return (
        os.access("/dev/fuse", os.R_OK | os.W_OK)
        and bool(ctypes.util.find_library("fuse3") or ctypes.util.find_library("fuse"))
        and importlib.util.find_spec("mfusepy") is not None
    )


def mount(
    files: Sequence[tuple[Any, str]],
    folder: Path,
    settings: dict[str, str] | None = None,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Each SourceFile at its path below `folder`, which exists and is empty. False where the mount did not come up, or not before `stopped()`."""
    asked = {"mount": str(folder), "files": [[base64.b64encode(it.SerializeToString()).decode(), path] for it, path in files]}
    with (folder.parent / f"{folder.name}.mount.log").open("ab") as told:
        child = subprocess.Popen(
            [sys.executable, "-m", "services.trainer_agent.lazy_mount"],
            stdin=subprocess.PIPE,
            stdout=told,
            stderr=told,
            cwd="/",
            env={**os.environ, **(settings or {}), "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "sdk")])},
            preexec_fn=partial(die_with, os.getpid(), signal.SIGTERM),
        )
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(asked).encode())
        child.stdin.close()
    except BrokenPipeError:
        pass
    deadline = time.monotonic() + _START_SECONDS
    while child.poll() is None and time.monotonic() < deadline and not stopped():
        if os.path.ismount(folder):
            # Whoever unmounts it ends the process.
            threading.Thread(target=child.wait, name="lazy-mount", daemon=True).start()
            return True
        time.sleep(0.02)
    child.kill()
    child.wait()
    detach_below(folder)
    log.warning("a lazy mount did not come up", folder=str(folder), code=child.returncode)
    return False


def detach_below(folder: Path) -> None:
    """Unmounts whatever is mounted at or below it, a dead process's mounts too: else the folder could not be removed."""
    top = os.path.realpath(folder)
    for point in reversed(_mounted()):
        if (point == top or point.startswith(f"{top}/")) and _libc.umount2(os.fsencode(point), _DETACH) != 0:
            log.warning("could not unmount", folder=point, reason=os.strerror(ctypes.get_errno()))


def _mounted() -> list[str]:
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return []
    # Spaces and the like stand there in octal.
    return [os.fsdecode(line.split(b" ")[4].decode("unicode_escape").encode("latin-1")) for line in lines]
