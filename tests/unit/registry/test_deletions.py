"""A version that is deployed is not deleted, and one that is deleted is gone: on the real engine over a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.records import Unavailable
from services.registry.deleting import Deleting
from services.registry.domain.model import Leaving
from services.registry.endpoint_shelf import ANSWERED, ASKED, ENDPOINT
from services.registry.endpoint_shelf import TOPIC as ENDPOINTS
from services.registry.handlers import JOBS, TOPIC, LookedAtEndpoints, RegistryHandler, Removed
from services.registry.removing import Removing
from services.registry.shelf import DELETE, KINDS, REMOVE, Shelf
from tests.unit.on_memory import START, OnMemory
from tests.unit.registry.builders import an_upload, artifacts
from trainyard._objects import MemoryObjects
from trainyard.endpoint.v1 import endpoint_pb2 as endpoint
from trainyard.model.v1.model_pb2 import (
    DeleteModelVersion,
    ModelChangeRejected,
    ModelFilesRemoved,
    ModelVersion,
    ModelVersionDeleted,
    ModelVersionLeaving,
    ModelVersionRegistered,
    SetAlias,
    UpdateModelVersion,
)

MODEL, NAME = "mnist", "mnist-svc"
REFERENCE = endpoint.ModelReference(model=MODEL, version=1)
FOLLOWS: Any = {"alias": "champion", "alias_version": 2}


@pytest.fixture
def service() -> Iterator[OnMemory]:
    made = OnMemory("registry", RegistryHandler, [TOPIC, JOBS, ENDPOINTS], [*KINDS, ENDPOINT, ASKED, ANSWERED])
    for version in (1, 2):
        made.publish(TOPIC, MODEL, ModelVersionRegistered(submission_id=f"r{version}", model=MODEL, version=version, digest="d" * 64))
    yield made
    made.close()


def say(service: OnMemory, *messages: Message) -> None:
    for message in messages:
        service.publish(ENDPOINTS, message.endpoint, message)  # type: ignore[attr-defined]


def ask_to_delete(service: OnMemory, version: int = 1, submission: str = "s1", **fields: Any) -> None:
    service.publish(TOPIC, MODEL, DeleteModelVersion(submission_id=submission, model=MODEL, version=version, **fields))


def look(service: OnMemory) -> Any:
    """As the worker does; returns the registry's last word."""
    for content in service.pending(DELETE):
        leaving = codec.loads(content, Leaving)
        service.command(Command(LookedAtEndpoints(leaving.submission_id, service.now()), leaving.event_id, leaving.correlation_id))
    service.flush()
    return service.events(TOPIC)[-1].message


def deploy(version: int = 1, submission: str = "d1") -> endpoint.DeployEndpoint:
    return endpoint.DeployEndpoint(submission_id=submission, endpoint=NAME, model=MODEL, version=version)


def beside(version: int = 1) -> endpoint.EndpointStarting:
    fact = starting(version, 2, "t1")
    fact.beside.percent = 10
    return fact


def split() -> endpoint.UpdateTraffic:
    """Without the model's name, which is that of the endpoint's."""
    return endpoint.UpdateTraffic(submission_id="t1", endpoint=NAME, beside=endpoint.ModelReference(version=1))


def starting(version: int = 1, deployment: int = 1, submission: str = "d1") -> endpoint.EndpointStarting:
    return endpoint.EndpointStarting(submission_id=submission, endpoint=NAME, model=MODEL, version=version, deployment=deployment)


def update() -> endpoint.UpdateEndpoint:
    return endpoint.UpdateEndpoint(submission_id="u1", endpoint=NAME, models=[REFERENCE])


def live(deployment: int = 1) -> endpoint.EndpointLive:
    return endpoint.EndpointLive(endpoint=NAME, deployment=deployment)


def failed(deployment: int = 1) -> endpoint.EndpointFailed:
    return endpoint.EndpointFailed(endpoint=NAME, deployment=deployment)


