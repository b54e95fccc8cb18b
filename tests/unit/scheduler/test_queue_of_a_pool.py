"""What the scheduler tells of a pool's queue."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from services.scheduler.api import JobServicer
from tests.unit.scheduler.story import Story, a_submission
from trainyard.job.v1 import job_pb2 as job


async def test_the_runs_that_wait_for_a_pool_are_listed_in_the_order_of_their_turn_with_what_they_ask_for() -> None:
    story = Story().with_pool(max_nodes=1).with_pool(name="other").with_agent()
    for run_id, target in (("first", "pool"), ("second", "pool"), ("elsewhere", "other"), ("third", "pool")):
        story.tell(a_submission(run_id, target=target, priority=3, user="ann"))
    turn = [(story.run("third"), 1, "goes first"), (story.run("second"), 2, "comes after third")]
    servicer = JobServicer(None, SimpleNamespace(queue=lambda pool: iter(turn if pool == "pool" else ())))  # type: ignore[arg-type]

    async def listed(limit: int) -> list[Any]:
        return list((await servicer.ListRuns(job.ListRunsRequest(queue_of="pool", limit=limit), None)).runs)

    assert not story.run("first").waits_for_a_node
    assert [run.run_id for run in await listed(0)] == ["third", "second"]
    assert [(run.run_id, run.position, run.why) for run in await listed(1)] == [("third", 1, "goes first")]
    assert all((run.spec.priority, run.spec.user, run.spec.HasField("source")) == (3, "ann", False) for run in await listed(0))
