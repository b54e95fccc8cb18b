"""What a node says of an attempt, beside what its script says: a log for each of its phases, and what became of its processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.trainer_agent.telemetry import LogStream

FOLDER = "azureml-logs"


class Phase(StrEnum):
    """By the beginnings of their logs' names, as Azure has them."""

    EXECUTION = "55_azureml-execution"
    PREPARATION = "65_job_prep"
    AFTERWARDS = "75_job_post"


class NodeLogs:
    """`azureml-logs/<phase>-<node>.txt`, each there from its first line on. Used on the loop alone."""

    def __init__(self, node: str, open_log: Callable[[str], LogStream]) -> None:
        self._node = node
        self._open = open_log
        self._streams: dict[Phase, LogStream] = {}
        self._closed: set[Phase] = set()

    def say(self, phase: Phase, what: str) -> None:
        """One line, with the time before it. To a log that is closed it says nothing: a thread may have been late."""
        if phase in self._closed:
            return
        # A full disk is told where the script's own output meets it.
        with suppress(OSError):
            if phase not in self._streams:
                self._streams[phase] = self._open(f"{FOLDER}/{phase}-{self._node}.txt")
            self._streams[phase].write([f"{_now()} {what}".replace("\n", " ")])

    def close(self, *phases: Phase) -> None:
        """These, or all of them."""
        for phase in phases or tuple(Phase):
            self._closed.add(phase)
            if phase in self._streams:
                with suppress(OSError):
                    self._streams[phase].close()


class Processes:
    """The ranks on this node, for process_info.json and process_status.json."""

    def __init__(self, offer: Any, node: str) -> None:
        self._attempt = {"runId": offer.run_id, "attempt": offer.epoch, "node": node}
        self._is_alone = offer.world_size <= 1
        self._info: dict[int, dict[str, Any]] = {}
        self._status: dict[int, dict[str, Any]] = {}

    def started(self, rank: int, pid: int, command: list[str]) -> None:
        self._info[rank] = {"rank": rank, "processId": pid, "command": command, "startTimeUtc": _now()}
        self._status[rank] = {"rank": rank, "status": "Running", "exitCode": None, "endTimeUtc": None}

    def ended(self, rank: int, status: str, exit_code: int) -> None:
        self._status[rank] |= {"status": status, "exitCode": exit_code, "endTimeUtc": _now()}

    def write(self, folder: Path) -> None:
        """Nodes of one run keep their files side by side: those of the first rank's have the plain names."""
        suffix = "" if self._is_alone or 0 in self._info else f"-{self._attempt['node']}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, found in (("process_info", self._info), ("process_status", self._status)):
            content = {**self._attempt, "processes": [found[rank] for rank in sorted(found)]}
            (folder / f"{name}{suffix}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def how_it_ended(exit_code: int, *, timed_out: bool, stopped: bool) -> tuple[str, str]:
    """(status, in words)"""
    words = f"exited with code {exit_code}" if exit_code >= 0 else f"was ended by signal {-exit_code}"
    if timed_out:
        return "TimedOut", f"{words}, after its time limit"
    if stopped:
        return "Canceled", f"{words}, when it was asked to stop"
    return ("Completed" if exit_code == 0 else "Failed"), words


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
