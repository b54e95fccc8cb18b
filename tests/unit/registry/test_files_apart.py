"""Models of files that lie apart from a run's outputs: registered by its script while it goes on, or uploaded to an opened run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from services.registry.domain import registration
from services.registry.domain.registration import Asked, Known
from services.registry.domain.runs import Run, evolve
from tests.unit.registry.builders import RUN, a_request, artifacts, completed, queued
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import Snapshot, Source
from trainyard.model.v1.model_pb2 import ModelVersionRegistered

AT = datetime(2026, 1, 1, tzinfo=UTC)


def a_file(path: str = "model/w", sha256: str = "a" * 64, key: str = f"uploads/{RUN}/blobs/x") -> Artifact:
    return Artifact(path=path, size_bytes=1, sha256=sha256, object_key=key)


def answered(run: Run | None, *files: Artifact) -> Any:
    request = a_request(path="", files=ArtifactSet(files=files))
    (fact,) = registration.conclude(Known(0, Asked(request, "e1", "m"), None), run, None, AT)
    return fact


def running() -> Run:
    run = evolve(evolve(None, queued()), job.RunStarted(run_id=RUN, epoch=1))
    assert run is not None
    return run


def test_a_script_registers_files_while_its_run_goes_on() -> None:
    fact = answered(running(), a_file("model/w"), a_file("model/a"))

    assert isinstance(fact, ModelVersionRegistered)
    assert [file.path for file in fact.artifacts.files] == ["model/a", "model/w"]
    assert (fact.lineage.run_id, fact.lineage.snapshot_id, fact.lineage.epoch) == (RUN, "5" * 64, 1)


@pytest.mark.parametrize(
    "file",
    [
        a_file("../w"),
        a_file(sha256="short"),
        a_file(key="runs/other/1/w"),
        a_file(key=f"uploads/{RUN}/../other/w"),
        a_file(key=f"uploads/{RUN}2/w"),
    ],
)
def test_files_that_are_not_the_runs_own_are_refused(file: Artifact) -> None:
    failure = registration.invalid(a_request(path="", files=ArtifactSet(files=[file])))

    assert failure is not None and failure.code == "UserError"


def test_a_path_twice_is_refused() -> None:
    assert registration.invalid(a_request(path="", files=ArtifactSet(files=[a_file(), a_file()]))) is not None


def test_files_of_a_run_that_nobody_knows_are_refused() -> None:
    assert answered(None, a_file()).failure.code == "RunNotFound"


def test_files_added_to_a_run_may_be_registered_by_path_once_it_has_ended() -> None:
    added = job.RunFilesAdded(run_id=RUN, files=ArtifactSet(files=[a_file("late/w")]))
    run = evolve(evolve(running(), completed("outputs/a")), added)
    assert run is not None

    (fact,) = registration.conclude(Known(0, Asked(a_request(path="late"), "e1", "m"), None), run, None, AT)

    assert [file.path for file in fact.artifacts.files] == ["late/w"]  # type: ignore[union-attr]
    assert [file.path for file in run.artifacts.files] == ["late/w", "outputs/a"]


def test_an_output_counts_before_an_upload_of_its_path() -> None:
    added = job.RunFilesAdded(run_id=RUN, files=ArtifactSet(files=[a_file("outputs/a")]))

    run = evolve(evolve(running(), added), completed("outputs/a"))

    assert run is not None and run.artifacts == artifacts("outputs/a")


def test_what_a_lost_attempt_uploaded_gives_way_to_the_next_until_the_end() -> None:
    def added(digest: str, epoch: int) -> Any:
        return job.RunFilesAdded(run_id=RUN, files=ArtifactSet(files=[a_file("late/w", digest * 64)]), epoch=epoch)

    def after(*facts: Any) -> list[str]:
        run: Run | None = running()
        for fact in facts:
            run = evolve(run, fact)
        assert run is not None
        return [file.sha256[0] for file in run.artifacts.files if file.path == "late/w"]

    second = (job.RunRequeued(run_id=RUN, lost_epoch=1), job.RunPreparing(run_id=RUN, epoch=2))
    assert after(added("a", 1), *second, added("b", 2)) == ["b"]
    assert after(added("a", 1), *second, added("b", 2), added("a", 1)) == ["b"]
    assert after(added("a", 0), added("b", 0)) == ["a"]
    assert after(added("a", 1), *second, completed("outputs/a", epoch=2), added("b", 2)) == ["a"]


def test_an_opened_run_has_a_lineage_too() -> None:
    opened = job.RunOpened(run_id="open", experiment="exp", source=Source(snapshot=Snapshot(id="7" * 64)))

    run = evolve(evolve(None, opened), job.RunCompleted(run_id="open"))

    assert run is not None and run.has_ended
    assert (run.lineage.experiment, run.lineage.snapshot_id) == ("exp", "7" * 64)