def test_a_deleted_version_is_in_no_list_and_its_number_is_not_given_again(service: OnMemory) -> None:
    ask_to_delete(service, version=2)

    fact = look(service)

    assert isinstance(fact, ModelVersionDeleted)
    with service.store.reading() as documents:
        shelf = Shelf(documents)
        newest = shelf.newest(MODEL)
        assert newest is not None
        assert (newest.version, shelf.latest(MODEL), shelf.version(MODEL, 2)) == (1, 2, None)
        assert [it.version for it in shelf.latest_of_each()] == [1]
    assert service.pending(DELETE) == []
    assert service.replayed() == service.documents()


@pytest.mark.parametrize(
    ("told", "is_used"),
    [
        ([deploy()], True),
        ([deploy(version=2)], False),
        ([deploy(), starting()], True),
        ([deploy(), starting(), live()], True),
        ([deploy(), starting(), failed()], False),
        ([deploy(), endpoint.EndpointRejected(submission_id="d1", endpoint=NAME)], False),
        ([deploy(), endpoint.EndpointRejected(submission_id="d1", endpoint=NAME), deploy()], False),
        ([starting(), live(), starting(2, 2, "d2")], True),
        ([starting(), live(), starting(2, 2, "d2"), failed(2)], True),
        ([starting(), live(), starting(2, 2, "d2"), live(2)], False),
        ([starting(), live(), starting(2, 2, "d2"), live(2), live(1), starting(1, 1, "d1")], False),
        ([starting(), live(), failed()], False),
        ([starting(), live(), endpoint.EndpointDeleted(endpoint=NAME)], False),
        ([deploy(), endpoint.DeleteEndpoint(endpoint=NAME)], False),
        ([endpoint.DeployEndpoint(submission_id="", endpoint=NAME, model=MODEL, version=1)], False),
        ([endpoint.DeployEndpoint(submission_id="d1", endpoint=NAME, model="other", version=1, more_models=[REFERENCE])], True),
        ([endpoint.UpdateEndpoint(submission_id="d1", endpoint=NAME, models=[REFERENCE])], True),
        ([update(), endpoint.EndpointChanged(submission_id="u1", endpoint=NAME)], False),
        ([starting(), live(), starting(2, 2, "d2"), live(2), endpoint.RollBackEndpoint(submission_id="b1", endpoint=NAME)], True),
        ([starting(), failed(), starting(2, 2, "d2"), live(2), endpoint.RollBackEndpoint(submission_id="b1", endpoint=NAME)], False),
        ([endpoint.RollBackEndpoint(submission_id="b1", endpoint=NAME)], False),
        ([endpoint.UpdateTraffic(submission_id="t1", endpoint=NAME, beside=REFERENCE)], True),
        ([starting(2), live(), beside()], True),
        ([starting(2), live(), beside(), live(2), live()], True),
        ([starting(2), live(), beside(), endpoint.TrafficShifted(submission_id="t1", endpoint=NAME, deployment=2)], True),
        ([starting(2), live(), beside(), live(2), endpoint.TrafficShifted(endpoint=NAME, deployment=0)], False),
        ([starting(2), live(), beside(), live(2), starting(2, 3, "d3"), live(3)], False),
        ([starting(2), live(), beside(), failed(2)], False),
        ([starting(2), live(), beside(), failed()], False),
        ([starting(2, 1, "d2"), live(), beside()], True),
        ([starting(2, 1, "d2"), live(), beside(), live(2)], True),
        ([starting(), live(), beside(2), live(2)], True),
        ([starting(2, 1, "d2"), live(), beside(), live(2), endpoint.TrafficShifted(endpoint=NAME)], False),
        ([starting(2, 1, "d2"), live(), beside(), failed(2)], False),
        ([starting(2, 1, "d2"), live(), beside(), live(2), starting(2, 3, "d3"), live(3)], False),
        ([starting(2, 1, "d2"), live(), split()], True),
        ([starting(2, 1, "d2"), live(), split(), endpoint.TrafficShifted(submission_id="t1", endpoint=NAME)], False),
    ],
)
def test_what_an_endpoint_has_or_is_to_have_is_not_deleted(service: OnMemory, told: list[Message], is_used: bool) -> None:
    say(service, *told)
    ask_to_delete(service)

    fact = look(service)

    if is_used:
        assert isinstance(fact, ModelChangeRejected)
        assert (fact.failure.code, fact.failure.target) == ("ModelInUse", "mnist:1")
        assert f"endpoint {NAME!r}" in fact.failure.message
    else:
        assert isinstance(fact, ModelVersionDeleted)
    assert service.replayed() == service.documents()


