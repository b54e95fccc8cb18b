"""Lists and logs as they were: what lies in the log up to a moment, and nothing after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from services.chassis.grpc_server import Code, Refused
from services.history import model_views, pool_views, views
from services.history.api import HistoryServicer
from services.history.databases import Database
from services.history.domain.moment import Moment, Spot
from services.history.following import Following
from services.history.projecting import apply_with_care
from tests.history_log import AGENTS, DRIVER, JOBS, LOGS, Log, Raw, a_file, chunk, opened, queued
from trainyard._objects import MemoryObjects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import ArtifactSet, Failure
from trainyard.history.v1 import history_pb2 as pb
from trainyard.job.v1 import job_pb2 as job
from trainyard.model.v1.model_pb2 import AliasMoved, ModelVersionDeleted, ModelVersionRegistered

MODELS = "trainyard.models"
pytestmark = pytest.mark.timeout(60)


class Still:
    """Nothing more comes."""

    positions: dict[Any, int] = {}

    async def caught_up(self, _: float | None) -> None:
        """It is."""


@pytest.fixture
def database() -> Iterator[Database]:
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False})
    yield Database(0, engine, None, lambda _: None)
    engine.dispose()


def after(raw: Raw) -> Moment:
    """The moment that the record was written."""
    return Moment(raw.timestamp, Spot(raw.timestamp, raw.topic, raw.partition, raw.offset))


def told(experiments: list[pb.Experiment]) -> list[tuple[str, int]]:
    return [(it.name, it.runs) for it in experiments]


def test_experiments_have_the_runs_that_had_begun(database: Database) -> None:
    log = Log()
    log.say(JOBS, "a_1", queued("a_1", "a", 1))
    log.say(JOBS, "a_2", job.RunRejected(run_id="a_2", experiment="a", failure=Failure(message="no such pool")))
    first = log.say(JOBS, "a_1", job.RunTagged(run_id="a_1", set={"x": "1"}))
    log.say(JOBS, "a_3", opened("a_3", "a", 3))
    second = log.say(JOBS, "b_1", opened("b_1", "b", 1))
    log.say(JOBS, "b_1", job.RunCompleted(run_id="b_1"))
    log.say(JOBS, "c_1", queued("c_1", "c", 1))
    apply_with_care(database, log.records)

    with database.reading() as connection:
        before = views.experiments(connection, "", Moment(1), 10)
        then = views.experiments(connection, "", after(first), 10)
        later = views.experiments(connection, "", Moment(second.timestamp), 10)
        page = views.experiments(connection, "a", Moment(second.timestamp), 10)
        now = views.experiments(connection, "", None, 10)

    assert (before, told(then)) == ([], [("a", 1)])
    assert then[0].last_run_at.ToMilliseconds() == 1_700_000_000_001
    assert (told(later), told(page)) == ([("a", 2), ("b", 1)], [("b", 1)])
    assert told(now) == [("a", 2), ("b", 1), ("c", 1)]


def test_pools_are_those_that_were_there_with_their_nodes(database: Database) -> None:
    log = Log()
    log.say(AGENTS, "policy", cluster.PolicyChanged(policy=cluster.Policy(no_backfill=True)))
    log.say(AGENTS, "cpu", cluster.PoolCreated(name="cpu", max_nodes=2))
    log.say(AGENTS, "gone", cluster.PoolCreated(name="gone", max_nodes=1))
    then = log.say(AGENTS, "cpu", cluster.PoolResized(name="cpu", agent_ids=["agent-0"]))
    log.say(AGENTS, "gone", cluster.PoolDeleted(name="gone"))
    log.say(AGENTS, "cpu", cluster.PoolUpdated(name="cpu", max_nodes=5))
    log.say(AGENTS, "new", cluster.PoolCreated(name="new"))
    apply_with_care(database, log.records)

    with database.reading() as connection:
        was = pool_views.pools_view(connection, after(then)).pools
        now = pool_views.pools_view(connection, None).pools

    assert [(it.created.name, it.created.max_nodes, list(it.agent_ids)) for it in was] == [("cpu", 2, ["agent-0"]), ("gone", 1, [])]
    assert [(it.created.name, it.created.max_nodes) for it in now] == [("cpu", 5), ("new", 0)]
    assert not was[0].turns


def test_models_are_those_that_were_there_in_pages(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    for number in (1, 2, 3):
        log.say(MODELS, "a", ModelVersionRegistered(model="a", version=number))
    log.say(MODELS, "b", ModelVersionRegistered(model="b", version=1))
    then = log.say(MODELS, "a", AliasMoved(model="a", alias="best", version=2))
    log.say(MODELS, "a", AliasMoved(model="a", alias="best", version=3, previous_version=2))
    log.say(MODELS, "a", ModelVersionDeleted(model="a", version=2))
    log.say(MODELS, "c", ModelVersionRegistered(model="c", version=1))
    apply_with_care(database, log.records)
    monkeypatch.setattr(model_views.models, "MOST", 2)

    def pages(moment: Moment | None, name: str = "", newest_only: bool = False) -> list[tuple[str, int, list[str]]]:
        found: list[tuple[str, int, list[str]]] = []
        last: list[Any] | None = None
        with database.reading() as connection:
            while True:
                view = model_views.models_view(connection, name, moment, last, newest_only=newest_only)
                assert 0 < len(view.versions) <= 2
                found += [(it.model, it.version, list(it.aliases)) for it in view.versions]
                if not view.next_page_token:
                    return found
                last = [view.versions[-1].model, view.versions[-1].version]

    assert pages(after(then)) == [("a", 3, []), ("a", 2, ["best"]), ("a", 1, []), ("b", 1, [])]
    assert pages(None) == [("a", 3, ["best"]), ("a", 1, []), ("b", 1, []), ("c", 1, [])]
    assert pages(after(then), newest_only=True) == [("a", 3, []), ("b", 1, [])]
    assert pages(None, name="a") == [("a", 3, ["best"]), ("a", 1, [])]


def asking(database: Database, objects: MemoryObjects) -> Callable[..., Any]:
    following = Following(Still(), Still(), objects)  # type: ignore[arg-type]

    async def look(action: Callable[[sa.Connection], Any]) -> Any:
        with database.reading() as connection:
            return action(connection)

    async def lines(moment: Moment | None, **asked: Any) -> list[tuple[int, str, int]]:
        answers = following.lines(pb.ReadLogRequest(run_id="r", **asked), look, moment)
        return [(line.number, line.text, answer.epoch) async for answer in answers for line in answer.lines]

    return lines


async def test_a_log_has_the_lines_and_the_attempt_that_it_had(database: Database) -> None:
    objects, log = MemoryObjects(), Log()
    begun = log.say(JOBS, "r", queued("r"))
    one = log.say(LOGS, "r", chunk("r", 0, "one"))
    two = log.say(LOGS, "r", chunk("r", 1, "two", last=True))
    log.say(LOGS, "r", chunk("r", 0, "new", epoch=2, last=True))
    apply_with_care(database, log.records)
    lines = asking(database, objects)

    assert await lines(after(one)) == [(0, "one", 1)]
    assert await lines(after(two), contains="W") == [(1, "two", 1)]
    assert await lines(Moment(two.timestamp), first_line=1) == [(1, "two", 1)]
    assert await lines(None) == [(0, "new", 2)]
    with pytest.raises(Refused, match=f"no log '{DRIVER}' of rank 0 at that moment") as no_log:
        await lines(after(begun))
    with pytest.raises(Refused, match="There is no run 'r' at that moment") as no_run:
        await lines(Moment(1))
    assert [it.value.status for it in (no_log, no_run)] == [Code.NOT_FOUND, Code.NOT_FOUND]


async def test_the_archived_file_of_an_ended_run_is_read_only_for_moments_after_the_end(database: Database) -> None:
    objects, log = MemoryObjects(), Log()
    file = a_file(DRIVER)
    objects.put_bytes(file.object_key, b"one\ntwo\nthree\n")
    log.say(JOBS, "r", queued("r"))
    log.say(JOBS, "r", job.RunStarted(run_id="r", epoch=1))
    two = log.say(LOGS, "r", chunk("r", 1, "two"))
    end = log.say(JOBS, "r", job.RunCompleted(run_id="r", epoch=1, outputs=ArtifactSet(files=[file])))
    apply_with_care(database, log.records)
    lines = asking(database, objects)

    assert await lines(after(two)) == [(1, "two", 1)]
    assert [text for _, text, _ in await lines(after(end))] == ["one", "two", "three"]


async def test_a_log_as_it_was_is_not_followed() -> None:
    request = pb.ReadLogRequest(run_id="r", follow=True, as_of=pb.AsOf(place=pb.Place(topic=JOBS)))

    with pytest.raises(Refused, match="does not go on") as caught:
        async for _ in HistoryServicer(None).ReadLog(request, None):  # type: ignore[arg-type]
            pass

    assert caught.value.status == Code.INVALID_ARGUMENT
