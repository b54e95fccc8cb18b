"""One deployment's server: brought up, watched, brought up again, until nobody wants it or it fails too often."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from services.serving.crowd import Crowd, Place
from services.serving.domain.reports import CameUp, GaveUp, Progressed, Report, WentDown, WentIdle
from services.serving.ports import (
    CannotServe,
    Content,
    Doors,
    Environments,
    Fetched,
    Files,
    Logs,
    Ports,
    PortTaken,
    Say,
    Server,
    Servers,
    Table,
)
from trainyard._errors import PlatformUnavailableException
from trainyard.event.v1.artifact_pb2 import Failure

log = structlog.get_logger()
_MEGABYTE = 1_000_000


class NotReported(Exception):
    """What happened could not be kept: no fault of the deployment's, so it says nothing about it."""


@dataclass(frozen=True)
class World:
    """All that a caretaker works with, and how patient it is. Times in seconds."""

    files: Files
    environments: Environments
    servers: Servers
    logs: Logs
    doors: Doors
    table: Table
    host: str  # under which the servers are told to clients
    crowd: Crowd = field(default_factory=Crowd)
    grace: float = 20.0  # between TERM and KILL: a server hands its callers over, and then has ten seconds for what is under way
    backoff: Sequence[float] = (0.5, 1.0, 2.0, 4.0)  # before each new attempt; one more failure in a row is the last
    settled: float = 60.0  # a server that was up so long begins a new row
    port_patience: float = 3.0  # how long to wait for a port that was ours
    look: float = 15.0  # at most between two looks at whether anybody calls
    retry: float = 2.0  # between questions to an object store that does not answer