@pytest.mark.parametrize(
    ("moves", "told", "is_used"),
    [
        ([1], [endpoint.DeployEndpoint(submission_id="d1", endpoint=NAME, model=MODEL, alias="champion")], True),
        ([2], [endpoint.DeployEndpoint(submission_id="d1", endpoint=NAME, model=MODEL, alias="champion")], False),
        ([2], [endpoint.EndpointStarting(submission_id="d1", endpoint=NAME, model=MODEL, version=2, deployment=1, **FOLLOWS)], False),
        (
            [2, 1, 2, 3],
            [endpoint.EndpointStarting(submission_id="d1", endpoint=NAME, model=MODEL, version=2, deployment=1, **FOLLOWS)],
            True,
        ),
        ([2, 0], [endpoint.EndpointStarting(submission_id="d1", endpoint=NAME, model=MODEL, version=2, deployment=1, **FOLLOWS)], False),
    ],
)
def test_what_an_alias_leads_an_endpoint_to_is_not_deleted(service: OnMemory, moves: list[int], told: list[Message], is_used: bool) -> None:
    service.publish(TOPIC, MODEL, ModelVersionRegistered(submission_id="r3", model=MODEL, version=3))
    for number, version in enumerate(moves):
        service.publish(TOPIC, MODEL, SetAlias(submission_id=f"a{number}", model=MODEL, alias="champion", version=version))
    say(service, *told)
    ask_to_delete(service, with_aliases=True)

    fact = look(service)

    assert isinstance(fact, ModelChangeRejected if is_used else ModelVersionDeleted)


def test_a_deployment_that_is_asked_for_while_the_version_leaves_keeps_it(service: OnMemory) -> None:
    ask_to_delete(service)
    say(service, deploy())

    assert isinstance(look(service), ModelChangeRejected)


def test_a_request_straight_to_a_wrong_key_counts_as_none(service: OnMemory) -> None:
    service.publish(ENDPOINTS, "another", deploy())
    ask_to_delete(service)

    assert isinstance(look(service), ModelVersionDeleted)


def test_two_that_delete_one_version_get_one_deletion_and_a_reason(service: OnMemory) -> None:
    ask_to_delete(service)
    ask_to_delete(service)
    ask_to_delete(service, submission="s2")
    service.flush()

    look(service)

    kinds = [type(event.message) for event in service.events(TOPIC) if event.causation_id]
    assert kinds == [ModelVersionLeaving, ModelChangeRejected, ModelVersionDeleted]


def test_a_restart_in_the_middle_of_a_deletion_ends_it(service: OnMemory) -> None:
    ask_to_delete(service)
    service.flush(crash=True)
    service.restart()
    assert service.replayed() == service.documents()

    assert isinstance(look(service), ModelVersionDeleted)


def test_a_registration_and_a_change_may_have_one_submission_id(service: OnMemory) -> None:
    service.publish(TOPIC, MODEL, UpdateModelVersion(submission_id="r1", model=MODEL, version=1, tags={"a": "b"}))
    service.flush()

    with service.store.reading() as documents:
        version = Shelf(documents).version(MODEL, 1)
    assert version is not None and dict(version.tags) == {"a": "b"}
    assert service.replayed() == service.documents()


def test_an_alias_is_shown_with_its_version_and_moves_at_once(service: OnMemory) -> None:
    for number, version in enumerate((1, 2)):
        service.publish(TOPIC, MODEL, SetAlias(submission_id=f"a{number}", model=MODEL, alias="champion", version=version))
    service.flush()

    with service.store.reading() as documents:
        shown: list[ModelVersion] = list(Shelf(documents).versions(MODEL))
    assert [(it.version, list(it.aliases)) for it in shown] == [(2, ["champion"]), (1, [])]
    assert service.replayed() == service.documents()


