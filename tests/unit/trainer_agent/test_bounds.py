"""What an agent tells fits an event, or is said in several; what cannot is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.chassis.topics import MAX_MESSAGE_BYTES
from services.trainer_agent.adapters.platform_log import PlatformLog
from services.trainer_agent.inputs import Placed
from services.trainer_agent.prepare import _in_parts, _told
from trainyard import _steps
from trainyard._errors import UserErrorException
from trainyard.dataset.v1.dataset_pb2 import DatasetMaterialized, SourceFile
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import DatasetInput


def test_files_that_one_event_has_no_room_for_are_told_in_several_and_none_is_lost() -> None:
    files = [SourceFile(url=f"http://host/{'x' * 200}/{number}", path=f"{number}", sha256="a" * 64) for number in range(10_000)]

    facts = [DatasetMaterialized(name="d" * 255, version=1, agent_id="agent-0", files=some) for some in _in_parts(files)]

    assert [file for fact in facts for file in fact.files] == files
    assert len(facts) == 4
    assert all(fact.ByteSize() < MAX_MESSAGE_BYTES for fact in facts)
    assert list(_in_parts([])) == []


def test_files_that_lie_as_a_list_names_them_are_told_by_the_name_of_the_list() -> None:
    listed = DatasetInput(dataset="d", version=2, manifest_key="key", manifest_sha256="a" * 64, steps=[_steps.take(2)])
    files = [SourceFile(path="a", sha256="a" * 64), SourceFile(path="b", sha256="b" * 64)]

    (by_name,) = _told(listed, Placed(Path(), files, is_as_listed=True), "agent-0")
    (measured,) = _told(listed, Placed(Path(), files), "agent-0")

    assert (by_name.name, by_name.version, by_name.agent_id) == ("d", 2, "agent-0")
    assert (by_name.manifest_key, by_name.manifest_sha256, by_name.count, len(by_name.files)) == ("key", "a" * 64, 2, 0)
    assert list(by_name.steps) == [_steps.take(2)]
    assert list(measured.files) == files and not measured.manifest_key


def test_a_request_that_no_topic_takes_is_refused_before_it_is_sent() -> None:
    nobody: Any = None
    files = [Artifact(path=f"{'x' * 900}/{number}", sha256="a" * 64) for number in range(1_500)]

    with pytest.raises(UserErrorException, match="AddRunFiles takes 1[0-9]{6} bytes") as caught:
        PlatformLog(nobody, nobody, "agent").ask(
            "trainyard.jobs", {"r": job.AddRunFiles(run_id="r", files=ArtifactSet(files=files))}, lambda *_: True
        )

    assert caught.value.code == "RequestTooLarge"
