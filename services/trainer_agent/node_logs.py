"""What a node says of an attempt, beside what its script says: a log for each of its phases, and what became of its processes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.trainer_agent.telemetry import LogStream
from trainyard._gang import node_count

FOLDER = "azureml-logs"


def name_of(agent_id: str, offer: Any) -> str:
    """By which the files of a node's part are known. Who comes to an elastic gang that has begun may have been in it before: then it has
    files of its first name already."""
    return agent_id if offer.node_index < node_count(offer.spec.distribution) else f"{agent_id}-{offer.node_index}"


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


class Process:
    """One of a node's ranks, in the words of the node's log and as the two files tell of it. A rank's number may become another while it runs."""

    def __init__(self, says: NodeLogs) -> None:
        self.info: dict[str, Any] = {}
        """Empty while there is no process."""
        self.status: dict[str, Any] = {}
        self._says = says

    def starts(self, rank: int, command: Sequence[str]) -> None:
        self._say(rank, f"starts {shlex.join(command)}")

    def cannot_start(self, rank: int, error: OSError) -> None:
        self._say(rank, f"cannot be started: {error}")

    def runs(self, rank: int, pid: int, command: Sequence[str]) -> None:
        self._say(rank, f"is process {pid}")
        self.info = {"rank": rank, "processId": pid, "command": list(command), "startTimeUtc": _now()}
        self.status = {"rank": rank, "status": "Running", "exitCode": None, "endTimeUtc": None}

    def ended(self, rank: int, told: Any) -> None:
        """`told`: its TaskExited."""
        status, words = how_it_ended(told.exit_code, timed_out=told.timed_out, stopped=told.stopped)
        self._say(rank, words)
        self.info["rank"] = rank
        self.status |= {"rank": rank, "status": status, "exitCode": told.exit_code, "endTimeUtc": _now()}

    def _say(self, rank: int, what: str) -> None:
        self._says.say(Phase.EXECUTION, f"rank {rank}: {what}")


class Processes:
    """The ranks on this node, for process_info.json and process_status.json."""

    def __init__(self, offer: Any, node: str, says: NodeLogs) -> None:
        self._attempt = {"runId": offer.run_id, "attempt": offer.epoch, "node": node}
        self._has_rank_0 = offer.node_index == 0
        self._says = says
        self._all: list[Process] = []

    def add(self) -> Process:
        """In the order of the ranks."""
        self._all.append(Process(self._says))
        return self._all[-1]

    def write(self, folder: Path) -> None:
        """Nodes of one run keep their files side by side: those of the first have the plain names."""
        suffix = "" if self._has_rank_0 else f"-{self._attempt['node']}"
        folder.mkdir(parents=True, exist_ok=True)
        begun = [it for it in self._all if it.info]
        for name, found in (("process_info", [it.info for it in begun]), ("process_status", [it.status for it in begun])):
            content = {**self._attempt, "processes": found}
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
