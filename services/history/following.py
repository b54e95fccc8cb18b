"""Log lines from the tables, and from the archived file where the log and the tables no longer have them; followed while they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import sqlalchemy as sa

from services.chassis.choices import told
from services.chassis.grpc_server import Code, refuse
from services.chassis.records import Place
from services.chassis.topics import topics
from services.history import telemetry, views
from services.history.applying import Applied
from services.history.domain.moment import Moment
from services.history.projecting import story_of
from services.history.reading import JOBS, LOGS, clean, within
from services.history.telemetry import LogOf
from services.history.waiting import Freshness
from trainyard._artifacts import is_listed, resolve
from trainyard._gang import driver_log
from trainyard._kafka import partition_of
from trainyard._objects import ObjectMissing, Objects
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.history.v1 import history_pb2 as pb

_AT_ONCE = 500
# A run that ends without a last line is noticed by its end.
_LOOK_AGAIN_SECONDS = 5.0
_BYTES_AT_ONCE = 1 << 20
Look = Callable[[Callable[[sa.Connection], Any]], Awaitable[Any]]


@dataclass(frozen=True)
class _Part:
    """What there is of a log now, from a line on."""

    epoch: int
    lines: Sequence[tuple[int, str]] = ()
    more: bool = False
    """There is more at once."""
    written: bool = False
    """The last line is known to have been written."""
    run_ended: bool = False
    archived: Artifact | None = None
    """Holds what the tables lack."""
    elsewhere: ArtifactSet | None = None
    """May name what holds it."""
    exists: bool = False
    known: bool = False
    """The run is."""
    log: str = ""
    """Its name; empty where none was asked for and the run is not known."""
    logs: Sequence[str] = ()
    """Where nothing was found: the logs that the run has; where there is no run, those that are alike."""


class Following:
    """Answers ReadLog."""

    def __init__(self, applied: Applied, freshness: Freshness, objects: Objects) -> None:
        self._applied = applied
        self._freshness = freshness
        self._objects = objects

    async def lines(self, request: pb.ReadLogRequest, look: Look, moment: Moment | None = None) -> AsyncIterator[pb.ReadLogResponse]:
        """Refuses a log that is not there, unless it is followed: then it is waited for. As it was at `moment`, all of which is applied."""
        of = LogOf(clean(request.run_id), clean(request.log), request.rank, request.epoch, moment)
        at, left, sure = within(request.first_line), int(request.most_lines) or None, moment is not None
        while left != 0:
            seen = self._places_of(of.run_id)
            part: _Part = await look(partial(_part, of=of, at=at, newest=not request.epoch))
            if of.epoch and part.epoch != of.epoch:
                # A newer attempt writes its log anew.
                at = 0
                of = replace(of, epoch=part.epoch)
                continue
            of = replace(of, epoch=part.epoch, log=part.log)
            if (
                part.elsewhere is not None
                and (archived := await asyncio.to_thread(self._find, part.elsewhere, of.run_id, of.log)) is not None
            ):
                part = _Part(part.epoch, written=True, run_ended=True, archived=archived, known=True, log=of.log)
            if part.run_ended and not part.written and not sure:
                # The lines that were written before the end may not have been applied before it.
                sure = True
                await self._freshness.caught_up(None)
                continue
            if part.archived is None and not part.exists and not request.follow:
                raise _no_run(of, part.logs) if not part.known else _no_log(of, part.logs)
            async for lines in self._pieces(part, at):
                for some in _packed(_wanted(lines, request.contains, left)):
                    left = None if left is None else left - len(some)
                    yield pb.ReadLogResponse(lines=some, epoch=of.epoch)
                if left == 0:
                    return
            at = part.lines[-1][0] + 1 if part.lines else at
            if part.more:
                continue
            if not request.follow or part.archived is not None or part.written or part.run_ended:
                return
            await self._applied.until(partial(self._moved, of.run_id, seen), _LOOK_AGAIN_SECONDS)

    async def _pieces(self, part: _Part, at: int) -> AsyncIterator[Iterable[tuple[int, str]]]:
        """The lines from `at` on; an archived file, which may be large, block by block."""
        if part.archived is None:
            yield part.lines
            return
        blocks, number, rest = self._objects.read(part.archived.object_key), 0, b""
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            *ended, rest = (rest + block).split(b"\n")
            yield _numbered(ended, number, at)
            number += len(ended)
            # The end of a line that no log has is left out.
            rest = rest[:_BYTES_AT_ONCE]
        if rest:
            yield _numbered([rest], number, at)

    def _places_of(self, run_id: str) -> list[int]:
        """How far the partitions were applied that tell of the run's lines and of its end."""
        places = (Place(name, partition_of(run_id, topics()[name].partitions)) for name in (LOGS, JOBS))
        return [self._applied.positions.get(place, 0) for place in places]

    def _moved(self, run_id: str, seen: list[int]) -> bool:
        return self._places_of(run_id) != seen

    def _find(self, files: ArtifactSet, run_id: str, path: str) -> Artifact | None:
        try:
            return _archived(resolve(self._objects, files).files, run_id, path)
        except ObjectMissing:
            return None


