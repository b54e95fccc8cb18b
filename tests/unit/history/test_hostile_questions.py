"""Questions and facts that are made to break history, or to read through it what is not theirs."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from services.chassis.grpc_server import Code, Refused
from services.history import views
from services.history.api import HistoryServicer
from services.history.databases import Database
from services.history.following import Following
from services.history.projecting import apply_with_care
from tests.history_log import JOBS, Log, opened
from trainyard._objects import MemoryObjects
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.history.v1 import history_pb2 as pb
from trainyard.job.v1 import job_pb2 as job

pytestmark = [pytest.mark.security, pytest.mark.timeout(60)]
SECRET = "snapshots/blobs/" + "a" * 64


def token(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode()


@pytest.mark.parametrize("given", [
    token(b'[1, "\\ud800"]'), token(b"[" * 100_000), token(b'[1e999, "a"]'), token(b'[true, "a"]'), token(b"[" + b"9" * 5000 + b', "a"]'), token(b"{}"),
    "\u00e9", "=", "A" * 5_000_000, token(b'[9223372036854775808, "a"]'),
])  # fmt: skip
async def test_a_page_token_that_no_call_gave_is_refused(given: str) -> None:
    with pytest.raises(Refused, match="page_token") as caught:
        await HistoryServicer(None).ListRuns(pb.ListRunsRequest(page_token=given), None)  # type: ignore[arg-type]

    assert caught.value.status == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("asked", [
    {"tags": {f"t{number}": "" for number in range(51)}}, {"properties": {f"p{number}": "" for number in range(51)}},
    {"text": "a" * 1001}, {"statuses": range(1001)}, {"page_size": 2**31 - 1},
])  # fmt: skip
async def test_a_wish_that_would_be_too_large_a_statement_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        await HistoryServicer(None).ListRuns(pb.ListRunsRequest(**asked), None)  # type: ignore[arg-type]

    assert caught.value.status == Code.INVALID_ARGUMENT and caught.value.failure.target in asked


async def test_metrics_of_very_many_ranks_are_refused() -> None:
    with pytest.raises(Refused, match="ranks takes 1000 at most"):
        await HistoryServicer(None).GetMetrics(pb.GetMetricsRequest(run_id="r", ranks=range(1001)), None)  # type: ignore[arg-type]


def a_following(*files: Artifact, objects: MemoryObjects) -> tuple[Following, Any]:
    """Of a run "r" that has ended and has these files."""
    log = Log()
    log.say(JOBS, "r", opened("r"))
    log.say(JOBS, "r", job.RunFilesAdded(run_id="r", files=ArtifactSet(files=files)))
    log.say(JOBS, "r", job.RunCompleted(run_id="r"))
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False})
    database = Database(0, engine, None, lambda _: None)
    apply_with_care(database, log.records)

    async def look(action: Callable[[sa.Connection], Any]) -> Any:
        with database.reading() as connection:
            return action(connection)

    class Still:
        positions: dict[Any, int] = {}

        async def caught_up(self, _: float | None) -> None:
            """It is."""

    return Following(Still(), Still(), objects), look  # type: ignore[arg-type]


async def lines(following: Following, look: Any, **asked: Any) -> list[tuple[int, str]]:
    answers = following.lines(pb.ReadLogRequest(run_id="r", **asked), look)
    return [(line.number, line.text) async for answer in answers for line in answer.lines]


@pytest.mark.parametrize(
    "key", [SECRET, "datastores/files/x", "uploads/other/a", "runs/other/1/a", f"uploads/r/../../{SECRET}", "uploads/r"]
)
async def test_a_forged_file_of_a_run_reads_nothing_that_lies_with_others(key: str) -> None:
    objects = MemoryObjects()
    objects.put_bytes(key, b"a secret\n")
    following, look = a_following(Artifact(path="logs/mine", object_key=key), objects=objects)

    with pytest.raises(Refused) as caught:
        await lines(following, look, log="logs/mine")

    assert (caught.value.status, caught.value.failure.code) == (Code.NOT_FOUND, "LogNotFound")


@pytest.mark.parametrize(("content", "told"), [
    (b"", []), (b"a", ["a"]), (b"a\n", ["a"]), (b"a\n\nb", ["a", "", "b"]), (b"\n", [""]), (b"\xff\n", ["\ufffd"]), (b"x\n" * 700_000, ["x"] * 700_000),
])  # fmt: skip
async def test_an_archived_log_is_read_block_by_block_and_says_the_same(content: bytes, told: list[str]) -> None:
    objects = MemoryObjects()
    objects.put_bytes("uploads/r/a", content)
    following, look = a_following(Artifact(path="logs/mine", object_key="uploads/r/a"), objects=objects)

    whole = await lines(following, look, log="logs/mine")
    some = await lines(following, look, log="logs/mine", first_line=1, most_lines=2)

    assert whole == list(enumerate(told))
    assert some == list(enumerate(told))[1:3]


async def test_a_file_without_an_end_of_line_is_cut_to_what_a_message_holds() -> None:
    objects = MemoryObjects()
    objects.put_bytes("uploads/r/a", b"x" * (20 << 20))
    following, look = a_following(Artifact(path="logs/mine", object_key="uploads/r/a"), objects=objects)

    ((number, text),) = await lines(following, look, log="logs/mine")

    assert (number, set(text)) == (0, {"x"}) and len(text) <= 2 << 20


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253_402_300_800])
def test_a_forged_time_of_a_run_leaves_the_list_of_experiments_readable(seconds: int) -> None:
    log = Log()
    forged = opened("forged", experiment="mine")
    forged.opened_at.seconds, forged.opened_at.nanos = seconds, 2**31 - 1
    log.say(JOBS, "forged", forged)
    log.say(JOBS, "fine", opened("fine", experiment="yours"))
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False})
    database = Database(0, engine, None, lambda _: None)
    apply_with_care(database, log.records)

    with database.reading() as connection:
        found = views.experiments(connection, "", None, 10)

    assert [experiment.name for experiment in found] == ["mine", "yours"]
