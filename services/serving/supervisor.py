"""Makes reality match the documents: a caretaker for each deployment that should have a server, and none for any other; and a new deployment
where an alias has moved."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlsplit

import structlog

from services.chassis.engine import Engine
from services.chassis.handler import Command
from services.chassis.store import Store
from services.serving.caretaker import Caretaker, World
from services.serving.domain.decisions import follows_another
from services.serving.domain.endpoint import Deployment, Endpoint, Second, wanted
from services.serving.domain.model_version import bounds
from services.serving.domain.reports import GaveUp, Report
from services.serving.handlers import Follow
from services.serving.ports import Content, Ports
from services.serving.shelf import Shelf
from trainyard.event.v1.artifact_pb2 import Failure

log = structlog.get_logger()
_LOOK_SECONDS = 5.0
# The service as a whole is given little more than this to end.
_GOODBYE_GRACE_SECONDS = 2.0

Key = tuple[str, int]


@dataclass(frozen=True)
class _Post:
    caretaker: Caretaker | None  # None: nothing can be done but to say so
    task: asyncio.Task[None]


class Supervisor:
    def __init__(self, engine: Engine, store: Store, world: World) -> None:
        self._engine = engine
        self._store = store
        self._world = world
        self._posts: dict[Key, _Post] = {}
        self._leaving: dict[asyncio.Task[None], Key] = {}

    async def run(self) -> None:
        """Until cancelled; then all servers are drained."""
        crowd = asyncio.create_task(self._world.crowd.run(self._endpoints, partial(self._report, "")))
        clearing: asyncio.Task[None] | None = None
        try:
            while True:
                seen = self._engine.revision
                for name, cause_id in self._reconcile():
                    await self._engine.command(Command(Follow(name, datetime.now(UTC)), cause_id, name, recurs=True))
                clearing = clearing or asyncio.create_task(self._clear(list(self._posts)))
                await self._engine.until(lambda seen=seen: self._engine.revision != seen, _LOOK_SECONDS)  # type: ignore[misc]
        finally:
            crowd.cancel()
            await self._world.servers.leave()
            for key, post in list(self._posts.items()):
                if post.caretaker is not None:
                    post.caretaker.grace = _GOODBYE_GRACE_SECONDS
                self._release(key)
            if self._leaving:
                await asyncio.wait(self._leaving)

    async def _clear(self, wanted: Collection[Key]) -> None:
        """What a service that was killed left running, and nobody wants any more."""
        try:
            await self._world.servers.end_all_but(wanted)
        except Exception:
            log.exception("what was left running cannot be ended")

    def _endpoints(self) -> dict[str, Endpoint]:
        with self._store.reading() as documents:
            return {it.name: it for it in Shelf(documents).endpoints()}

    def _reconcile(self) -> list[tuple[str, str]]:
        """Returns the endpoints whose alias has moved, each with the event that moved it."""
        with self._store.reading() as documents:
            shelf = Shelf(documents)
            endpoints = shelf.endpoints()
            for endpoint in endpoints:
                self._world.doors.keep(endpoint)  # before a server of it starts
            self._world.table.keep(endpoints)
            found = {(it.name, deployment.number): (it, deployment) for it in endpoints for deployment in wanted(it)}
            for key in self._posts.keys() - found.keys():
                self._release(key)
            for key in found.keys() - self._posts.keys():
                caretaker = self._caretaker(*found[key], shelf)
                before = [task for task, left in self._leaving.items() if left == key]
                self._posts[key] = _Post(caretaker, asyncio.create_task(self._care(key, caretaker, before)))
            aliases = [(it, it.latest.model, it.latest.alias) for it in endpoints if it.latest.alias]
            return [
                (it.name, shelf.moved_by(model, alias)) for it, model, alias in aliases if follows_another(it, shelf.alias(model, alias))
            ]

    def _release(self, key: Key) -> None:
        """Its server drains while others go on."""
        task = self._posts.pop(key).task
        self._leaving[task] = key
        task.add_done_callback(lambda it: self._leaving.pop(it, None))
        task.cancel()

    async def _care(self, key: Key, caretaker: Caretaker | None, before: Collection[asyncio.Task[None]]) -> None:
        try:
            if before:
                # One that is leaving still has the deployment's folder and addresses.
                await asyncio.wait(before)
            await (caretaker.run() if caretaker is not None else self._report("", _without_version(*key)))
        except Exception:
            log.exception("a caretaker failed, another one takes over", endpoint=key[0], deployment=key[1])
            await asyncio.sleep(_LOOK_SECONDS)
            if (post := self._posts.get(key)) is not None and post.task is asyncio.current_task():
                del self._posts[key]

    def _caretaker(self, endpoint: Endpoint, deployment: Deployment, shelf: Shelf) -> Caretaker | None:
        content = _content(endpoint, deployment, shelf)
        if content is None:
            return None
        asked = shelf.answer(deployment.submission_id)
        if (second := endpoint.second) is not None and endpoint.is_second(deployment.number):
            return self._caretaker_of_second(second, content, shelf)
        older = endpoint.serving
        is_new = not endpoint.serves(deployment.number)
        # Clients keep their address when a new version takes over; with another model the path would be another one anyway.
        keeps = older is not None and _path(older) == _path(deployment)
        return Caretaker(
            self._world,
            partial(self._report, asked.event_id if asked is not None else ""),
            content,
            is_new=is_new,
            ports=_ports(endpoint) if keeps else Ports(),
            shares=is_new and keeps,
        )

    def _caretaker_of_second(self, second: Second, content: Content, shelf: Shelf) -> Caretaker:
        """It has addresses of its own, which the door knows."""
        asked = shelf.answer(second.deployment.submission_id)
        report = partial(self._report, asked.event_id if asked is not None else "")
        return Caretaker(self._world, report, content, is_new=not second.lived, ports=_ports(second), shares=False)

    async def _report(self, cause_id: str, report: Report) -> None:
        """A server may come up and go down many times for one request."""
        await self._engine.command(Command(report, cause_id, report.endpoint, recurs=True))


def _content(endpoint: Endpoint, deployment: Deployment, shelf: Shelf) -> Content | None:
    """None where one of its models was never registered, or nothing says what it serves."""
    found = shelf.versions(deployment)
    if len(found) < len(deployment.models) or not (found or deployment.scoring):
        return None
    took = endpoint.memory_bytes if endpoint.serves(deployment.number) else 0
    # The one beside answers to what the first one is known by: a call through the door may go to either.
    first = endpoint.serving if endpoint.serving is not None and endpoint.is_second(deployment.number) else deployment
    return Content(
        endpoint.name,
        deployment.number,
        deployment.title,
        found,
        deployment.scoring,
        bounds(deployment.limits, found),
        deployment.tls,
        took,
        alias=first.alias,
    )


def _path(deployment: Deployment) -> tuple[bool, str]:
    """What its scoring URI depends on, beside the address."""
    return deployment.tls is not None, deployment.model if deployment.scoring is None else "/score"


def _without_version(endpoint: str, deployment: int) -> GaveUp:
    """This service starts nothing that it does not know; somebody else may have written so into the log."""
    message = f"Deployment {deployment} began with a model version that was never registered. Deploy a registered one."
    return GaveUp(endpoint, deployment, Failure(code="ModelNotFound", message=message, target=endpoint))


def _ports(endpoint: Endpoint | Second) -> Ports:
    grpc, rest = endpoint.grpc_address.rpartition(":")[2], urlsplit(endpoint.scoring_uri).port
    return Ports(int(grpc or 0), rest or 0)
