"""What was true of a model and of an endpoint at any moment."""

from __future__ import annotations

from typing import Any

import pytest

from services.history import model_views
from services.history.databases import Database
from services.history.domain.moment import Moment
from tests.history_log import Log
from tests.unit.history.test_any_order import filled
from trainyard.endpoint.v1 import endpoint_pb2 as endpoint
from trainyard.history.v1.history_pb2 import GetModelResponse, ModelRef
from trainyard.model.v1 import model_pb2 as pb

MODELS, ENDPOINTS = "trainyard.models", "trainyard.endpoints"


@pytest.fixture
def log() -> Log:
    """Two versions; the alias moves from the first to the second, which takes the endpoint over; the first is deleted."""
    log = Log()

    def model(fact: Any) -> None:
        log.say(MODELS, "net", fact)

    def svc(fact: Any) -> None:
        log.say(ENDPOINTS, "web", fact)

    model(pb.ModelVersionRegistered(model="net", version=1, digest="1" * 64, tags={"a": "1"}, signatures=[pb.Signature(name="s")]))  # 1
    model(pb.AliasMoved(model="net", alias="champion", version=1))  # 2
    svc(endpoint.EndpointStarting(endpoint="web", model="net", version=1, deployment=1))  # 3
    svc(endpoint.EndpointLive(endpoint="web", deployment=1))  # 4
    model(pb.ModelVersionUpdated(model="net", version=1, tags={"a": "2"}, description="better"))  # 5
    model(pb.ModelVersionRegistered(model="net", version=2, digest="2" * 64))  # 6
    model(pb.StageChanged(model="net", version=2, stage=pb.MODEL_STAGE_PRODUCTION))  # 7
    model(pb.AliasMoved(model="net", alias="champion", version=2, previous_version=1))  # 8
    svc(endpoint.EndpointStarting(endpoint="web", model="net", version=2, deployment=2))  # 9
    svc(endpoint.EndpointLive(endpoint="web", deployment=2))  # 10
    svc(endpoint.EndpointLive(endpoint="web", deployment=1))  # 11: late, and said of what was replaced
    model(pb.ModelVersionDeleted(model="net", version=1, digest="1" * 64))  # 12
    svc(endpoint.EndpointUnhealthy(endpoint="web", deployment=2, why="gone"))  # 13
    svc(endpoint.EndpointLive(endpoint="web", deployment=2))  # 14
    svc(endpoint.EndpointDeleted(endpoint="web"))  # 15
    return log


def after(log: Log, count: int) -> Moment:
    """The moment of the record of that number."""
    return Moment(log.records[count - 1].timestamp)


def view(database: Database, moment: Moment | None = None, **asked: Any) -> GetModelResponse | None:
    with database.reading() as connection:
        return model_views.model_view(connection, ModelRef(model="net", **asked), moment)


def there(found: GetModelResponse | None) -> GetModelResponse:
    assert found is not None
    return found


def test_a_version_is_told_as_it_was_at_any_moment(log: Log) -> None:
    database = filled(log.records, 4)

    early, late = (there(view(database, after(log, count), version=1)).version for count in (4, 11))
    now = there(view(database, version=1)).version

    assert (dict(early.tags), early.description, list(early.aliases), early.signatures[0].name) == ({"a": "1"}, "", ["champion"], "s")
    assert (dict(late.tags), late.description, list(late.aliases)) == ({"a": "2"}, "better", [])
    assert now.HasField("deleted_at") and early.digest == now.digest == "1" * 64


def test_an_alias_and_the_latest_mean_what_they_meant_then(log: Log) -> None:
    database = filled(log.records, 100)

    aliases = [there(view(database, after(log, count), alias="champion")).version.version for count in (2, 7, 8, 15)]
    latest = [there(view(database, after(log, count))).version.version for count in (1, 5, 6, 15)]

    assert (aliases, latest) == ([1, 1, 2, 2], [1, 1, 2, 2])
    assert view(database, after(log, 1), alias="champion") is None
    assert view(database, after(log, 5), version=2) is None


def test_what_became_of_a_version_is_told_in_order(log: Log) -> None:
    found = there(view(filled(log.records, 100), version=1))

    assert [turn.what for turn in found.turns] == [
        "ModelVersionRegistered", "AliasMoved", "ModelVersionUpdated", "AliasMoved", "ModelVersionDeleted",
    ]  # fmt: skip
    assert "points at version 2, and pointed at version 1" in found.turns[3].why
    assert [turn.why for turn in there(view(filled(log.records, 100), version=2)).turns][1] == "Production"


def test_which_endpoints_answered_with_it_and_when(log: Log) -> None:
    database = filled(log.records, 100)

    def stretches(**asked: Any) -> list[tuple[int, int, int]]:
        start = log.records[0].timestamp - 1
        return [
            (it.deployment, getattr(it, "from").ToMilliseconds() - start, it.until.ToMilliseconds() - start if it.HasField("until") else 0)
            for it in there(view(database, **asked)).services
        ]

    assert stretches(version=1) == [(1, 4, 10)]
    assert stretches(version=2) == [(2, 10, 15)]
    assert stretches(version=1, moment=after(log, 9)) == [(1, 4, 0)]


