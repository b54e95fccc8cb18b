"""Servers that die and are brought back: where, how often, and when that is given up."""

from __future__ import annotations

from dataclasses import replace

from services.serving.ports import CannotServe, Ports, PortTaken
from tests.unit.serving.builders import FAILURE, content
from tests.unit.serving.fakes import FakeServer
from tests.unit.serving.on_engine import Serving
from trainyard.endpoint.v1 import endpoint_pb2 as pb

HEALTHY, FAILED = pb.ENDPOINT_STATE_HEALTHY, pb.ENDPOINT_STATE_FAILED


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


# -- what a service that was killed left running


async def left_running(serving: Serving) -> FakeServer:
    """Live, and its service was killed: the server of deployment 1 goes on."""
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(HEALTHY)
    serving.servers.started.clear()
    server = serving.servers.left["digits", 1] = FakeServer(content(), Ports(7001, 7002))
    return server


async def test_a_server_that_goes_on_is_taken_over_and_nothing_is_said_of_it() -> None:
    serving = Serving()
    server = await left_running(serving)
    before = serving.changes()

    async with serving.supervised():
        await serving.until(lambda: serving.servers.left == {})
        await serving.deploy("s2", version=2)
        after = await serving.until_state(HEALTHY, 2)
        await serving.until(lambda: not server.is_running)

    # Only deployment 2 went live; it was asked to join the ports of the one that was taken over.
    assert serving.changes()[len(before) :] == ["EndpointStarting", "VersionLoaded", "EndpointLive"]
    assert after.grpc_address == "h:7001"


async def test_one_that_is_taken_over_and_dies_is_brought_back_as_any_other() -> None:
    serving = Serving()
    server = await left_running(serving)
    before = len(serving.changes())

    async with serving.supervised():
        await serving.until(lambda: serving.servers.left == {})
        server.die()
        await serving.until(lambda: serving.changes()[before:] == ["EndpointUnhealthy", "EndpointLive"])

    assert serving.servers.has_left


async def test_one_that_answered_before_its_service_could_say_so_is_live_once_it_is_taken_over() -> None:
    serving = Serving()
    serving.servers.left["digits", 1] = FakeServer(content(), Ports(7001, 7002))
    await serving.deploy()

    async with serving.supervised():
        endpoint = await serving.until_state(HEALTHY)

    assert serving.changes() == ["EndpointStarting", "VersionLoaded", "EndpointLive"]
    assert (endpoint.grpc_address, serving.servers.asked, serving.files.asked) == ("h:7001", [], [])


async def test_what_was_left_of_a_deployment_that_nobody_wants_is_ended() -> None:
    serving = Serving()
    server = FakeServer(content(), Ports(7001, 7002))
    serving.servers.left["gone", 3] = server

    async with serving.supervised():
        await serving.until(lambda: not server.is_running)
