"""What a server is bound by: what was asked for, and of what was not the wishes of the versions that it has."""

from __future__ import annotations

from typing import Any

import pytest

from services.chassis.handler import Command
from services.serving.domain.model_version import ModelVersion, bounds
from services.serving.handlers import MODELS, TOPIC, Decide
from tests.unit.serving.builders import NOW, a_split, a_version, registered
from tests.unit.serving.on_engine import Serving
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.model.v1.model_pb2 import AliasMoved, Requirements

GIB = 1 << 30


def a_wish(cpu_cores: float = 0.0, memory_bytes: int = 0) -> ModelVersion:
    return ModelVersion("mnist", 1, "", a_version().files, cpu_cores=cpu_cores, memory_bytes=memory_bytes)


@pytest.mark.parametrize(
    ("asked", "wishes", "found"),
    [
        (None, [], (0, 0)),
        (None, [(2, GIB)], (2, GIB)),
        (pb.Limits(), [(2, GIB)], (2, GIB)),
        (pb.Limits(cpu_cores=1), [(2, GIB)], (1, GIB)),
        (pb.Limits(memory_bytes=4 * GIB), [(2, GIB)], (2, 4 * GIB)),
        (None, [(1.5, GIB), (0.5, 2 * GIB)], (2, 3 * GIB)),
        (None, [(2, GIB), (0, GIB)], (0, 2 * GIB)),
        (None, [(2, 0), (1, GIB)], (3, 0)),
        (None, [(float("nan"), GIB)], (0, GIB)),
        (None, [(float("inf"), 0)], (0, 0)),
        (None, [(-1, 0), (3, 0)], (0, 0)),
        (None, [(5000, (1 << 64) - 1)], (1024, 1 << 50)),
    ],
)
def test_what_was_asked_for_counts_and_then_what_all_versions_wish(
    asked: pb.Limits | None, wishes: list[tuple[float, int]], found: tuple[float, int]
) -> None:
    told = bounds(asked, [a_wish(*wish) for wish in wishes])

    assert (told.cpu_cores, told.memory_bytes) == found


def test_idle_seconds_stay_and_nothing_that_was_asked_for_changes() -> None:
    asked = pb.Limits(idle_seconds=60)

    assert bounds(asked, [a_wish(2)]) == pb.Limits(cpu_cores=2, idle_seconds=60)
    assert asked == pb.Limits(idle_seconds=60)


async def aliased(serving: Serving, version: int) -> None:
    await serving.publish(MODELS, "mnist", AliasMoved(model="mnist", alias="champion", version=version))


async def a_champion(serving: Serving, **fields: Any) -> None:
    """Version 1 wishes 1 core and 1 GiB, version 2 twice that; the endpoint follows an alias that points at version 1."""
    for version in (1, 2):
        wish = Requirements(cpus=version, memory_bytes=version * GIB)
        await serving.publish(MODELS, "mnist", registered(version=version, requirements=wish))
    await aliased(serving, 1)
    await serving.deploy(version=0, alias="champion", **fields)
    await serving.until_state(pb.ENDPOINT_STATE_HEALTHY)


async def test_a_moved_alias_brings_the_wishes_of_the_new_version_and_a_request_that_names_none_has_its_own() -> None:
    serving = Serving()
    async with serving.supervised():
        await a_champion(serving)
        await aliased(serving, 2)
        await serving.until_state(pb.ENDPOINT_STATE_HEALTHY, 2)

    found = [(it.content.limits.cpu_cores, it.content.limits.memory_bytes, it.content.alias) for it in serving.servers.started]
    assert found == [(1, GIB, "champion"), (2, 2 * GIB, "champion")]


async def test_explicit_limits_outlast_the_move_and_the_rest_follows_it() -> None:
    serving = Serving()
    async with serving.supervised():
        await a_champion(serving, limits=pb.Limits(memory_bytes=8 * GIB))
        await aliased(serving, 2)
        await serving.until_state(pb.ENDPOINT_STATE_HEALTHY, 2)

    assert [(it.content.limits.cpu_cores, it.content.limits.memory_bytes) for it in serving.servers.started] == [(1, 8 * GIB), (2, 8 * GIB)]


async def test_a_version_beside_the_first_has_its_own_wishes_and_answers_to_the_same_label() -> None:
    serving = Serving()
    async with serving.supervised():
        await a_champion(serving)
        request = a_split(version=2)
        await serving.publish(TOPIC, "digits", request)
        await serving.engine.command(Command(Decide(request, NOW), "decision-split"))
        await serving.until(lambda: len(serving.servers.started) == 2)

    second = serving.servers.started[1].content
    assert (second.title, second.limits.cpu_cores, second.alias) == ("mnist:2", 2, "champion")


async def test_a_version_that_was_named_has_no_label() -> None:
    serving = Serving()
    async with serving.supervised():
        await serving.deploy()
        await serving.until_state(pb.ENDPOINT_STATE_HEALTHY)

    assert serving.servers.started[0].content.alias == ""
