"""What can be seen of a server from outside: the memory that its processes take, and the calls that it counts."""

from __future__ import annotations

import http.client
import os
from pathlib import Path

import psutil

from services.serving.pinned import context_for

_COUNTED = ":tensorflow:serving:request_count{"
_UNDER_WAY = "trainyard_serving_under_way "
_PATIENCE_SECONDS = 2.0


def _resident(pid: int) -> int | None:
    """Bytes of memory that a process takes; None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def memory_of(pid: int, enough: int = 0) -> int:
    """Bytes that a process takes with its children: a script may do its work in processes of its own. What they share counts once; unless
    they are below `enough` even so, because the closer look takes longer."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        children = []
    every = [pid, *(child.pid for child in children)]
    found = sum(_resident(it) or 0 for it in every)
    return found if len(every) == 1 or found <= enough else sum(_proportional(it) for it in every)


def _proportional(pid: int) -> int:
    """Its own memory, and of what it shares its part; all of it where the system does not tell."""
    try:
        words = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
        return int(words[words.index("Pss:") + 1]) << 10
    except (OSError, ValueError, IndexError):
        return _resident(pid) or 0


def calls_of(host: str, port: int, certificate: str) -> int | None:
    """That it has answered, by its metrics; None where it does not tell, or answers one just now. `certificate`: in PEM, where it speaks TLS."""
    connection = (
        http.client.HTTPSConnection(host, port, timeout=_PATIENCE_SECONDS, context=context_for(certificate))
        if certificate
        else http.client.HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
    )
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            return None  # all its connections are in use
        told = answer.read().decode().splitlines()
        if any(line.startswith(_UNDER_WAY) and not line.endswith(" 0") for line in told):
            return None
        return sum(int(float(line.rpartition(" ")[2])) for line in told if line.startswith(_COUNTED))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