def test_an_endpoint_is_told_with_the_versions_that_it_had(log: Log) -> None:
    database = filled(log.records, 100)
    with database.reading() as connection:
        found = model_views.endpoint_view(connection, "web", None)
        before = model_views.endpoint_view(connection, "web", after(log, 2))

    assert before is None and found is not None
    assert [(it.deployment, [(ref.model, ref.version) for ref in it.models]) for it in found.services] == [
        (1, [("net", 1)]),
        (2, [("net", 2)]),
    ]
    assert [turn.what for turn in found.turns][-3:] == ["EndpointUnhealthy", "EndpointLive", "EndpointDeleted"]
    assert found.turns[0].why == "deployment 1: net:1"


def test_endpoints_of_a_moment_are_those_that_were_not_deleted_with_what_answered_then(log: Log) -> None:
    log.say(ENDPOINTS, "other", endpoint.EndpointStarting(endpoint="other", model="net", version=1, deployment=1))
    database = filled(log.records, 100)

    def there(moment: Moment | None) -> list[tuple[str, str, list[int]]]:
        with database.reading() as connection:
            found = model_views.endpoints_view(connection, moment).endpoints
        return [(it.name, it.last.what, [service.deployment for service in it.services]) for it in found]

    assert there(after(log, 2)) == []
    assert there(after(log, 3)) == [("web", "EndpointStarting", [])]
    assert there(after(log, 10)) == [("web", "EndpointLive", [2])]
    assert there(None) == [("other", "EndpointStarting", [])]


def test_code_with_several_models_is_told_with_all_of_them() -> None:
    log = Log()
    for name in ("net", "words"):
        log.say(MODELS, name, pb.ModelVersionRegistered(model=name, version=1))
    more = [endpoint.ModelReference(model="net", version=1)]
    log.say(ENDPOINTS, "web", endpoint.EndpointStarting(endpoint="web", model="words", version=1, deployment=1, more_models=more))
    log.say(ENDPOINTS, "web", endpoint.EndpointLive(endpoint="web", deployment=1))

    assert [it.endpoint for it in there(view(filled(log.records, 10), version=1)).services] == ["web"]


def test_a_second_deployment_answers_beside_the_first_until_the_traffic_shifts_back() -> None:
    log = Log()
    second = endpoint.EndpointStarting(endpoint="web", model="net", version=2, deployment=2, beside=endpoint.TrafficSplit(percent=10))
    for fact in (
        endpoint.EndpointStarting(endpoint="web", model="net", version=1, deployment=1),
        endpoint.EndpointLive(endpoint="web", deployment=1),
        second,
        endpoint.EndpointLive(endpoint="web", deployment=2),
        endpoint.TrafficShifted(endpoint="web", deployment=2, split=second.beside),
        endpoint.TrafficShifted(endpoint="web"),
        endpoint.EndpointLive(endpoint="web", deployment=1),
    ):
        log.say(ENDPOINTS, "web", fact)

    with filled(log.records, 100).reading() as connection:
        found = model_views.endpoint_view(connection, "web", None)

    assert found is not None
    assert [(it.deployment, it.HasField("until")) for it in found.services] == [(1, False), (2, True)]
    assert [turn.why for turn in found.turns][-3:] == ["deployment 2: 10 % of the calls", "one deployment alone", "deployment 1"]


def test_a_fact_under_another_models_key_is_refused_and_counts_for_none() -> None:
    log = Log()
    log.say(MODELS, "net", pb.ModelVersionRegistered(model="net", version=1))
    log.say(MODELS, "net", pb.StageChanged(model="other", version=1, stage=pb.MODEL_STAGE_ARCHIVED))

    assert there(view(filled(log.records, 10), version=1)).version.stage == pb.MODEL_STAGE_UNSPECIFIED


def test_a_version_that_takes_a_part_of_the_calls_has_its_own_stretch_of_time() -> None:
    log = Log()
    for version in (1, 2):
        log.say(MODELS, "net", pb.ModelVersionRegistered(model="net", version=version))
    split = endpoint.TrafficSplit(percent=10)
    for fact in (
        endpoint.EndpointStarting(endpoint="web", model="net", version=1, deployment=1),
        endpoint.EndpointLive(endpoint="web", deployment=1),
        endpoint.EndpointStarting(endpoint="web", model="net", version=2, deployment=2, beside=split),
        endpoint.EndpointLive(endpoint="web", deployment=2),
        endpoint.TrafficShifted(endpoint="web", deployment=2, split=split),
        endpoint.EndpointLive(endpoint="web", deployment=1),
        endpoint.TrafficShifted(endpoint="web"),
    ):
        log.say(ENDPOINTS, "web", fact)
    database = filled(log.records, 100)

    (first,), (second,) = (there(view(database, version=version)).services for version in (1, 2))
    with database.reading() as connection:
        turns = model_views.endpoint_view(connection, "web", None).turns  # type: ignore[union-attr]

    assert (first.deployment, first.HasField("until"), second.deployment, second.HasField("until")) == (1, False, 2, True)
    assert second.until.ToMilliseconds() - getattr(second, "from").ToMilliseconds() == 3
    assert [turn.why for turn in turns if turn.what == "TrafficShifted"] == ["deployment 2: 10 % of the calls", "one deployment alone"]