class Caretaker:
    """`report` takes what happened, to be decided upon. `ports` are those to listen on if they can be had.

    `is_new`: the deployment never was live, so what cannot be brought up once has failed; a deployment that was is brought back.
    `shares`: a server of ours that this one is to take over from listens on those ports.
    """

    def __init__(
        self,
        world: World,
        report: Callable[[Report], Awaitable[None]],
        content: Content,
        *,
        is_new: bool,
        ports: Ports,
        shares: bool,
    ) -> None:
        self._world = world
        self._tell = report
        self._content = content
        self._endpoint = content.endpoint
        self._is_new = is_new
        self._ports = ports
        self._shares = shares
        self._say: Say = world.logs.of(content.endpoint)
        self._failures = 0
        self.grace = world.grace

    async def run(self) -> None:
        """Returns when it has given up; when cancelled, the server is drained first. Raises NotReported."""
        try:
            await self._run()
        finally:
            await self._world.files.discard(self._content)

    async def _run(self) -> None:
        left = await self._left_running()
        if left is None and not self._is_new:
            await self._report(WentDown(self._endpoint, self._content.deployment, "its server is not running"))
        while True:
            try:
                failure = await (self._serve() if left is None else self._go_on(*left))
            except CannotServe as error:
                failure = error.failure
            except NotReported:
                raise
            except Exception as error:
                log.exception("a deployment cannot be brought up", endpoint=self._endpoint, deployment=self._content.deployment)
                failure = Failure(code="InternalError", message=f"{type(error).__name__}: {error}"[:3000], target=self._content.id)
            left = None
            self._say(f"-- {failure.code}: {failure.message}")
            log.warning(
                "does not serve", endpoint=self._endpoint, deployment=self._content.deployment, code=failure.code, why=failure.message
            )
            if self._is_new or self._failures >= len(self._world.backoff):
                await self._report(GaveUp(self._endpoint, self._content.deployment, failure))
                return
            pause = self._world.backoff[self._failures]
            self._failures += 1
            await self._progress(f"starting anew in {pause:g} s (failure {self._failures} in a row): {failure.message}")
            await asyncio.sleep(pause)

    async def _left_running(self) -> tuple[Server, str] | None:
        """By a service that was killed."""
        try:
            return await self._world.servers.adopt(self._content, self._say)
        except Exception:
            log.exception("what runs cannot be taken over", endpoint=self._endpoint, deployment=self._content.deployment)
            return None

    async def _go_on(self, server: Server, digest: str) -> Failure:
        """With one that answers, and never went down: the end of it, and why it ended."""
        log.info("goes on", endpoint=self._endpoint, deployment=self._content.deployment, model=self._content.title)
        place = self._world.crowd.admit(self._content)
        holding = asyncio.create_task(self._hold())
        try:
            return await self._watch(server, Fetched(Path(), digest), place)
        finally:
            holding.cancel()
            self._world.crowd.leave(place)

    async def _hold(self) -> None:
        """The environment that it runs in is in use: the service before this one said so for itself alone."""
        try:
            if self._world.environments.is_there(self._content):
                await self._world.environments.prepare(self._content, self._say)
        except CannotServe as error:
            log.warning("an environment in use cannot be held", endpoint=self._endpoint, why=error.failure.message)

    async def _serve(self) -> Failure:
        """From nothing to the end of the server, and why it ended. Raises CannotServe."""
        fetched = await self._fetch()
        python = await self._prepare()
        place = await self._world.crowd.enter(self._content, self._progress)
        try:
            server = await self._bring_up(python, fetched)
            return await self._watch(server, fetched, place)
        finally:
            self._world.crowd.leave(place)

    async def _bring_up(self, python: Path, fetched: Fetched) -> Server:
        """Raises CannotServe."""
        await self._progress(f"loading {self._content.title}")
        ports = self._ports if await self._may_use(self._ports) else Ports()
        try:
            return await self._start(python, fetched, ports)
        except PortTaken as error:
            self._say(f"{error}; taking other ports")
            return await self._start(python, fetched, Ports())

    async def _start(self, python: Path, fetched: Fetched, ports: Ports) -> Server:
        """Raises CannotServe, and PortTaken unless the ports may be any."""
        try:
            return await self._world.servers.start(python, self._content, fetched, ports, self._say)
        except PortTaken as error:
            if ports != Ports():
                raise
            raise CannotServe(Failure(code="ModelLoadFailed", message=str(error), target=self._content.id)) from error

    async def _fetch(self) -> Fetched:
        files = [file for version in self._content.models for file in version.files.files]
        size = sum(file.size_bytes for file in files)
        what = f"fetching {len(files)} files ({size / _MEGABYTE:.1f} MB) of {self._content.title}"
        await self._progress(what)
        while True:
            try:
                return await self._world.files.fetch(self._content, self._say)
            except PlatformUnavailableException as error:
                await self._progress(f"{what}: waiting for the object store, {error.message}")
                await asyncio.sleep(self._world.retry)

    async def _prepare(self) -> Path:
        content = self._content
        if not self._world.environments.is_there(content):
            what = (
                "its code" if content.scoring is not None else f"TensorFlow {content.models[0].framework_version or 'its default version'}"
            )
            await self._progress(f"building an environment for {what}; the log has the details")
        return await self._world.environments.prepare(content, self._say)

    async def _may_use(self, ports: Ports) -> bool:
        """Waits a little for ports that the killed predecessor may still hold."""
        if self._shares or ports == Ports():
            return True
        deadline = time.monotonic() + self._world.port_patience
        while not (free := self._world.servers.is_free(ports)) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        return free

    async def _watch(self, server: Server, fetched: Fetched, place: Place) -> Failure:
        """From the first answer to the end of the process. Cancelled: the server is drained."""
        try:
            self._ports, self._is_new, self._shares = server.ports, False, False
            await self._world.crowd.up(place, server)
            await self._report(self._came_up(server, fetched))
            log.info("serves", endpoint=self._endpoint, deployment=self._content.deployment, model=self._content.title, ports=server.ports)
            began = time.monotonic()
            watching = asyncio.create_task(self._watch_calls(server))
            try:
                failure = await server.wait()
            finally:
                watching.cancel()
        finally:
            await server.stop(self.grace)
        if time.monotonic() - began >= self._world.settled:
            self._failures = 0
        await self._report(WentDown(self._endpoint, self._content.deployment, failure.message))
        return failure

    async def _watch_calls(self, server: Server) -> None:
        """Says when nobody called for as long as the limits have it; what follows from that is decided elsewhere."""
        idle = self._content.limits.idle_seconds
        if not idle:
            return
        seen, since = await server.calls(), time.monotonic()
        while True:
            await asyncio.sleep(min(idle / 4, self._world.look))
            if (count := await server.calls()) is None or count != seen:
                seen, since = count, time.monotonic()
            elif time.monotonic() - since >= idle:
                since = time.monotonic()
                # It is said again where it could not be kept.
                with contextlib.suppress(NotReported):
                    idle_for = f"nobody called for {idle} s"
                    await self._report(WentIdle(self._endpoint, self._content.deployment, idle_for, await server.memory()))

    def _came_up(self, server: Server, fetched: Fetched) -> CameUp:
        tls, ports = self._content.tls, server.ports
        host, scheme = (tls.cname, "https") if tls is not None else (self._world.host, "http")
        path = "/score" if self._content.scoring is not None else f"/v1/models/{self._content.models[0].model}:predict"
        return CameUp(
            self._endpoint,
            self._content.deployment,
            fetched.digest,
            server.signatures,
            grpc_address=f"{host}:{ports.grpc}" if ports.grpc else "",
            scoring_uri=f"{scheme}://{host}:{ports.rest}{path}",
            at=datetime.now(UTC),
        )

    async def _progress(self, why: str) -> None:
        self._say(f"-- deployment {self._content.deployment}: {why}")
        await self._report(Progressed(self._endpoint, self._content.deployment, why[:3000]))

    async def _report(self, report: Report) -> None:
        try:
            await self._tell(report)
        except Exception as error:
            raise NotReported(f"{type(report).__name__}: {error}") from error
