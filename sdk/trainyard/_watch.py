"""Following a run: its phases by gRPC, its output by Kafka, both live."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc

from trainyard import _errors
from trainyard._grpc import is_unavailable

if TYPE_CHECKING:
    from trainyard._kafka import Events, Raw
    from trainyard._workspace import Workspace

LOGS_TOPIC = "trainyard.logs"
BUILD_LOG = "azureml-logs/20_image_build_log.txt"
DRIVER_LOG = "azureml-logs/70_driver_log.txt"
# What nodes say of their own work around the script: for those who look for it, and no part of what a script prints.
_ASIDE = ("azureml-logs/55_", "azureml-logs/75_")
_PREPARATION = "azureml-logs/65_"
# The broker's and the scheduler's clocks may differ a little from each other.
_CLOCK_SLACK = timedelta(seconds=30)
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Line:
    log: str
    epoch: int
    rank: int
    text: str


class LineOrder:
    """Gives each line once, in order: a chunk may come twice, and one of a lost attempt must not reappear."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, int, str], int] = {}
        self._epoch = 0

    def take(self, chunk: Any) -> Iterator[Line]:
        if chunk.epoch < self._epoch:
            return
        self._epoch = chunk.epoch
        place = (chunk.epoch, chunk.rank, chunk.log)
        expected = self._next.get(place, 0)
        for number, text in enumerate(chunk.lines, start=int(chunk.first_line)):
            if number >= expected:
                expected = number + 1
                yield Line(chunk.log, chunk.epoch, chunk.rank, text)
        self._next[place] = expected


def states(workspace: Workspace, run_id: str) -> Iterator[Any]:
    """The run after each change, the last one terminal; a scheduler that restarts is waited for."""
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

    from trainyard.job.v1 import job_pb2

    clients = workspace._clients
    seen = -1
    while True:
        retrying = Retrying(
            retry=retry_if_exception(is_unavailable), stop=stop_after_delay(_PATIENCE_SECONDS), wait=wait_fixed(0.3), reraise=True
        )
        try:
            retrying(clients.jobs.GetRun, job_pb2.GetRunRequest(run_id=run_id), timeout=10.0)
            for answer in clients.jobs.WatchRun(job_pb2.WatchRunRequest(run_id=run_id)):
                if answer.run.revision > seen:
                    seen = answer.run.revision
                    yield answer.run
                if is_terminal(answer.run.status):
                    return
        except grpc.RpcError as error:
            if not is_unavailable(error) and error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN):
                raise _errors.from_rpc(error, _errors.RunNotFoundException) from error
            retrying(clients.jobs.GetRun, job_pb2.GetRunRequest(run_id=run_id), timeout=10.0)


def is_terminal(status: int) -> bool:
    from trainyard.job.v1 import job_pb2

    return status in (job_pb2.RUN_STATUS_COMPLETED, job_pb2.RUN_STATUS_FAILED, job_pb2.RUN_STATUS_CANCELED, job_pb2.RUN_STATUS_REJECTED)


def a_little_before(when: datetime) -> datetime:
    """Clocks differ. Never before 1970: no log knows an earlier time, and a run that names no time stands there."""
    return max(datetime.fromtimestamp(0, UTC), when - _CLOCK_SLACK)


def follow(workspace: Workspace, run_id: str, since: datetime, *, logs: bool) -> Iterator[Any]:
    """Run states and Lines as they come. Ends when the run has ended and all that it wrote has been given."""
    news: queue.Queue[Any] = queue.Queue()
    ended, stop = threading.Event(), threading.Event()

    def watch_states() -> None:
        try:
            for run in states(workspace, run_id):
                news.put(run)
                if stop.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            news.put(error)
        finally:
            ended.set()
            news.put(None)

    def watch_logs() -> None:
        preparing: dict[int, str] = {}
        try:
            for line in log_lines(workspace._events, run_id, a_little_before(since), lambda: not ended.is_set() and not stop.is_set()):
                if _is_shown(line, preparing):
                    news.put(line)
                if stop.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - output is a comfort: the run's state decides
            news.put(Line("", 0, 0, f"(the log cannot be read: {error})"))
        finally:
            news.put(None)

    threads = [threading.Thread(target=watch_states, daemon=True)]
    if logs:
        threads.append(threading.Thread(target=watch_logs, daemon=True))
    for thread in threads:
        thread.start()
    open_ends = len(threads)
    try:
        while open_ends:
            item = news.get()
            if item is None:
                open_ends -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        stop.set()


def _is_shown(line: Line, preparing: dict[int, str]) -> bool:
    """`preparing`: of each attempt the log that was first. Nodes of a gang prepare all alike and at once: one speaks for them."""
    if line.log.startswith(_PREPARATION):
        return preparing.setdefault(line.epoch, line.log) == line.log
    return not line.log.startswith(_ASIDE)


def log_lines(events: Events, run_id: str, since: datetime, going_on: Any) -> Iterator[Line]:
    """Of the preferred rank, 0: the chief or the first worker where a run has tasks. Those of the others lie in logs of their own."""
    order = LineOrder()
    for batch in events.read([LOGS_TOPIC], key=run_id, since=since, follow=going_on):
        for record in batch:
            yield from _lines(order, record)


def _lines(order: LineOrder, record: Raw) -> Iterator[Line]:
    from trainyard.job.v1 import telemetry_pb2

    if record.event is not None and isinstance(record.event.message, telemetry_pb2.LogChunk) and record.event.message.rank == 0:
        yield from order.take(record.event.message)
