"""History as a process on a real log, with SQLite and with PostgreSQL: killed, repeated, fed garbage, rebuilt."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from services.chassis.loop.kafka_client import KafkaReader
from services.chassis.records import NewRecord
from services.history.databases import open_databases
from tests.component.history.conftest import Serving
from tests.component.topic_log import TopicLog
from tests.history_dump import dump
from tests.history_log import (
    AGENTS,
    DRIVER,
    JOBS,
    LOGS,
    METRICS,
    TASKS,
    Log,
    Raw,
    a_file,
    a_gang,
    a_model_of,
    a_pool,
    a_whole_run,
    batch,
    chunk,
    garbage,
    opened,
    queued,
)
from trainyard._objects import MinioObjects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.dataset.v1.dataset_pb2 import DatasetVersionRegistered
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.history.v1 import history_pb2 as pb
from trainyard.history.v1.archive_pb2 import MetricArchive
from trainyard.history.v1.history_pb2_grpc import EventServiceStub, HistoryServiceStub
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import DatasetInput, RunSpec
from trainyard.model.v1.model_pb2 import ModelVersionRegistered

MODELS = "trainyard.models"
pytestmark = [pytest.mark.component, pytest.mark.timeout(300)]


def a_name(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def publish(topic_log: TopicLog, log: Log) -> None:
    """Each topic's stretch once the one before it lies in the log: the broker's time then says the same order as the test."""
    for _, stretch in itertools.groupby(log.records, key=lambda raw: raw.topic):
        topic_log.publish_raw([NewRecord(raw.topic, raw.key, raw.value, tuple(raw.headers)) for raw in stretch])  # type: ignore[arg-type]


def dump_of(url: str) -> str:
    database = open_databases(url).current()
    try:
        return dump(database)
    finally:
        database.close()


def generation_of(url: str) -> int:
    database = open_databases(url).current()
    database.close()
    return database.generation


def numbers(history: HistoryServiceStub, run_id: str, **more: object) -> list[float]:
    answer = history.GetMetrics(pb.GetMetricsRequest(run_id=run_id, **more), timeout=60)  # type: ignore[arg-type]
    return [point.number for run in answer.runs for batch in run.batches for point in batch.points]


def rebuild(history: HistoryServiceStub) -> Sequence[pb.RebuildHistoryResponse]:
    return list(history.RebuildHistory(pb.RebuildHistoryRequest(), timeout=120))


def test_a_killed_service_goes_on_where_it_was_and_a_rebuild_says_the_same_byte_for_byte(
    serving: Serving, database_url: str, topic_log: TopicLog
) -> None:
    prefix = a_name("kill")
    log = Log()
    for number in range(20):
        a_whole_run(log, f"{prefix}-{number}", number + 1, end="completed" if number % 3 else "failed", metrics=10)
    a_gang(log, f"{prefix}-gang", 21)
    a_pool(log, f"{prefix}-pool")
    log.records += log.records[:50]
    garbage(log)
    a_model_of(log, f"{prefix}-1", model=prefix)
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)

        publishing = threading.Thread(target=publish, args=(topic_log, log))
        publishing.start()
        for _ in range(3):
            service.kill()
            service.start()
        publishing.join()

        values = numbers(history, f"{prefix}-7")
        gang = history.GetRun(pb.GetRunRequest(run_id=f"{prefix}-gang"), timeout=60).run
        pool = history.GetPool(pb.GetPoolRequest(name=f"{prefix}-pool"), timeout=60)
        live = dump_of(database_url)
        steps = rebuild(history)
        rebuilt = dump_of(database_url)
    assert values == [1 / (step + 1) for step in range(10)]
    assert steps[-1].done and steps[-1].events == steps[-1].of
    assert rebuilt == live
    assert f"'{prefix}-19'" in live
    assert [(it.outcome, len(it.ranks), it.checkpoint.bytes) for it in gang.attempts][1:] == [
        (pb.Attempt.OUTCOME_RESTARTED, 4, 20),
        (pb.Attempt.OUTCOME_COMPLETED, 4, 20),
    ]
    assert (pool.created.max_nodes, list(pool.agent_ids)) == (8, ["agent-0", "agent-1"])


def test_of_each_name_one_ranks_points_are_preferred_now_and_as_it_was(serving: Serving, database_url: str, topic_log: TopicLog) -> None:
    run_id = a_name("ranks")
    topic_log.publish(JOBS, run_id, opened(run_id))
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)
        for rank, name in ((2, "loss"), (1, "loss"), (3, "only-3")):
            topic_log.publish(METRICS, run_id, batch(run_id, float(rank), name=name, rank=rank))
        early = history.GetRun(pb.GetRunRequest(run_id=run_id), timeout=60).run
        ((place, offset),) = topic_log.publish_raw(_record(METRICS, run_id, batch(run_id, 0.0, rank=0)))
        before = pb.AsOf(place=pb.Place(topic=place.topic, partition=place.partition, offset=offset - 1))

        def preferred(size: int = 0, as_of: pb.AsOf | None = None) -> list[tuple[str, int]]:
            found, token = [], ""
            while True:
                request = pb.GetMetricsRequest(run_id=run_id, preferred_ranks=True, page_size=size, page_token=token, as_of=as_of)
                answer = history.GetMetrics(request, timeout=60)
                found += [(point.name, it.rank) for run in answer.runs for it in run.batches for point in it.points]
                token = answer.next_page_token
                if not token:
                    return found

        now, paged, then = preferred(), preferred(1), preferred(as_of=before)

    assert sorted(now) == sorted(paged) == [("loss", 0), ("only-3", 3)]
    assert sorted(then) == [("loss", 1), ("only-3", 3)]
    assert list(early.metric_names) == ["loss", "only-3"]


def test_a_pool_and_the_policy_are_told_as_they_were(serving: Serving, topic_log: TopicLog) -> None:
    name = a_name("pool")
    with serving() as service:
        history = HistoryServiceStub(service.channel)
        topic_log.publish(AGENTS, name, cluster.PoolCreated(name=name, max_nodes=2))
        topic_log.publish(AGENTS, name, cluster.PoolResized(name=name, agent_ids=["agent-0"], why="one waits"))
        ((place, offset),) = topic_log.publish_raw(_record(AGENTS, name, cluster.PoolUpdated(name=name, max_nodes=5)))
        before = pb.AsOf(place=pb.Place(topic=place.topic, partition=place.partition, offset=offset - 1))
        topic_log.publish(AGENTS, name, cluster.PoolDeleted(name=name))
        topic_log.publish(AGENTS, "policy", cluster.PolicyChanged(policy=cluster.Policy(no_backfill=True)))

        then = history.GetPool(pb.GetPoolRequest(name=name, as_of=before), timeout=60)
        now = history.GetPool(pb.GetPoolRequest(name=name), timeout=60)
        policy = history.GetPolicy(pb.GetPolicyRequest(), timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            history.GetPool(pb.GetPoolRequest(name=f"{name}-not"), timeout=60)

    assert (then.created.max_nodes, list(then.agent_ids), then.deleted) == (2, ["agent-0"], False)
    assert (now.created.max_nodes, list(now.agent_ids), now.deleted) == (5, [], True)
    assert [(turn.what, turn.why) for turn in now.turns][:2] == [("PoolCreated", ""), ("PoolResized", "one waits")]
    assert policy.policy.no_backfill
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_calls_are_answered_and_records_applied_while_history_is_rebuilt(serving: Serving, database_url: str, topic_log: TopicLog) -> None:
    run_id = a_name("busy")
    topic_log.publish(JOBS, run_id, opened(run_id))
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)
        rebuilding = threading.Thread(target=lambda: [rebuild(history) for _ in range(2)])

        rebuilding.start()
        seen = []
        count = 0
        while rebuilding.is_alive() or count < 20:
            topic_log.publish(METRICS, run_id, batch(run_id, float(count), epoch=0))
            count += 1
            seen.append(numbers(history, run_id))
        rebuilding.join()

        generation = generation_of(database_url)
        live = dump_of(database_url)
        rebuild(history)
        assert dump_of(database_url) == live
    assert seen == [[float(number) for number in range(upto + 1)] for upto in range(count)]
    assert generation == 2


def test_a_run_is_shown_as_it_was_at_a_time_and_at_a_record(serving: Serving, topic_log: TopicLog) -> None:
    run_id = a_name("past")
    with serving() as service:
        history = HistoryServiceStub(service.channel)
        topic_log.publish(JOBS, run_id, queued(run_id, experiment=run_id, tags={"a": "1"}))
        before = history.GetRun(pb.GetRunRequest(run_id=run_id), timeout=60).run
        ((place, offset),) = topic_log.publish_raw(_record(JOBS, run_id, job.RunTagged(run_id=run_id, set={"b": "2"})))
        topic_log.publish(JOBS, run_id, job.RunTagged(run_id=run_id, set={"c": "3"}))
        topic_log.publish(METRICS, run_id, batch(run_id, 0.5))
        at_record = pb.AsOf(place=pb.Place(topic=place.topic, partition=place.partition, offset=offset))

        then = history.GetRun(pb.GetRunRequest(run_id=run_id, as_of=pb.AsOf(time=before.last_event_at)), timeout=60).run
        there = history.GetRun(pb.GetRunRequest(run_id=run_id, as_of=at_record), timeout=60).run
        now = history.GetRun(pb.GetRunRequest(run_id=run_id), timeout=60).run
        listed = history.ListRuns(pb.ListRunsRequest(experiment=run_id, tags={"c": ""}, as_of=at_record), timeout=60).runs
        found = history.ListRuns(pb.ListRunsRequest(experiment=run_id, tags={"c": "3"}), timeout=60).runs

    assert dict(then.run.tags) == {"a": "1"}
    assert dict(there.run.tags) == {"a": "1", "b": "2"}
    assert dict(now.run.tags) == {"a": "1", "b": "2", "c": "3"}
    assert (list(there.metric_names), list(now.metric_names)) == ([], ["loss"])
    assert (len(listed), [run.run_id for run in found]) == (0, [run_id])


def test_lists_and_a_log_are_told_as_they_were(serving: Serving, database_url: str, topic_log: TopicLog) -> None:
    """Of experiments, pools, models and the lines of a run: what lay in the log up to a record, and nothing after it."""
    name = a_name("then")
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)
        topic_log.publish(JOBS, f"{name}_1", queued(f"{name}_1", name, 1))
        topic_log.publish(AGENTS, name, cluster.PoolCreated(name=name, max_nodes=2))
        topic_log.publish(MODELS, name, ModelVersionRegistered(model=name, version=1))
        topic_log.publish(LOGS, f"{name}_1", chunk(f"{name}_1", 0, "one"))
        ((place, offset),) = topic_log.publish_raw(_record(LOGS, f"{name}_1", chunk(f"{name}_1", 1, "two")))
        at = pb.AsOf(place=pb.Place(topic=place.topic, partition=place.partition, offset=offset))
        topic_log.publish(LOGS, f"{name}_1", chunk(f"{name}_1", 2, "three"), chunk(f"{name}_1", 0, "again", epoch=2))
        topic_log.publish(JOBS, f"{name}_2", queued(f"{name}_2", name, 2))
        topic_log.publish(AGENTS, name, cluster.PoolDeleted(name=name))
        topic_log.publish(MODELS, name, ModelVersionRegistered(model=name, version=2))

        def told(as_of: pb.AsOf | None) -> tuple[object, ...]:
            answers = history.ReadLog(pb.ReadLogRequest(run_id=f"{name}_1", as_of=as_of), timeout=60)
            lines = [line.text for answer in answers for line in answer.lines]
            experiments = history.ListExperiments(pb.ListExperimentsRequest(page_size=1000, as_of=as_of), timeout=60).experiments
            pools = history.ListPools(pb.ListPoolsRequest(as_of=as_of), timeout=60).pools
            models = history.ListModels(pb.ListModelsRequest(model=name, as_of=as_of), timeout=60).versions
            runs = [it.runs for it in experiments if it.name == name]
            return lines, runs, [it.created.max_nodes for it in pools if it.created.name == name], [it.version for it in models]

        then, now = told(at), told(None)
        with pytest.raises(grpc.RpcError, match="does not go on") as caught:
            list(history.ReadLog(pb.ReadLogRequest(run_id=f"{name}_1", follow=True, as_of=at), timeout=60))

    assert then == (["one", "two"], [1], [2], [1])
    assert now == (["again"], [2], [], [2, 1])
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def _record(topic: str, key: str, message: Message) -> list[NewRecord]:
    from tests.history_log import new_record

    return [new_record(topic, key, message, uuid.uuid4().hex)]


def test_a_moment_that_has_not_come_or_names_no_record_is_refused(serving: Serving, topic_log: TopicLog) -> None:
    run_id = a_name("refused")
    topic_log.publish(JOBS, run_id, opened(run_id))
    future = pb.AsOf()
    future.time.FromSeconds(4_000_000_000)
    nowhere = pb.AsOf(place=pb.Place(topic=JOBS, partition=0, offset=1 << 40))
    elsewhere = pb.AsOf(place=pb.Place(topic="trainyard.jbos", partition=0, offset=0))
    with serving() as service:
        history = HistoryServiceStub(service.channel)

        for as_of, what in ((future, "in the future"), (nowhere, "There is no record"), (elsewhere, "There is no topic")):
            with pytest.raises(grpc.RpcError, match=what) as caught:
                history.GetRun(pb.GetRunRequest(run_id=run_id, as_of=as_of), timeout=60)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError, match=f"alike are: {run_id}") as missing:
            history.GetRun(pb.GetRunRequest(run_id=f"{run_id}x"), timeout=60)
    assert missing.value.code() == grpc.StatusCode.NOT_FOUND


def test_lists_are_paged_newest_first_and_filtered(serving: Serving, database_url: str, topic_log: TopicLog) -> None:
    experiment = a_name("paged")
    log = Log()
    for number in range(1, 8):
        log.say(JOBS, f"{experiment}_{number}", opened(f"{experiment}_{number}", experiment, number, tags={"n": str(number % 2)}))
    log.say(JOBS, f"{experiment}_8", opened(f"{experiment}_8", experiment, 8, parent=f"{experiment}_1", properties={"p": "q"}))
    publish(topic_log, log)
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)

        def ids(**wish: object) -> list[str]:
            found: list[str] = []
            token = ""
            while True:
                request = pb.ListRunsRequest(experiment=experiment, page_size=3, page_token=token, **wish)  # type: ignore[arg-type]
                answer = history.ListRuns(request, timeout=60)
                found += [run.run_id.rpartition("_")[2] for run in answer.runs]
                token = answer.next_page_token
                if not token:
                    return found

        assert ids() == ["8", "7", "6", "5", "4", "3", "2", "1"]
        assert ids(roots_only=True) == ["7", "6", "5", "4", "3", "2", "1"]
        assert ids(tags={"n": "1"}) == ["7", "5", "3", "1"]
        assert ids(properties={"p": ""}) == ["8"]
        assert ids(parent_run_id=f"{experiment}_1") == ["8"]
        assert ids(statuses=[job.RUN_STATUS_COMPLETED]) == []
        assert ids(text="_3") == ["3"]
        (found,) = (it for it in _experiments(history) if it.name == experiment)
        with pytest.raises(grpc.RpcError, match="page_token"):
            history.ListRuns(pb.ListRunsRequest(page_token="bm9uc2Vuc2U="), timeout=60)
    assert found.runs == 8


def _experiments(history: HistoryServiceStub) -> list[pb.Experiment]:
    found: list[pb.Experiment] = []
    answer = history.ListExperiments(pb.ListExperimentsRequest(page_size=2), timeout=60)
    found += answer.experiments
    while answer.next_page_token:
        answer = history.ListExperiments(pb.ListExperimentsRequest(page_size=2, page_token=answer.next_page_token), timeout=60)
        found += answer.experiments
    return found


def test_metrics_are_of_the_newest_attempt_each_batch_once_and_come_in_pages(
    serving: Serving, database_url: str, topic_log: TopicLog
) -> None:
    run_id = a_name("metrics")
    log = Log()
    log.say(JOBS, run_id, queued(run_id))
    log.say(METRICS, run_id, batch(run_id, 9.0))
    sent = log.say(METRICS, run_id, batch(run_id, 0.0, 1.0, 2.0, epoch=2))
    log.say(METRICS, run_id, batch(run_id, 7.0, epoch=2, rank=1))
    log.records.append(sent)
    log.say(METRICS, run_id, batch(run_id, 3.0, epoch=2))
    log.say(JOBS, f"{run_id}-c", opened(f"{run_id}-c", parent=run_id))
    log.say(METRICS, f"{run_id}-c", batch(f"{run_id}-c", 5.0, epoch=0))
    publish(topic_log, log)
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)

        assert numbers(history, run_id) == [0.0, 1.0, 2.0, 7.0, 3.0]
        assert numbers(history, run_id, ranks=[0]) == [0.0, 1.0, 2.0, 3.0]
        assert numbers(history, run_id, all_epochs=True) == [9.0, 0.0, 1.0, 2.0, 7.0, 3.0]
        found: list[tuple[str, float]] = []
        request = pb.GetMetricsRequest(run_id=run_id, recursive=True, page_size=2)
        while True:
            answer = history.GetMetrics(request, timeout=60)
            found += [(run.run_id, point.number) for run in answer.runs for batch in run.batches for point in batch.points]
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                break
    assert found == [(run_id, value) for value in (0.0, 1.0, 2.0, 7.0, 3.0)] + [(f"{run_id}-c", 5.0)]


def test_a_log_is_followed_from_before_its_first_line_to_its_last_over_attempts(serving: Serving, topic_log: TopicLog) -> None:
    run_id = a_name("follow")
    with serving() as service:
        history = HistoryServiceStub(service.channel)
        answers = history.ReadLog(pb.ReadLogRequest(run_id=run_id, follow=True), timeout=60)
        lines = ((line.number, line.text, answer.epoch) for answer in answers for line in answer.lines)

        topic_log.publish(JOBS, run_id, queued(run_id))
        topic_log.publish(LOGS, run_id, chunk(run_id, 0, "one", "two"))
        first = [next(lines), next(lines)]
        topic_log.publish(LOGS, run_id, chunk(run_id, 0, "again", epoch=2), chunk(run_id, 0, "again", epoch=2))
        second = next(lines)
        topic_log.publish(LOGS, run_id, chunk(run_id, 1, "end", epoch=2, last=True))
        rest = list(lines)

        with pytest.raises(grpc.RpcError, match=f"its logs are: {DRIVER}") as caught:
            list(history.ReadLog(pb.ReadLogRequest(run_id=run_id, log="azureml-logs/other.txt"), timeout=60))
        picked = list(history.ReadLog(pb.ReadLogRequest(run_id=run_id, contains="EN"), timeout=60))
    assert first == [(0, "one", 1), (1, "two", 1)]
    assert (second, rest) == ((0, "again", 2), [(1, "end", 2)])
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert [line.text for answer in picked for line in answer.lines] == ["end"]


def test_lineage_goes_from_data_to_endpoint_and_back(serving: Serving, database_url: str, topic_log: TopicLog) -> None:
    run_id, model = a_name("origin"), a_name("net")
    log = Log()
    a_whole_run(log, run_id)
    a_model_of(log, run_id, model)
    log.say(
        "trainyard.datasets", f"{model} part", DatasetVersionRegistered(name=f"{model} part", version=1, based_on=model, based_on_version=4)
    )
    log.say(JOBS, f"{run_id}-next", queued(f"{run_id}-next", resume_from=run_id))
    publish(topic_log, log)
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)

        of_part = history.GetLineage(pb.GetLineageRequest(dataset=pb.DatasetVersion(name=f"{model} part")), timeout=60)
        of_model = history.GetLineage(pb.GetLineageRequest(model=pb.ModelRef(model=model)), timeout=60)
        of_run = history.GetLineage(pb.GetLineageRequest(run_id=run_id), timeout=60)
        models = history.GetRun(pb.GetRunRequest(run_id=run_id), timeout=60).run.models

    edges = {(edge.source, edge.target, edge.how) for edge in of_model.edges}
    assert [(edge.source, edge.target, edge.how) for edge in of_part.edges] == [
        (f"dataset:{model}:4", f"dataset:{model} part:1", "derived")
    ]
    assert (f"run:{run_id}", f"run:{run_id}-next", "resumed") in {(edge.source, edge.target, edge.how) for edge in of_run.edges}
    assert (f"run:{run_id}", f"model:{model}:1", "registered") in edges
    assert ("dataset:digits:2", f"run:{run_id}", "read") in edges
    assert (f"model:{model}:1", "endpoint:web:1", "deployed") in edges
    assert [node.id for node in of_model.nodes] == sorted(node.id for node in of_model.nodes)
    on = {(edge.source, edge.target) for edge in of_run.edges if not edge.target.endswith("-next")}
    assert on == {(source, target) for source, target, _ in edges}
    assert [(ref.model, ref.version) for ref in models] == [(model, 1)]


def test_a_name_for_which_an_index_has_no_room_is_refused_at_most_and_holds_nothing_up(
    serving: Serving, database_url: str, topic_log: TopicLog
) -> None:
    forged, run_id = a_name("forged"), a_name("after")
    log = Log()
    # Random, so that it is not compressed into the room there is.
    spec = RunSpec(inputs=[DatasetInput(name="d", dataset=secrets.token_hex(20_000), version=1)])
    log.say(JOBS, forged, job.RunQueued(run_id=forged, experiment="exp", spec=spec))
    log.say(JOBS, run_id, queued(run_id))
    publish(topic_log, log)

    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)
        found = history.GetRun(pb.GetRunRequest(run_id=run_id), timeout=60).run

    assert found.run.status == job.RUN_STATUS_QUEUED


def test_events_are_subscribed_to_from_the_beginning_from_a_record_and_from_now(serving: Serving, topic_log: TopicLog) -> None:
    run_id = a_name("events")
    with serving() as service:
        events = EventServiceStub(service.channel)
        log = Log()
        a_whole_run(log, run_id)
        publish(topic_log, log)

        whole = _events(events, pb.SubscribeRequest(key=run_id))
        started = next(event for event in whole if event.type == "trainyard.job.v1.RunStarted")
        request = pb.SubscribeRequest(key=run_id, topics=[JOBS], types=["trainyard.job.v1.RunStarted", "trainyard.job.v1.RunCompleted"])
        getattr(request, "from").place.CopyFrom(started.place)
        later = _events(events, request)
        live = events.Subscribe(
            pb.SubscribeRequest(topics=[METRICS], key=run_id, follow=True, types=["trainyard.job.v1.MetricBatch"]), timeout=60
        )
        count = sum(event.place.topic == METRICS for event in whole)
        walk = (event for answer in live for event in answer.events)
        old = [next(walk) for _ in range(count)]
        (new_id,) = topic_log.publish(METRICS, run_id, batch(run_id, 0.1))
        new = next(walk)
        live.cancel()
        with pytest.raises(grpc.RpcError, match="there is: trainyard.jobs") as caught:
            _events(events, pb.SubscribeRequest(topics=["trainyard.job"]))

    times = [event.recorded_at.ToMilliseconds() for event in whole]
    assert times == sorted(times)
    assert len(whole) == len(log.records)
    assert [event.type.rpartition(".")[2] for event in later] == ["RunStarted", "RunCompleted"]
    assert [event.place for event in old] == [event.place for event in whole if event.place.topic == METRICS]
    assert new.id == new_id
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def _events(events: EventServiceStub, request: pb.SubscribeRequest) -> list[pb.Event]:
    return [event for answer in events.Subscribe(request, timeout=60) for event in answer.events]


def test_what_is_written_is_seen_by_the_next_call(serving: Serving, database_url: str, topic_log: TopicLog) -> None:
    run_id = a_name("mine")
    topic_log.publish(JOBS, run_id, opened(run_id))
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)

        for number in range(30):
            topic_log.publish(METRICS, run_id, batch(run_id, float(number), epoch=0))
            assert numbers(history, run_id)[-1] == float(number)

        status = history.GetHistoryStatus(pb.GetHistoryStatusRequest(), timeout=60)
    assert all(place.next_offset == place.end_offset for place in status.applied)
    assert status.events == sum(place.next_offset for place in status.applied)


def test_a_crash_in_a_rebuild_leaves_the_old_database_and_nothing_else(serving: Serving, database_url: str, topic_log: TopicLog) -> None:
    run_id = a_name("crash")
    log = Log()
    a_whole_run(log, run_id, metrics=500)
    publish(topic_log, log)
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)
        live = dump_of(database_url) if numbers(history, run_id) else ""

        answers = history.RebuildHistory(pb.RebuildHistoryRequest(), timeout=60)
        next(answers)
        service.kill()
        service.start()

        assert generation_of(database_url) in (0, 1)
        assert dump_of(database_url) == live
        assert len(numbers(history, run_id)) == 500


def test_what_the_log_no_longer_has_is_carried_over_by_a_rebuild(
    serving: Serving, database_url: str, topic_log: TopicLog, history_kafka: str
) -> None:
    run_id = a_name("old")
    log = Log()
    a_whole_run(log, run_id, metrics=20)
    publish(topic_log, log)
    with serving(database_url) as service:
        history = HistoryServiceStub(service.channel)
        before = numbers(history, run_id)
        live = dump_of(database_url)
        # Also where the log was cut before this database began.
        assert f"'{run_id}'" in live

        drop_all(history_kafka, METRICS, LOGS)
        rebuild(history)

        assert dump_of(database_url) == live
        assert numbers(history, run_id) == before == [1 / (step + 1) for step in range(20)]
        lines = [line.text for answer in history.ReadLog(pb.ReadLogRequest(run_id=run_id), timeout=60) for line in answer.lines]
    assert lines == [*(f"step {step}" for step in range(20)), "bye"]


def test_metrics_that_neither_log_nor_history_has_are_read_from_the_archives_of_agents(
    serving: Serving, topic_log: TopicLog, history_kafka: str, minio_server: tuple[str, str, str], tmp_path: Path
) -> None:
    run_id, child = a_name("kept"), a_name("child")
    objects = MinioObjects(*minio_server, "history-tests")
    objects.make_bucket()
    log, archives = Log(), {0: MetricArchive(), 1: MetricArchive()}
    log.say(JOBS, run_id, queued(run_id))
    log.say(JOBS, child, opened(child, parent=run_id))
    for step in range(20):
        for rank, archive in archives.items():
            one = batch(run_id, float(step), float(rank), rank=rank)
            add(archive, log.say(METRICS, run_id, one))
        add(archives[0], log.say(METRICS, child, batch(child, float(step), epoch=0)))
    for rank, archive in archives.items():
        log.say(TASKS, run_id, uploaded(objects, run_id, f"agent-{rank}", archive))
    gone = Artifact(path="x", object_key=f"runs/{run_id}/1/metrics/gone.binpb", sha256="a" * 64)
    log.say(TASKS, run_id, cluster.OutputsUploaded(run_id=run_id, epoch=1, metrics=gone))
    publish(topic_log, log)
    with serving(f"sqlite:///{tmp_path}/before.db") as service:
        live = metrics_of(HistoryServiceStub(service.channel), run_id)

    drop_all(history_kafka, METRICS)
    with serving(f"sqlite:///{tmp_path}/after.db") as service:
        history = HistoryServiceStub(service.channel)
        lost = numbers(history, run_id)
        rebuild(history)
        rebuilt = metrics_of(history, run_id)
        rebuild(history)
        again = metrics_of(history, run_id)
        topic_log.publish(METRICS, run_id, batch(run_id, 99.0))
        later = numbers(history, run_id)
        status = history.GetHistoryStatus(pb.GetHistoryStatusRequest(), timeout=60)

    assert lost == []
    assert len(live[0][1]) == 80 and live[1] == (child, [(0, "loss", float(step)) for step in range(20)])
    assert rebuilt == again == live
    assert later[-1] == 99.0 and len(later) == 81
    assert all(it.next_offset <= it.end_offset for it in status.applied)


def add(archive: MetricArchive, raw: Raw) -> None:
    """As an agent does with what it sends."""
    event_id = dict(raw.headers)["ce_id"] or b""
    archive.batches.add(event_id=event_id.decode(), at_ms=raw.timestamp, value=raw.value or b"")


def uploaded(objects: MinioObjects, run_id: str, agent_id: str, archive: MetricArchive) -> cluster.OutputsUploaded:
    content = archive.SerializeToString()
    key = f"runs/{run_id}/1/metrics/{agent_id}.binpb"
    objects.put_bytes(key, content)
    kept = Artifact(path="metrics", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), object_key=key)
    return cluster.OutputsUploaded(run_id=run_id, epoch=1, agent_id=agent_id, metrics=kept)


def metrics_of(history: HistoryServiceStub, run_id: str) -> list[tuple[str, list[tuple[int, str, float]]]]:
    """The view of the run's and its children's metrics."""
    answer = history.GetMetrics(pb.GetMetricsRequest(run_id=run_id, recursive=True), timeout=60)
    return [
        (run.run_id, [(batch.rank, point.name, point.number) for batch in run.batches for point in batch.points]) for run in answer.runs
    ]


def drop_all(bootstrap: str, *names: str) -> None:
    """As retention does, only at once."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    reader = KafkaReader(bootstrap)
    ends = {TopicPartition(*place): end for place, end in reader.ends(names).items()}
    admin.delete_records(ends)
    reader.close()
    admin.close()


def test_lines_that_neither_log_nor_history_has_are_read_from_the_archived_file(
    serving: Serving, topic_log: TopicLog, minio_server: tuple[str, str, str]
) -> None:
    run_id = a_name("archived")
    objects = MinioObjects(*minio_server, "history-tests")
    objects.make_bucket()
    file = a_file(DRIVER, run_id)
    objects.put_bytes(file.object_key, "one\ntwo\nthrée\n".encode())
    done = job.RunCompleted(run_id=run_id, epoch=1, outputs=ArtifactSet(files=[file]))
    topic_log.publish(JOBS, run_id, queued(run_id), job.RunStarted(run_id=run_id, epoch=1), done)
    with serving() as service:
        history = HistoryServiceStub(service.channel)

        whole = list(history.ReadLog(pb.ReadLogRequest(run_id=run_id, follow=True), timeout=60))
        part = list(history.ReadLog(pb.ReadLogRequest(run_id=run_id, first_line=1, most_lines=1), timeout=60))

    assert [(line.number, line.text) for answer in whole for line in answer.lines] == [(0, "one"), (1, "two"), (2, "thrée")]
    assert [line.text for answer in part for line in answer.lines] == ["two"]
