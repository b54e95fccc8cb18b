import hashlib

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from services.registry.domain.runs import Run, evolve
from tests.unit.registry.builders import RUN, artifacts, canceled, completed, failed, queued
from trainyard._lineage import environment_id
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import EnvironmentSpec


def after(*events: Message) -> Run:
    run = None
    for event in events:
        run = evolve(run, event)
    assert run is not None
    return run


def started(epoch: int = 1) -> job.RunStarted:
    return job.RunStarted(run_id=RUN, epoch=epoch)


def lost(epoch: int = 1) -> job.RunRequeued:
    return job.RunRequeued(run_id=RUN, lost_epoch=epoch)


def test_a_queued_run_tells_where_it_comes_from() -> None:
    run = after(queued())

    assert (run.id, run.status, run.epoch, run.has_ended) == (RUN, "Queued", 0, False)
    assert (run.lineage.run_id, run.lineage.experiment, run.lineage.snapshot_id) == (RUN, "tf-mnist", "5" * 64)
    assert [(it.name, it.version) for it in run.lineage.datasets] == [("mnist", 2)]
    assert run.lineage.environment_id == environment_id(queued().spec.environment)


def test_an_environments_id_is_the_digest_of_its_specification() -> None:
    one = EnvironmentSpec(framework="tensorflow", environment_variables={"A": "1", "B": "2"})
    same = EnvironmentSpec(framework="tensorflow", environment_variables={"B": "2", "A": "1"})
    other = EnvironmentSpec(framework="tensorflow", environment_variables={"A": "1", "B": "3"})

    assert environment_id(one) == environment_id(same) == hashlib.sha256(one.SerializeToString(deterministic=True)).hexdigest()
    assert environment_id(one) != environment_id(other)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (job.RunPreparing(run_id=RUN, epoch=1), "Preparing"),
        (job.GangFormed(run_id=RUN, epoch=1), "Preparing"),
        (started(), "Running"),
        (job.RunFinalizing(run_id=RUN, epoch=1), "Finalizing"),
        (job.RunCancelRequested(run_id=RUN), "CancelRequested"),
        (lost(), "Queued"),
        (job.RunScaling(run_id=RUN), "Queued"),
    ],
)
def test_a_run_on_its_way_has_a_status_and_no_end(event: Message, status: str) -> None:
    run = after(queued(), event)

    assert (run.status, run.has_ended) == (status, False)


@pytest.mark.parametrize(
    ("end", "status"), [(completed("outputs/a"), "Completed"), (failed("outputs/a"), "Failed"), (canceled("outputs/a"), "Canceled")]
)
def test_however_a_run_ends_its_files_count(end: Message, status: str) -> None:
    run = after(queued(), started(), end)

    assert (run.status, run.has_ended, run.epoch, run.artifacts) == (status, True, 1, artifacts("outputs/a"))


def test_a_run_that_ended_before_its_first_attempt_has_no_files() -> None:
    assert after(queued(), canceled(epoch=0)).has_ended
    assert after(queued(), failed(epoch=0)).has_ended
    rejected = after(job.RunRejected(run_id=RUN, experiment="tf-mnist"))
    assert (rejected.status, rejected.has_ended, rejected.artifacts) == ("Rejected", True, ArtifactSet())


def test_only_the_first_end_counts() -> None:
    run = after(queued(), completed("outputs/first"), failed("outputs/second"), completed("outputs/third", epoch=2), lost(), started(3))

    assert (run.status, run.epoch, run.artifacts) == ("Completed", 1, artifacts("outputs/first"))


@pytest.mark.parametrize("late", [completed("outputs/late"), failed("outputs/late"), canceled("outputs/late"), started(), lost()])
def test_what_speaks_for_an_older_attempt_than_the_newest_seen_is_ignored(late: Message) -> None:
    run = after(queued(), started(1), started(2))

    assert evolve(run, late) is run


@pytest.mark.parametrize("late", [completed("outputs/late"), failed("outputs/late"), started()])
def test_a_lost_attempt_can_no_longer_end_the_run(late: Message) -> None:
    run = after(queued(), started(1), lost(1))

    assert evolve(run, late) is run
    assert after(queued(), started(1), lost(1), late, completed("outputs/a", epoch=2)).artifacts == artifacts("outputs/a", epoch=2)


def test_a_run_canceled_between_two_attempts_has_ended_without_the_lost_ones_files() -> None:
    run = after(queued(), started(1), lost(1), canceled("outputs/late", epoch=1))

    assert (run.status, run.has_ended, run.artifacts) == ("Canceled", True, ArtifactSet())


def test_a_run_that_was_never_queued_does_not_come_to_be() -> None:
    assert evolve(None, completed("outputs/a")) is None
    assert evolve(None, started()) is None


EPOCHS = st.integers(0, 4)
EVENTS = st.one_of(
    st.just(queued()),
    st.builds(started, EPOCHS),
    st.builds(lost, EPOCHS),
    st.builds(lambda epoch: completed("outputs/a", epoch=epoch), EPOCHS),
    st.builds(lambda epoch: failed("outputs/b", epoch=epoch), EPOCHS),
    st.builds(lambda epoch: canceled("outputs/c", epoch=epoch), EPOCHS),
    st.just(job.RunCancelRequested(run_id=RUN)),
)


@given(st.lists(EVENTS, max_size=30))
def test_in_any_order_epochs_never_fall_ended_runs_never_change_and_files_are_the_last_epochs(events: list[Message]) -> None:
    run = evolve(None, queued())
    for event in events:
        before, run = run, evolve(run, event)
        assert before is not None
        assert run is not None
        assert run.epoch >= before.epoch
        assert run is before or not before.has_ended
        assert all(f"/{run.epoch}/" in file.object_key for file in run.artifacts.files)
        assert not run.artifacts.files or run.epoch > run.lost_epoch or run.epoch == 0
