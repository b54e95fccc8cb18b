"""Runs on a pool's host, sent there by ssh and read from standard input: one agent's process, by a file with its id. Standard library alone.

Arguments: state|start|stop, agent id, settings file ("" = none). Prints one line of JSON: {"state": "up" | "leaving" | "ended" | "none", "why": ...}.
A process is its pid, the moment it began and the boot it began in: a pid that was given to another process, or that a reboot
has made meaningless, is no agent.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

FOLDER = os.path.expanduser("~/.trainyard/nodes")
KILL_AFTER_SECONDS = 30
LOG_BYTES = 5_000_000


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def began(pid: int) -> str | None:
    """In ticks since the boot; None where no such process is, or it has ended and nobody has asked for its code."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *rest = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else rest[18]


def is_up(known: dict[str, Any]) -> bool:
    return known.get("boot") == boot_id() and known.get("began") is not None and began(known["pid"]) == known["began"]


def read(path: str) -> dict[str, Any]:
    try:
        with open(path) as file:
            known = json.load(file)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and isinstance(known.get("pid"), int) else {}


def write(path: str, known: dict[str, Any]) -> None:
    with open(path + ".new", "w") as file:
        json.dump(known, file)
    os.replace(path + ".new", path)


def last_words(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            lines = [line.strip() for line in file.read()[-4000:].splitlines() if line.strip()]
    except OSError:
        lines = []
    return " | ".join(lines[-3:])[-600:] or "it printed nothing"


def look(path: str, log: str) -> dict[str, str]:
    known = read(path)
    if is_up(known):
        if "stopping" not in known:
            return {"state": "up"}
        if time.monotonic() - known["stopping"] > KILL_AFTER_SECONDS:
            end(known, signal.SIGKILL)
        return {"state": "leaving"}
    if "stopping" in known or known.get("boot") != boot_id():
        remove(path)
        return {"state": "none"}
    return {"state": "ended", "why": f"its process ended; the last lines of {log}: {last_words(log)}"}


def start(path: str, log: str, agent_id: str, settings: str) -> dict[str, str]:
    if is_up(read(path)):
        return look(path, log)
    if os.path.exists(log) and os.path.getsize(log) > LOG_BYTES:
        os.replace(log, log + ".1")
    given = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
    given.update({"TRAINYARD_AGENT__ID": agent_id, "PYTHONUNBUFFERED": "1"})
    if settings:
        given["TRAINYARD_SETTINGS"] = os.path.expanduser(settings)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.trainer_agent"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=os.path.expanduser("~"),
            env=given,
        )
    write(path, {"pid": process.pid, "boot": boot_id(), "began": began(process.pid)})
    return {"state": "up"}


def stop(path: str, log: str) -> dict[str, str]:
    known = read(path)
    if not is_up(known):
        remove(path)
        return {"state": "none"}
    if "stopping" not in known:
        write(path, {**known, "stopping": time.monotonic()})
        end(known, signal.SIGTERM)
    return look(path, log)


def end(known: dict[str, Any], number: signal.Signals) -> None:
    try:
        if number == signal.SIGKILL:
            os.killpg(known["pid"], number)
        else:
            os.kill(known["pid"], number)
    except OSError:
        pass


def remove(path: str) -> None:
    try:
        os.remove(path)
    except OSError:
        pass


def main(verb: str, agent_id: str, settings: str) -> None:
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    path, log = os.path.join(FOLDER, agent_id + ".json"), os.path.join(FOLDER, agent_id + ".log")
    # Two schedulers' commands, or a late one and its repeat, must not start two.
    with open(os.path.join(FOLDER, agent_id + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if verb == "start":
            answer = start(path, log, agent_id, settings)
        elif verb == "stop":
            answer = stop(path, log)
        else:
            answer = look(path, log)
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
