"""A PostgreSQL server of the tests' own, from the distribution's package: nothing is installed here."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MISSING = "PostgreSQL is not on this machine: `apt-get install postgresql` as root, or put initdb and postgres on the PATH"


def binaries() -> Path | None:
    """The folder that has initdb and postgres; of several versions the newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: [int(it) for it in path.parts[4].split(".")])
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path and shutil.which("postgres") else None


@contextmanager
def running(folder: Path, port: int, await_port: Callable[[int, Callable[[], bool]], None]) -> Iterator[str]:
    """Its URL. `folder` has initdb and postgres."""
    # Its server refuses root, and the folders of a test are root's alone.
    home = Path(tempfile.mkdtemp(prefix="trainyard-postgres-"))
    given: dict[str, Any] = {"cwd": "/"}
    if os.getuid() == 0:
        user = _somebody()
        os.chown(home, user.pw_uid, user.pw_gid)
        given |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = str(home / "data")
    try:
        made = [str(folder / "initdb"), "-D", data, "-A", "trust", "-U", "trainyard", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, **given)
        words = [str(folder / "postgres"), "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        words += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, **given)
        try:
            await_port(port, lambda: process.poll() is None)
            yield f"postgresql+psycopg://trainyard@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _somebody() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("there is no user postgres or nobody to run the server as")
