"""Files, environments, servers and logs in memory; what they do next is chosen by the test."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from services.serving.domain.endpoint import Endpoint
from services.serving.ports import Content, Fetched, Ports, PortTaken, Say
from tests.unit.serving.builders import FAILURE
from trainyard.event.v1.artifact_pb2 import Failure


class FakeFiles:
    """Raises the troubles in turn, then has everything."""

    def __init__(self) -> None:
        self.troubles: list[Exception] = []
        self.asked: list[str] = []
        self.discarded: list[int] = []

    async def fetch(self, content: Content, say: Say) -> Fetched:
        self.asked.append(content.title)
        if self.troubles:
            raise self.troubles.pop(0)
        return Fetched(Path("/models") / content.title, f"digest of {content.title}")

    async def discard(self, content: Content) -> None:
        self.discarded.append(content.deployment)


class FakeEnvironments:
    def __init__(self) -> None:
        self.there = True
        self.trouble: Exception | None = None

    def is_there(self, content: Content) -> bool:
        return self.there

    async def prepare(self, content: Content, say: Say) -> Path:
        if self.trouble:
            raise self.trouble
        return Path("/python")


class FakeServer:
    def __init__(self, content: Content, ports: Ports) -> None:
        self.content = content
        self.ports = ports
        self.signatures = ("serving_default",)
        self.stopped_after: float | None = None
        self.called: int | None = 0
        self.takes = 100
        self._end: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()

    @property
    def is_running(self) -> bool:
        return not self._end.done()

    def die(self, failure: Failure = FAILURE) -> None:
        self._end.set_result(failure)

    async def calls(self) -> int | None:
        return self.called

    async def memory(self) -> int:
        return self.takes

    async def wait(self) -> Failure:
        return await asyncio.shield(self._end)

    async def stop(self, grace_seconds: float) -> None:
        self.stopped_after = grace_seconds
        if not self._end.done():
            self._end.set_result(Failure(code="Stopped", message="stopped"))


class FakeServers:
    """`loading` cleared: a start waits until it is set. Ports that are taken by a stranger are refused."""

    def __init__(self) -> None:
        self.started: list[FakeServer] = []
        self.troubles: list[Exception] = []
        self.taken: set[int] = set()
        self.loading = asyncio.Event()
        self.loading.set()
        self.asked: list[Ports] = []
        self.left: dict[tuple[str, int], FakeServer] = {}  # by a service that was killed
        self.has_left = False
        self._next = 7000

    async def start(self, python: Path, content: Content, fetched: Fetched, ports: Ports, say: Say) -> FakeServer:
        self.asked.append(ports)
        await self.loading.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        if not self.is_free(ports):
            raise PortTaken(f"{ports} are taken")
        rpc = 0 if content.scoring is not None else ports.grpc or self._any()
        server = FakeServer(content, Ports(rpc, ports.rest or self._any()))
        self.started.append(server)
        return server

    async def adopt(self, content: Content, say: Say) -> tuple[FakeServer, str] | None:
        server = self.left.pop((content.endpoint, content.deployment), None)
        if server is not None:
            self.started.append(server)
        return (server, f"digest of {content.title}") if server is not None else None

    async def end_all_but(self, wanted: Collection[tuple[str, int]]) -> None:
        for key in self.left.keys() - set(wanted):
            await self.left.pop(key).stop(15)

    async def leave(self) -> None:
        self.has_left = True

    def is_free(self, ports: Ports) -> bool:
        return not self.taken & {ports.grpc, ports.rest}

    @property
    def running(self) -> list[str]:
        return [server.content.title for server in self.started if server.is_running]

    def _any(self) -> int:
        self._next += 1
        return self._next


class FakeLogs:
    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = defaultdict(list)

    def of(self, endpoint: str) -> Say:
        return self.lines[endpoint].append

    def tail(self, endpoint: str, lines: int) -> list[str]:
        return self.lines[endpoint][-lines:]


class FakeDoors:
    """The settings that each endpoint's servers go by."""

    def __init__(self) -> None:
        self.kept: dict[str, Endpoint] = {}

    def keep(self, endpoint: Endpoint) -> None:
        self.kept[endpoint.name] = endpoint


class FakeTable:
    """What the door goes by."""

    def __init__(self) -> None:
        self.kept: dict[str, Endpoint] = {}

    def keep(self, endpoints: Sequence[Endpoint]) -> None:
        self.kept = {it.name: it for it in endpoints}
