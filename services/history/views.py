"""Looks into the tables: a run, lists of runs, metrics, logs, what came from what. At any moment, or now."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from services.history.domain import attempts
from services.history.domain.moment import Moment
from services.history.domain.run import Story
from services.history.projecting import in_short, story_of
from services.history.reading import LOGS
from services.history.tables import checkpoints, chunks, edges, facts, labels, metric_names, nodes, ranks, runs, up_to
from trainyard._cloudevents import message_class
from trainyard.history.v1.history_pb2 import (
    Attempt,
    Experiment,
    LogInfo,
    ModelRef,
    RunView,
)
from trainyard.job.v1 import job_pb2 as job

# Runs that an as-of list tells anew at once.
_TOLD_AT_ONCE = 200
_BEGINNINGS = tuple(kind.DESCRIPTOR.full_name for kind in (job.RunQueued, job.RunOpened))


@dataclass(frozen=True)
class Wish:
    """What a list of runs is to hold; empty fields ask for nothing."""

    experiment: str = ""
    parent: str = ""
    roots_only: bool = False
    statuses: Collection[int] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    def fits(self, run: job.Run) -> bool:
        return (
            (not self.experiment or run.experiment == self.experiment)
            and (not self.parent or run.parent_run_id == self.parent)
            and (not self.roots_only or not run.parent_run_id)
            and (not self.statuses or run.status in self.statuses)
            and _has(run.tags, self.tags)
            and _has(run.properties, self.properties)
            and (not self.text or self.text.lower() in run.run_id.lower() or self.text.lower() in run.display_name.lower())
        )


def _has(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(name in found and (not value or found[name] == value) for name, value in wanted.items())


Age = tuple[int, str]
"""(queued at, run id): where a page ended."""


def list_runs(connection: sa.Connection, wish: Wish, moment: Moment | None, before: Age | None, most: int) -> list[tuple[job.Run, Age]]:
    """Newest first, those after `before`."""
    found: list[tuple[job.Run, Age]] = []
    while len(found) < most:
        limit = most - len(found) if moment is None else _TOLD_AT_ONCE
        rows = connection.execute(_candidates(wish, moment, before).limit(limit)).all()
        for row in rows:
            if len(found) == most:
                break
            before = (row.queued_at, row.run_id)
            if moment is None:
                found.append((job.Run.FromString(bytes(row.message)), before))
            elif (story := story_of(connection, row.run_id, moment)) is not None and wish.fits(story.run):
                found.append((in_short(story.run), before))
        if len(rows) < limit:
            break
    return found


def _candidates(wish: Wish, moment: Moment | None, before: Age | None) -> sa.Select[Any]:
    """What never changes is asked of the table; what does, only where the list is of now."""
    query = sa.select(runs).order_by(runs.c.queued_at.desc(), runs.c.run_id.desc())
    if before is not None:
        query = query.where(sa.tuple_(runs.c.queued_at, runs.c.run_id) < sa.tuple_(*before))
    if wish.experiment:
        query = query.where(runs.c.experiment == wish.experiment)
    if wish.parent:
        query = query.where(runs.c.parent_run_id == wish.parent)
    if wish.roots_only:
        query = query.where(runs.c.parent_run_id == "")
    if wish.text:
        query = query.where(runs.c.run_id.icontains(wish.text, autoescape=True) | runs.c.display_name.icontains(wish.text, autoescape=True))
    if moment is not None:
        return query.where(runs.c.first_at <= moment.at)
    if wish.statuses:
        query = query.where(runs.c.status.in_(sorted(set(wish.statuses))))
    for kind, wanted in (("tag", wish.tags), ("property", wish.properties)):
        for name, value in sorted(wanted.items()):
            has = sa.exists().where(labels.c.run_id == runs.c.run_id, labels.c.kind == kind, labels.c.name == name)
            query = query.where(has.where(labels.c.value == value) if value else has)
    return query


def experiments(connection: sa.Connection, after: str, moment: Moment | None, most: int) -> list[Experiment]:
    """By name. A request that was refused makes none."""
    query = (
        sa.select(runs.c.experiment, sa.func.count().label("amount"), sa.func.max(runs.c.queued_at).label("last"))
        .where(runs.c.experiment > after, runs.c.status != job.RUN_STATUS_REJECTED)
        .group_by(runs.c.experiment)
        .order_by(runs.c.experiment)
        .limit(most)
    )
    if moment is not None:
        # A run is there from its first record on, and stays in its experiment.
        begun = sa.exists().where(facts.c.run_id == runs.c.run_id, facts.c.type.in_(_BEGINNINGS), up_to(facts, moment))
        query = query.where(begun)
    found = []
    for row in connection.execute(query):
        item = Experiment(name=row.experiment, runs=row.amount)
        item.last_run_at.FromMilliseconds(row.last)
        found.append(item)
    return found


def run_view(connection: sa.Connection, run_id: str, moment: Moment | None) -> RunView | None:
    story = story_of(connection, run_id, moment)
    if story is None:
        return None
    view = RunView(
        run=story.run,
        files=story.files,
        logs=logs_of(connection, run_id, moment),
        metric_names=names_of(connection, run_id, moment),
        child_run_ids=children(connection, run_id, moment),
        transitions=story.transitions,
        models=_models(connection, run_id, moment),
        attempts=_attempts(connection, story, moment),
    )
    view.last_event_at.FromMilliseconds(story.last_at)
    return view


def children(connection: sa.Connection, run_id: str, moment: Moment | None) -> list[str]:
    """By number."""
    query = sa.select(runs.c.run_id).where(runs.c.parent_run_id == run_id).order_by(runs.c.number, runs.c.run_id)
    if moment is not None:
        query = query.where(runs.c.first_at <= moment.at)
    found = list(connection.execute(query).scalars())
    return found if moment is None else [child for child in found if story_of(connection, child, moment) is not None]


def family(connection: sa.Connection, run_id: str, moment: Moment | None) -> list[str]:
    """The run, then its descendants, each generation by number."""
    found, at = [run_id], 0
    known = {run_id}
    while at < len(found):
        for child in children(connection, found[at], moment):
            # Forged parents may form a circle.
            if child not in known:
                known.add(child)
                found.append(child)
        at += 1
    return found


def names_of(connection: sa.Connection, run_id: str, moment: Moment | None) -> list[str]:
    """Of the newest attempt that logged anything."""
    rows = connection.execute(
        sa.select(metric_names.c.epoch, metric_names.c.name).where(metric_names.c.run_id == run_id, up_to(metric_names, moment))
    ).all()
    newest = max((row.epoch for row in rows), default=0)
    return sorted(row.name for row in rows if row.epoch == newest)


def logs_of(connection: sa.Connection, run_id: str, moment: Moment | None) -> list[LogInfo]:
    """The newest attempt of each, by name and rank."""
    query = (
        sa.select(
            chunks.c.log,
            chunks.c.rank,
            chunks.c.epoch,
            sa.func.max(chunks.c.next_line).label("lines"),
            sa.func.max(chunks.c.last).label("ended"),
        )
        .where(chunks.c.run_id == run_id, up_to(chunks, moment, LOGS))
        .group_by(chunks.c.log, chunks.c.rank, chunks.c.epoch)
        .order_by(chunks.c.log, chunks.c.rank, chunks.c.epoch)
    )
    found = {
        (row.log, row.rank): LogInfo(log=row.log, rank=row.rank, epoch=row.epoch, lines=row.lines, ended=bool(row.ended))
        for row in connection.execute(query)
    }
    return list(found.values())


def _models(connection: sa.Connection, run_id: str, moment: Moment | None) -> list[ModelRef]:
    query = (
        sa.select(nodes.c.name, nodes.c.version)
        .join(edges, edges.c.target == nodes.c.id)
        .where(edges.c.source == f"run:{run_id}", edges.c.how == "registered", up_to(edges, moment))
        .order_by(nodes.c.name, nodes.c.version)
    )
    return [ModelRef(model=row.name, version=row.version) for row in connection.execute(query)]


def _attempts(connection: sa.Connection, story: Story, moment: Moment | None) -> list[Attempt]:
    """With what their agents said of ranks and checkpoints while each went on."""
    run_id, found = story.run.run_id, [story.attempts[epoch] for epoch in sorted(story.attempts)]
    query = (
        sa.select(ranks).where(ranks.c.run_id == run_id, up_to(ranks, moment)).order_by(ranks.c.at, ranks.c["partition"], ranks.c["offset"])
    )
    by_epoch: dict[int, list[attempts.Report]] = {}
    for row in connection.execute(query) if found else ():
        by_epoch.setdefault(row.epoch, []).append(attempts.Report(row.at, message_class(row.type).FromString(bytes(row.value))))
    for attempt in found:
        attempts.add_ranks(attempt, by_epoch.get(attempt.epoch, ()))
        _add_checkpoints(connection, run_id, attempt, moment)
    return found


def _add_checkpoints(connection: sa.Connection, run_id: str, attempt: Attempt, moment: Moment | None) -> None:
    """Those that came before its end; of a broken-off attempt's agent nothing counts any more."""
    saved = [checkpoints.c.run_id == run_id, checkpoints.c.epoch == attempt.epoch, up_to(checkpoints, moment)]
    if attempt.HasField("ended_at"):
        saved.append(checkpoints.c.at <= attempt.ended_at.ToMilliseconds())
    attempt.checkpoints = int(connection.execute(sa.select(sa.func.count()).select_from(checkpoints).where(*saved)).scalar() or 0)
    newest = sa.select(checkpoints).where(*saved).order_by(checkpoints.c.at.desc(), checkpoints.c["offset"].desc()).limit(1)
    for row in connection.execute(newest):
        one = attempt.checkpoint
        one.agent_id, one.number, one.files, one.bytes = row.agent_id, row.number, row.files, row.bytes
        one.saved_at.FromMilliseconds(row.at)


