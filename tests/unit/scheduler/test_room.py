"""Whatever a client may ask for fits the events that follow from it: one that no topic takes would hold up every run."""

from __future__ import annotations

import pytest

from services.chassis.topics import MAX_MESSAGE_BYTES
from tests.unit.scheduler.story import Story, a_submission, names
from trainyard._artifacts import for_event, together
from trainyard._objects import MemoryObjects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job

LABELS = {f"n{number:02}": "\u20ac" * 3000 for number in range(50)}
"""As large as they may be: 450 kB."""
ROOM_FOR_HEADERS = 4096


@pytest.mark.parametrize("kind", ["tags", "properties"])
def test_labels_for_which_the_offer_of_a_queued_run_has_no_room_are_refused(kind: str) -> None:
    story = Story().with_pool()
    story.tell(a_submission(arguments=[{"text": "x" * 2000}] * 350))

    (told,) = story.tell(job.TagRun(run_id="run", set=LABELS) if kind == "tags" else job.AddRunProperties(run_id="run", properties=LABELS))
    story.with_agent()

    (offer,) = story.said(cluster.LeaseOffered)
    assert names([told]) == ["RunWarned"] and "take 11" in told.message
    assert offer.ByteSize() < MAX_MESSAGE_BYTES - ROOM_FOR_HEADERS


def test_a_request_whose_offer_would_have_no_room_is_rejected() -> None:
    story = Story().with_pool()

    (told,) = story.tell(a_submission(tags=LABELS, arguments=[{"text": "x" * 2000}] * 200))

    assert names([told]) == ["RunRejected"] and "take 13" in told.failure.message


def test_what_is_taken_may_be_as_large_as_is_said() -> None:
    story = Story().with_pool()
    story.tell(a_submission(tags=LABELS))
    story.tell(job.AddRunProperties(run_id="run", properties=dict(list(LABELS.items())[:10])))

    story.with_agent()

    (offer,) = story.said(cluster.LeaseOffered)
    assert 900_000 < offer.ByteSize() < MAX_MESSAGE_BYTES - ROOM_FOR_HEADERS


def test_lists_of_all_members_of_a_gang_fit_the_event_of_its_end() -> None:
    objects, members = MemoryObjects(), 64
    lists = [
        ArtifactSet(files=[Artifact(path=f"outputs/{member}/{file}", sha256="a" * 64, object_key="k" * 100) for file in range(size)])
        for member, size in enumerate([20, 2000] * (members // 2))
    ]

    outputs = together(*(for_event(objects, "runs/r/1", files, members) for files in lists))

    assert outputs.ByteSize() < MAX_MESSAGE_BYTES // 2