def _part(connection: sa.Connection, *, of: LogOf, at: int, newest: bool) -> _Part:
    story = story_of(connection, of.run_id, of.moment)
    own = "" if story is None else driver_log(story.run.spec.distribution, of.rank)
    of = replace(of, log=of.log or own)
    epoch = telemetry.newest_log_epoch(connection, of) if newest else of.epoch
    if epoch != of.epoch and of.epoch:
        return _Part(epoch)
    of = replace(of, epoch=epoch)
    ended, elsewhere = story is not None and story.ended, None
    first = telemetry.first_line(connection, of)
    # A name that several ranks write to is the lowest one's file.
    has_file = of.rank == 0 or of.log == own
    if story is not None and ended and has_file and epoch in (0, story.run.epoch) and (first is None or at < first):
        archived = _archived(story.files, of.run_id, of.log)
        if archived is not None:
            return _Part(epoch or story.run.epoch, written=True, run_ended=True, archived=archived, known=True, log=of.log)
        elsewhere = None if is_listed(story.run.outputs) else story.run.outputs
    lines = list(islice(telemetry.lines(connection, of, at), _AT_ONCE))
    exists = telemetry.exists(connection, of)
    logs: list[str] = []
    if not exists:
        there = () if story is None else views.logs_of(connection, of.run_id, of.moment)
        logs = views.close_runs(connection, of.run_id) if story is None else [it.log for it in there]
    written = telemetry.has_ended(connection, of)
    return _Part(epoch, lines, len(lines) == _AT_ONCE, written, ended, None, elsewhere, exists, story is not None, of.log, logs)


def _archived(files: Iterable[Artifact], run_id: str, path: str) -> Artifact | None:
    """The run's file of that path. One that lies with others' is none: whoever forges it would read what is not theirs through us."""
    own = (f"runs/{run_id}/", f"uploads/{run_id}/")
    found = next((file for file in files if file.path == path), None)
    if found is None or not found.object_key.startswith(own) or ".." in found.object_key.split("/"):
        return None
    return found


def _numbered(lines: Sequence[bytes], first: int, start: int) -> Iterator[tuple[int, str]]:
    return ((number, text.decode("utf-8", "replace")) for number, text in enumerate(lines, first) if number >= start)


def _wanted(lines: Iterable[tuple[int, str]], contains: str, most: int | None) -> Iterator[pb.LogLine]:
    part = contains.lower()
    return islice((pb.LogLine(number=number, text=text) for number, text in lines if part in text.lower()), most)


def _packed(lines: Iterator[pb.LogLine]) -> Iterator[list[pb.LogLine]]:
    """In messages that any client takes."""
    some: list[pb.LogLine] = []
    size = 0
    for line in lines:
        some.append(line)
        size += line.ByteSize() + 8
        if size > _BYTES_AT_ONCE:
            yield some
            some, size = [], 0
    if some:
        yield some


def _no_run(of: LogOf, close: Sequence[str]) -> Exception:
    what = f"There is no run {of.run_id[:255]!r}{_then(of)}; alike are: {told(close, [])}."
    return refuse(Code.NOT_FOUND, "RunNotFound", what, of.run_id)


def _no_log(of: LogOf, logs: Sequence[str]) -> Exception:
    what = f"Run {of.run_id[:255]} has no log {of.log[:255]!r} of rank {of.rank}{_then(of)}; its logs are: {told([], logs)}."
    return refuse(Code.NOT_FOUND, "LogNotFound", what, of.log)


def _then(of: LogOf) -> str:
    return "" if of.moment is None else " at that moment"
