"""The supervisor and its caretakers on the real engine, with servers that do what the test says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from services.chassis.handler import Command
from services.serving.crowd import Crowd
from services.serving.domain.endpoint import state_of, wanted
from services.serving.domain.reports import WentIdle
from services.serving.handlers import MODELS, TOPIC, Decide
from services.serving.ports import CannotServe, Ports
from tests.unit.serving.builders import FAILURE, registered, scoring, starting
from tests.unit.serving.on_engine import Serving
from trainyard._cloudevents import decode
from trainyard._errors import PlatformUnavailableException
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.model.v1.model_pb2 import AliasMoved

HEALTHY, FAILED = pb.ENDPOINT_STATE_HEALTHY, pb.ENDPOINT_STATE_FAILED


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

        assert [server.content.title for server in serving.servers.started] == ["mnist:2"]


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


async def test_a_deployment_that_somebody_else_wrote_into_the_log_fails_and_the_others_live_on() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.publish(TOPIC, "digits", starting(model="never-registered"))
        endpoint = await serving.until_state(FAILED)
        await serving.publish(TOPIC, "../../etc", pb.EndpointStarting(endpoint="../../etc", deployment=1))
        await serving.deploy("s2")
        await serving.until_state(HEALTHY, 2)

    assert endpoint.failure is not None
    assert endpoint.failure.code == "ModelNotFound"
    assert list(serving.logs.lines) == ["digits"]


# -- code, aliases, keys


async def test_code_answers_at_score_without_grpc_and_its_folder_goes_with_it() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy(scoring=scoring())
        endpoint = await serving.until_state(HEALTHY)
        await serving.deploy("s2", scoring=scoring("other.py"))
        after = await serving.until_state(HEALTHY, 2)
        await serving.until(lambda: serving.files.discarded == [1])

    assert (endpoint.grpc_address, endpoint.scoring_uri) == ("", "http://h:7001/score")
    assert after.scoring_uri == endpoint.scoring_uri
    assert serving.files.asked == ["score.py with mnist:1", "other.py with mnist:1"]
    assert serving.servers.asked == [Ports(), Ports(0, 7001)]


async def test_from_a_model_to_code_the_address_changes() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)
        await serving.deploy("s2", scoring=scoring())
        after = await serving.until_state(HEALTHY, 2)

    assert serving.servers.asked == [Ports(), Ports()]
    assert (after.grpc_address, after.scoring_uri.endswith("/score")) == ("", True)


async def test_a_moved_alias_is_followed_and_the_old_version_answers_meanwhile() -> None:
    serving = Serving()
    await serving.publish(MODELS, "mnist", AliasMoved(model="mnist", alias="champion", version=1))
    async with serving.supervised():
        await serving.deploy(version=0, alias="champion")
        before = await serving.until_state(HEALTHY)
        await serving.publish(MODELS, "mnist", registered(version=2))
        await serving.publish(MODELS, "mnist", AliasMoved(model="mnist", alias="champion", version=2))
        after = await serving.until_state(HEALTHY, 2)

    assert (after.latest.version, after.latest.alias) == (2, "champion")
    facts = [decode(it.topic, 0, 0, it.key, it.value, it.headers) for it in serving.engine.unsent(1000)]
    assert all(fact.causation_id for fact in facts)
    assert after.scoring_uri == before.scoring_uri
    assert serving.changes().count("EndpointStarting") == 2


async def test_who_may_call_is_written_before_a_server_starts() -> None:
    serving = Serving()
    serving.servers.loading.clear()
    async with serving.supervised():
        await serving.deploy(authentication=pb.AUTHENTICATION_KEY)
        await serving.until(lambda: len(serving.servers.asked) == 1)
        assert serving.doors.kept["digits"].settings.authentication == pb.AUTHENTICATION_KEY


async def test_a_server_that_nobody_calls_ends_and_a_call_brings_it_back_under_the_same_address() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy(limits=pb.Limits(idle_seconds=5))
        before = await serving.until_state(HEALTHY)
        (server,) = serving.servers.started
        await serving.engine.command(Command(WentIdle("digits", 1), recurs=True))
        await serving.until(lambda: not server.is_running)
        asleep = serving.endpoint
        await serving.publish(TOPIC, "digits", pb.WakeEndpoint(endpoint="digits"))
        await serving.until(lambda: serving.endpoint.up)

    assert (asleep.asleep, asleep.up, state_of(asleep), wanted(asleep)) == (True, False, HEALTHY, [])
    assert serving.endpoint.scoring_uri == before.scoring_uri
    assert serving.changes()[-3:] == ["EndpointSlept", "EndpointWoken", "EndpointLive"]


async def test_for_want_of_memory_a_server_ends_with_the_reason_and_a_call_brings_it_back() -> None:
    serving = Serving()
    serving.world = replace(serving.world, crowd=Crowd(100, least_awake=0, look=0, pause=0))
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)
        (server,) = serving.servers.started
        server.takes = 101
        await serving.until(lambda: not server.is_running)
        asleep = serving.endpoint
        await serving.publish(TOPIC, "digits", pb.WakeEndpoint(endpoint="digits"))
        await serving.until(lambda: serving.endpoint.up)

    assert (asleep.asleep, asleep.memory_bytes) == (True, 101)
    assert "all servers together take 0 MiB, and their budget is 0 MiB" in asleep.why_asleep
    assert serving.changes()[-3:] == ["EndpointSlept", "EndpointWoken", "EndpointLive"]
    assert serving.servers.running == []  # the service has ended


async def test_one_that_is_called_does_not_sleep_and_one_without_the_setting_never_does() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)
        await serving.publish(TOPIC, "digits", pb.WakeEndpoint(endpoint="digits"))

    assert serving.changes() == ["EndpointStarting", "VersionLoaded", "EndpointLive"]