def close_runs(connection: sa.Connection, run_id: str, most: int = 5) -> list[str]:
    """A few run ids that begin alike, newest first, for a message that says what there is."""
    query = sa.select(runs.c.run_id).where(runs.c.run_id.startswith(run_id[:16], autoescape=True))
    return list(connection.execute(query.order_by(runs.c.queued_at.desc()).limit(most)).scalars())


def latest_version(connection: sa.Connection, kind: str, name: str, moment: Moment | None) -> int:
    """0: there is none."""
    query = sa.select(sa.func.max(nodes.c.version)).where(nodes.c.kind == kind, nodes.c.name == name, up_to(nodes, moment))
    return int(connection.execute(query).scalar() or 0)


def exists(connection: sa.Connection, node_id: str, moment: Moment | None) -> bool:
    return connection.execute(sa.select(nodes.c.id).where(nodes.c.id == node_id, up_to(nodes, moment))).first() is not None


def lineage(connection: sa.Connection, start: str, moment: Moment | None) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """(id, label) of all that it came from and that came of it, and (source, target, how) of the edges between; sorted."""
    found: set[tuple[str, str, str]] = set()
    known = {start}
    for here, there in (("target", "source"), ("source", "target")):
        front: set[str] = {start}
        seen = {start}
        while front:
            rows = [row for some in _in_parts(sorted(front)) for row in connection.execute(_edges(here, some, moment))]
            found.update((row.source, row.target, row.how) for row in rows)
            front = {getattr(row, there) for row in rows} - seen
            seen |= front
        known |= seen
    named = {}
    for some in _in_parts(sorted(known)):
        for row in connection.execute(sa.select(nodes.c.id, nodes.c.label).where(nodes.c.id.in_(some), up_to(nodes, moment))):
            named[row.id] = row.label
    return [(node, named.get(node, "")) for node in sorted(known)], sorted(found)


def _edges(side: str, ids: Sequence[str], moment: Moment | None) -> sa.Select[Any]:
    return sa.select(edges.c.source, edges.c.target, edges.c.how).where(edges.c[side].in_(ids), up_to(edges, moment))


def _in_parts(items: Sequence[str], size: int = 500) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
