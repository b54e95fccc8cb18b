"""Waiting for a pool's nodes, in Azure's words."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

from trainyard._errors import ComputeTargetException
from trainyard._pool_status import AmlComputeStatus
from trainyard._progress import Printer

_POLL_SECONDS = 0.5
_ABSENT = ("ComputeTargetNotFound", "NotFound", "PoolNotFound")


def wait(
    get_status: Callable[[], AmlComputeStatus], *, wanted: int, seconds: float, deletes: bool, is_deleting: bool, shown: bool, note: str
) -> None:
    """Until `wanted` nodes are ready, the pool is gone, its provider reports errors and nothing comes up any more, or the time is up."""
    progress = _States(shown)
    ending = "Wait timeout has been reached"
    for status in _statuses(get_status, seconds):
        if status is None:
            progress.state("Deleted" if deletes or is_deleting else "Absent")
            ending = "The pool was deleted"
            break
        have = status.current_node_count
        progress.state("Deleting" if deletes else "Succeeded" if have >= wanted else f"Resizing: {have} of {wanted} nodes")
        if deletes:
            continue
        if have >= wanted:
            ending = "Minimum number of nodes requested have been provisioned"
            break
        if status.errors and not status.node_states["preparing"]:
            ending = "\n".join(["There were errors reported from AmlCompute:", *status.pool.errors])
            break
    progress.finished(f"note: {note}" if note else "", ending)


def _statuses(get_status: Callable[[], AmlComputeStatus], seconds: float) -> Iterator[AmlComputeStatus | None]:
    """The status again and again until the time is up, at least once; None once the pool is gone."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            yield get_status()
        except ComputeTargetException as error:
            if error.code not in _ABSENT:
                raise
            yield None
            return
        if time.monotonic() >= deadline:
            return
        time.sleep(_POLL_SECONDS)


class _States:
    """Azure's way: each state once, dots while it lasts (on a terminal alone), then the closing lines."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._printer = Printer()
        self._last = ""
        self._dotted = False

    def state(self, text: str) -> None:
        if not self._shown:
            return
        if text == self._last:
            if sys.stdout.isatty():
                sys.stdout.write(".")
                sys.stdout.flush()
                self._dotted = True
            return
        self._end_dots()
        self._last = text
        self._printer.line(text, "phase")

    def finished(self, note: str, ending: str) -> None:
        if not self._shown:
            return
        self._end_dots()
        if note:
            self._printer.line(note, "note")
        self._printer.line("AmlCompute wait for completion finished")
        self._printer.line()
        for line in ending.splitlines():
            self._printer.line(line)

    def _end_dots(self) -> None:
        if self._dotted:
            sys.stdout.write("\n")
        self._dotted = False
