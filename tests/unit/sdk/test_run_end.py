"""What a client does about a run that has ended: its details while history is away, files that come late."""

from __future__ import annotations

import hashlib
import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.sdk.test_client_run import a_run, a_state
from trainyard import ActivityFailedException, UserErrorException
from trainyard._artifacts import for_event
from trainyard._details import details
from trainyard._errors import PlatformUnavailableException, RunNotFoundException
from trainyard._objects import MemoryObjects
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.history.v1.history_pb2 import RunView
from trainyard.job.v1 import job_pb2


@pytest.mark.parametrize("away", [PlatformUnavailableException("History is away."), RunNotFoundException("History has lost it.")])
def test_a_run_whose_history_does_not_answer_still_ends_with_its_details_or_its_own_failure(
    monkeypatch: pytest.MonkeyPatch, away: Exception
) -> None:
    def run_view(*_: Any, **__: Any) -> Any:
        raise away

    failed = a_state(job_pb2.RUN_STATUS_FAILED, failure=Failure(code="ScriptFailed", message="boom"), warnings=["careful"])
    runs = [a_run(monkeypatch, [failed]) for _ in range(2)]
    monkeypatch.setattr("trainyard._history.run_view", run_view)

    with pytest.raises(ActivityFailedException, match="boom"):
        runs[0].wait_for_completion()
    told = runs[1].wait_for_completion(raise_on_error=False)

    assert (told["status"], told["error"]["error"]["message"], told["logFiles"]) == ("Failed", "boom", {})
    assert [it["message"].partition(":")[0] for it in told["warnings"]] == [
        "careful",
        "The logs and what else history knows are missing here",
    ]


def test_the_exception_of_a_failed_run_and_its_details_tell_the_same_error_with_run_attempt_node_and_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = a_state(job_pb2.RUN_STATUS_FAILED, epoch=2, agent_ids=["agent-0"], failure=Failure(code="ScriptFailed", message="boom"))
    failed.ended_at.FromJsonString("2026-01-02T03:04:05Z")
    run = a_run(monkeypatch, [failed])

    with pytest.raises(ActivityFailedException) as caught:
        run.wait_for_completion()

    told = json.loads(str(caught.value).partition("ErrorResponse\n")[2])
    assert told["correlation"] == {"operation": "exp_1", "request": "exp_1/2"}
    assert (told["location"], told["time"]) == ("agent-0", "2026-01-02T03:04:05Z")
    assert told == caught.value.serialize() == details(RunView(run=failed), {})["error"]


def test_a_late_file_never_takes_the_place_of_an_output_that_a_list_in_the_object_store_names(monkeypatch: pytest.MonkeyPatch) -> None:
    objects, told = MemoryObjects(), []
    monkeypatch.setattr("trainyard._artifacts.MOST_BYTES_IN_EVENT", 0)
    known = ArtifactSet(files=[Artifact(path="outputs/w", sha256=hashlib.sha256(b"w").hexdigest(), object_key="k")])
    run = a_run(monkeypatch, [])
    run.experiment.workspace = SimpleNamespace(_objects=objects)  # type: ignore[assignment]
    run._message = a_state(job_pb2.RUN_STATUS_COMPLETED, outputs=for_event(objects, "runs/exp_1/1", known))
    monkeypatch.setattr(run, "_tell", lambda method, request: told.append(request.files.files[0].path))

    run.upload_file("outputs/w", io.BytesIO(b"w"))
    run.upload_file("late", io.BytesIO(b"x"))
    with pytest.raises(UserErrorException) as caught:
        run.upload_file("outputs/w", io.BytesIO(b"x"))

    assert (caught.value.code, caught.value.target) == ("PathIsTaken", "outputs/w")
    assert told == ["outputs/w", "late"]
