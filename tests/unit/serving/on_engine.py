"""The serving service without Kafka and gRPC: events go straight into its engine, and servers do what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from math import inf
from typing import Any

from google.protobuf.message import Message

from services.chassis.engine import Engine
from services.chassis.handler import Command
from services.chassis.loop.memory import MemoryLog, MemoryReader
from services.chassis.records import NewRecord
from services.chassis.store import Store
from services.serving.caretaker import World
from services.serving.domain.endpoint import Endpoint, state_of
from services.serving.handlers import MODELS, TOPIC, Decide, ServingHandler
from services.serving.shelf import Shelf
from services.serving.supervisor import Supervisor
from tests.unit.serving.builders import NOW, a_request, registered
from tests.unit.serving.fakes import FakeDoors, FakeEnvironments, FakeFiles, FakeLogs, FakeServers, FakeTable
from trainyard._cloudevents import Outgoing, decode
from trainyard.endpoint.v1 import endpoint_pb2 as pb


class Serving:
    def __init__(self) -> None:
        self.store = Store("sqlite://")
        self.files, self.environments, self.servers, self.logs = FakeFiles(), FakeEnvironments(), FakeServers(), FakeLogs()
        self.doors, self.table = FakeDoors(), FakeTable()
        self.world = World(
            self.files,
            self.environments,
            self.servers,
            self.logs,
            self.doors,
            self.table,
            "h",
            backoff=(0, 0, 0, 0),
            settled=inf,
            port_patience=0,
            retry=0,
            look=0,
        )
        self._log = MemoryLog({TOPIC: 1, MODELS: 1, "trainyard.deadletters": 1})
        self.engine = Engine("serving", self.store, ServingHandler(), MemoryReader(self._log), topics=[TOPIC, MODELS])
        self._time = NOW

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Until the end of the block; then the service stops."""
        supervisor = asyncio.create_task(Supervisor(self.engine, self.store, self.world).run())
        try:
            yield
        finally:
            supervisor.cancel()
            await asyncio.wait([supervisor])
            if not supervisor.cancelled() and (error := supervisor.exception()):
                raise error

    async def publish(self, topic: str, key: str, message: Message) -> None:
        self._time += timedelta(seconds=1)
        event = Outgoing(topic, key, message, f"event-{self._time.timestamp()}", "a test", self._time)
        await self.engine.deliver(self._log.append(NewRecord(topic, key.encode(), event.value(), tuple(event.headers()))))

    async def deploy(self, submission: str = "s1", model: str = "mnist", version: int = 1, **fields: Any) -> None:
        await self.publish(MODELS, model, registered(model, version or 1))
        request = a_request(submission, model=model, version=version, overwrite=True, **fields)
        await self.publish(TOPIC, "digits", request)
        await self.engine.command(Command(Decide(request, NOW), f"decision-{submission}"))

    async def delete(self) -> None:
        await self.publish(TOPIC, "digits", pb.DeleteEndpoint(endpoint="digits"))

    @property
    def endpoint(self) -> Endpoint:
        with self.store.reading() as documents:
            found = Shelf(documents).endpoint("digits")
        assert found is not None
        return found

    async def until_state(self, state: int, deployment: int = 1) -> Endpoint:
        await self.until(lambda: (state_of(self.endpoint), self.endpoint.latest.number) == (state, deployment))
        return self.endpoint

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    def told(self) -> list[str]:
        """Names of the facts in the outbox, in order; progress by its words."""
        facts: list[Any] = [decode(it.topic, 0, 0, it.key, it.value, it.headers).message for it in self.engine.unsent(1000)]
        return [fact.why if isinstance(fact, pb.EndpointProgress) else type(fact).__name__ for fact in facts]

    def changes(self) -> list[str]:
        """The same without progress."""
        return [name for name in self.told() if name.startswith(("Endpoint", "Version"))]