async def test_the_endpoints_are_read_only_after_the_beginning_lies_in_the_log() -> None:
    done: list[str] = []

    async def in_log() -> None:
        done.append("told")

    async def caught_up(topic: str) -> None:
        done.append(topic)

    leaving = Leaving("s1", MODEL, 1, False, "e1", "c1")
    command = await Deleting(in_log, caught_up, lambda: START)(codec.dumps(leaving))

    assert done == ["told", ENDPOINTS]
    assert command == Command(LookedAtEndpoints("s1", START), "e1", "c1")


async def test_a_log_that_does_not_take_the_beginning_ends_no_deletion() -> None:
    async def not_in_log() -> None:
        raise Unavailable("away")

    async def caught_up(topic: str) -> None:
        raise AssertionError("it looked too early")

    with pytest.raises(Unavailable):
        await Deleting(not_in_log, caught_up)(codec.dumps(Leaving("s1", MODEL, 1, False, "e1", "c1")))


# -- files that go


def an_uploaded(service: OnMemory, submission: str, model: str, contents: dict[str, bytes]) -> ModelVersionRegistered:
    request = an_upload(contents, submission, model)
    fact = ModelVersionRegistered(submission_id=submission, model=model, version=1, artifacts=request.files)
    fact.digest = request.files.files[0].object_key.split("/")[2]
    service.publish(TOPIC, model, fact)
    return fact


def test_files_that_nothing_else_has_go_and_that_is_told(service: OnMemory) -> None:
    objects = MemoryObjects()
    for file in an_uploaded(service, "u1", "alone", {"model/a": b"aa", "model/b": b"b"}).artifacts.files:
        objects.put_bytes(file.object_key, b"x" * file.size_bytes)
    service.publish(TOPIC, "alone", DeleteModelVersion(submission_id="s1", model="alone", version=1))
    fact = look(service)
    assert isinstance(fact, ModelVersionDeleted) and fact.files_go

    (content,) = service.pending(REMOVE)
    asyncio.run(Removing(objects)(content))
    # Killed before it told of it, it removes them once more.
    command = asyncio.run(Removing(objects)(content))

    assert list(objects.list("")) == []
    assert command.payload == Removed("s1")


def test_the_end_of_a_removal_is_told_once(service: OnMemory) -> None:
    an_uploaded(service, "u1", "alone", {"model/a": b"aa", "model/b": b"b"})
    service.publish(TOPIC, "alone", DeleteModelVersion(submission_id="s1", model="alone", version=1))
    look(service)
    for _ in range(2):
        service.command(Command(Removed("s1"), "e1"))
    service.flush()

    (told,) = [event.message for event in service.events(TOPIC) if isinstance(event.message, ModelFilesRemoved)]
    assert (told.model, told.version, told.files, told.size_bytes) == ("alone", 1, 2, 3)
    assert service.pending(REMOVE) == []
    assert service.replayed() == service.documents()


def test_files_that_another_version_has_or_waits_for_stay(service: OnMemory) -> None:
    contents = {"model/a": b"same"}
    for number, model in enumerate(("one", "two")):
        an_uploaded(service, f"u{number}", model, contents)
    service.publish(TOPIC, "three", an_upload(contents, "u3", "three"))

    for number, model in enumerate(("one", "two")):
        service.publish(TOPIC, model, DeleteModelVersion(submission_id=f"s{number}", model=model, version=1))
        fact = look(service)
        assert isinstance(fact, ModelVersionDeleted) and not fact.files_go


def test_a_runs_files_stay_with_the_run(service: OnMemory) -> None:
    fact = ModelVersionRegistered(submission_id="u1", model="of-a-run", version=1, digest="e" * 64, artifacts=artifacts("outputs/model/a"))
    service.publish(TOPIC, "of-a-run", fact)
    service.publish(TOPIC, "of-a-run", DeleteModelVersion(submission_id="s1", model="of-a-run", version=1))

    told = look(service)

    assert isinstance(told, ModelVersionDeleted) and not told.files_go
