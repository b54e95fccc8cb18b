"""The supervisor and its caretakers on the real engine, with servers that do what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
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
from services.serving.ports import CannotServe, Ports, PortTaken
from services.serving.shelf import Shelf
from services.serving.supervisor import Supervisor
from tests.unit.serving.builders import FAILURE, NOW, a_request, registered
from tests.unit.serving.fakes import FakeEnvironments, FakeFiles, FakeLogs, FakeServers
from trainyard._cloudevents import Outgoing
from trainyard._errors import PlatformUnavailableException
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.event.v1.artifact_pb2 import Failure

HEALTHY, FAILED, UNHEALTHY = pb.ENDPOINT_STATE_HEALTHY, pb.ENDPOINT_STATE_FAILED, pb.ENDPOINT_STATE_UNHEALTHY


class Serving:
    """The service without Kafka and gRPC: events go straight into its engine."""

    def __init__(self) -> None:
        self.store = Store("sqlite://")
        self.files, self.environments, self.servers, self.logs = FakeFiles(), FakeEnvironments(), FakeServers(), FakeLogs()
        self.world = World(
            self.files, self.environments, self.servers, self.logs, "h", backoff=(0, 0, 0, 0), settled=inf, port_patience=0, retry=0
        )
        self.facts: list[Message] = []
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

    async def deploy(self, submission: str = "s1", model: str = "mnist", version: int = 1) -> None:
        await self.publish(MODELS, model, registered(model, version))
        request = a_request(submission, model=model, version=version, overwrite=True)
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
        from services.chassis.records import Record
        from trainyard._cloudevents import decode

        facts: list[Any] = []
        for record in self.engine.unsent(1000):
            at = Record(record.topic, 0, 0, 0, record.key, record.value, record.headers)
            facts.append(decode(at.topic, 0, 0, at.key, at.value, at.headers).message)
        return [fact.why if isinstance(fact, pb.EndpointProgress) else type(fact).__name__ for fact in facts]

    def changes(self) -> list[str]:
        """The same without progress."""
        return [name for name in self.told() if name.startswith(("Endpoint", "Version"))]


async def test_a_deployment_goes_live_under_the_addresses_of_its_server() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        endpoint = await serving.until_state(HEALTHY)

    assert (endpoint.grpc_address, endpoint.scoring_uri) == ("h:7001", "http://h:7002/v1/models/mnist:predict")
    assert serving.told() == [
        "EndpointStarting",
        "fetching 2 files (0.0 MB) of mnist:1",
        "loading mnist:1",
        "VersionLoaded",
        "EndpointLive",
    ]


async def test_an_environment_that_must_be_built_is_told_of() -> None:
    serving = Serving()
    serving.environments.there = False
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)

    assert "building an environment for TensorFlow its default version; the log has the details" in serving.told()


async def test_the_old_server_answers_until_the_new_one_does_and_drains_then() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        before = await serving.until_state(HEALTHY)
        serving.servers.loading.clear()
        await serving.deploy("s2", version=2)
        await serving.until(lambda: len(serving.servers.asked) == 2)
        (old,) = serving.servers.started
        assert old.is_running
        assert serving.endpoint.scoring_uri == before.scoring_uri

        serving.servers.loading.set()
        after = await serving.until_state(HEALTHY, 2)
        await serving.until(lambda: not old.is_running)

        assert old.stopped_after == serving.world.grace
        assert serving.servers.running == ["mnist:2"]
        assert (after.grpc_address, after.scoring_uri) == (before.grpc_address, before.scoring_uri)


async def test_another_model_gets_addresses_of_its_own() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        before = await serving.until_state(HEALTHY)
        await serving.deploy("s2", model="words")
        after = await serving.until_state(HEALTHY, 2)

    assert serving.servers.asked == [Ports(), Ports()]
    assert after.grpc_address != before.grpc_address
    assert after.scoring_uri.endswith("/v1/models/words:predict")


async def test_a_new_version_that_fails_leaves_the_old_one_alone() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)
        serving.files.troubles = [CannotServe(Failure(code="ArtifactCorrupt", message="changed", target="model/saved_model.pb"))]
        await serving.deploy("s2", version=2)
        endpoint = await serving.until_state(FAILED, 2)

        assert serving.servers.running == ["mnist:1"]
        assert endpoint.failure is not None
        assert (endpoint.failure.code, endpoint.failure.target) == ("ArtifactCorrupt", "model/saved_model.pb")
        assert endpoint.up


async def test_what_is_overtaken_while_it_loads_is_given_up() -> None:
    serving = Serving()
    async with serving.supervised():
        serving.servers.loading.clear()
        await serving.deploy()
        await serving.until(lambda: len(serving.servers.asked) == 1)
        await serving.deploy("s2", version=2)
        await serving.until(lambda: len(serving.servers.asked) == 2)
        serving.servers.loading.set()
        await serving.until_state(HEALTHY, 2)

        assert [server.version.id for server in serving.servers.started] == ["mnist:2"]


async def test_a_server_that_dies_is_brought_back_under_the_same_addresses() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        before = await serving.until_state(HEALTHY)
        serving.servers.started[0].die()
        await serving.until(lambda: len(serving.servers.started) == 2)
        after = await serving.until_state(HEALTHY)

    assert serving.changes() == ["EndpointStarting", "VersionLoaded", "EndpointLive", "EndpointUnhealthy", "EndpointLive"]
    assert "starting anew in 0 s (failure 1 in a row): cannot load it" in serving.told()
    assert (after.grpc_address, after.scoring_uri) == (before.grpc_address, before.scoring_uri)


async def test_a_port_that_a_stranger_took_meanwhile_is_given_up_for_another() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        before = await serving.until_state(HEALTHY)
        serving.servers.taken = {7001}
        serving.servers.started[0].die()
        await serving.until(lambda: len(serving.servers.started) == 2)
        after = await serving.until_state(HEALTHY)

    assert after.up
    assert after.grpc_address != before.grpc_address


async def test_a_port_that_a_stranger_takes_at_the_last_moment_is_given_up_for_another() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)
        serving.servers.troubles = [PortTaken("127.0.0.1:7001 is taken")]
        serving.servers.started[0].die()
        await serving.until(lambda: len(serving.servers.started) == 2)

    assert serving.servers.asked == [Ports(), Ports(7001, 7002), Ports()]


async def test_the_fifth_failure_in_a_row_is_the_last() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)
        serving.servers.troubles = [CannotServe(FAILURE)] * 4
        serving.servers.started[0].die()
        endpoint = await serving.until_state(FAILED)

    assert serving.servers.troubles == []
    assert len(serving.servers.started) == 1
    assert endpoint.serving is None
    assert serving.changes()[-2:] == ["EndpointUnhealthy", "EndpointFailed"]


async def test_a_server_that_dies_soon_after_each_start_is_given_up_too() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        for number in range(5):
            await serving.until(lambda number=number: len(serving.servers.started) == number + 1)  # type: ignore[misc]
            serving.servers.started[-1].die()
        await serving.until_state(FAILED)

    assert len(serving.servers.started) == 5


async def test_a_server_that_was_up_long_enough_begins_a_new_row() -> None:
    serving = Serving()
    serving.world = replace(serving.world, settled=0)
    async with serving.supervised():
        await serving.deploy()
        for number in range(20):
            await serving.until(lambda number=number: len(serving.servers.started) == number + 1)  # type: ignore[misc]
            await serving.until_state(HEALTHY)
            serving.servers.started[-1].die()
        await serving.until(lambda: len(serving.servers.started) == 21)
        await serving.until_state(HEALTHY)


async def test_a_new_deployment_that_cannot_be_brought_up_is_not_tried_again() -> None:
    serving = Serving()
    serving.servers.troubles = [CannotServe(FAILURE)]
    async with serving.supervised():
        await serving.deploy()
        endpoint = await serving.until_state(FAILED)

    assert endpoint.failure == FAILURE
    assert len(serving.servers.asked) == 1
    assert serving.logs.lines["digits"][-1] == "-- ModelLoadFailed: cannot load it"


async def test_an_object_store_that_is_away_is_waited_for() -> None:
    serving = Serving()
    serving.files.troubles = [PlatformUnavailableException("it does not answer")] * 3
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)

    waiting = [why for why in serving.told() if why.endswith("waiting for the object store, it does not answer")]
    assert len(waiting) == 1
    assert len(serving.files.asked) == 4


async def test_a_fault_of_ours_fails_the_deployment_with_its_name() -> None:
    serving = Serving()
    serving.environments.trouble = RuntimeError("a bug")
    async with serving.supervised():
        await serving.deploy()
        endpoint = await serving.until_state(FAILED)

    assert endpoint.failure is not None
    assert (endpoint.failure.code, endpoint.failure.message) == ("InternalError", "RuntimeError: a bug")


async def test_after_a_restart_of_the_service_endpoints_come_back_under_the_same_addresses() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        before = await serving.until_state(HEALTHY)
    assert serving.servers.running == []
    assert serving.servers.started[0].stopped_after == 2.0
    assert state_of(serving.endpoint) == HEALTHY  # a stop is not a failure, and nothing was told

    async with serving.supervised():
        await serving.until(lambda: len(serving.servers.started) == 2)
        after = await serving.until_state(HEALTHY)

    assert serving.changes()[-2:] == ["EndpointUnhealthy", "EndpointLive"]
    assert (after.grpc_address, after.scoring_uri) == (before.grpc_address, before.scoring_uri)


async def test_after_a_restart_a_deployment_that_was_starting_starts_again() -> None:
    serving = Serving()
    serving.servers.loading.clear()
    async with serving.supervised():
        await serving.deploy()
        await serving.until(lambda: len(serving.servers.asked) == 1)
    serving.servers.loading.set()

    async with serving.supervised():
        await serving.until_state(HEALTHY)

    assert serving.changes() == ["EndpointStarting", "VersionLoaded", "EndpointLive"]


async def test_a_deleted_endpoints_server_is_drained() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)
        await serving.delete()
        await serving.until(lambda: serving.servers.running == [])

        assert serving.servers.started[0].stopped_after == serving.world.grace
    assert serving.changes()[-1] == "EndpointDeleted"


async def test_what_is_deleted_while_it_loads_never_goes_live() -> None:
    serving = Serving()
    serving.servers.loading.clear()
    async with serving.supervised():
        await serving.deploy()
        await serving.until(lambda: len(serving.servers.asked) == 1)
        await serving.delete()
        serving.servers.loading.set()
        await serving.deploy("s2", version=2)
        await serving.until_state(HEALTHY, 2)

        assert serving.servers.running == ["mnist:2"]


async def test_while_a_new_version_loads_the_old_one_is_still_looked_after() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)
        serving.environments.trouble = None
        slow = asyncio.Event()
        serving.files.troubles = [PlatformUnavailableException("away")] * 1_000_000
        await serving.deploy("s2", version=2)
        await serving.until(lambda: "away" in serving.endpoint.why)
        serving.files.troubles = []
        serving.servers.loading = slow
        await serving.until(lambda: len(serving.servers.asked) == 2)
        serving.servers.started[0].die()
        await serving.until(lambda: len(serving.servers.asked) == 3)
        slow.set()
        await serving.until_state(HEALTHY, 2)
        await serving.until(lambda: serving.servers.running == ["mnist:2"])


async def test_a_fault_while_it_reports_is_survived_by_another_caretaker(monkeypatch: Any) -> None:
    monkeypatch.setattr("services.serving.supervisor._LOOK_SECONDS", 0.01)
    serving = Serving()
    command, faults = serving.engine.command, [RuntimeError("the database is locked")]

    async def sometimes(given: Command) -> None:
        if faults and not isinstance(given.payload, Decide):
            raise faults.pop()
        await command(given)

    monkeypatch.setattr(serving.engine, "command", sometimes)
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)

    assert faults == []
