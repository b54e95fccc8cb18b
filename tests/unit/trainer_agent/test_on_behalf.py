"""What a script asks its agent for, answered by the scheduler's real rules; and what a hostile script asks for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from services.trainer_agent.layout import Folders
from services.trainer_agent.on_behalf import OnBehalf
from tests.unit.scheduler.story import Story
from trainyard._errors import PlatformUnavailableException
from trainyard._objects import MemoryObjects
from trainyard.cluster.v1.cluster_pb2 import LeaseOffered
from trainyard.event.v1.artifact_pb2 import Artifact
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.telemetry_pb2 import MetricBatch, MetricPoint
from trainyard.model.v1.model_pb2 import ModelVersionRegistered, RegisterModelVersion


class Platform:
    """The log as one process: requests about runs go through the scheduler's domain, models are registered at once."""

    def __init__(self) -> None:
        self.story = Story().with_run_running()
        self.story.tell(job.TagRun(run_id="run", set={"given": "yes"}))
        self.asked: list[Any] = []
        self.metrics: list[Any] = []
        self.away = False
        self.discarded = False

    def ask(
        self, topic: str, requests: Mapping[str, Message], is_answer: Callable[[bool, Message], bool], since: float | None = None
    ) -> Mapping[str, Message]:
        if self.away:
            raise PlatformUnavailableException("Kafka does not answer")
        return {key: self._one(request, is_answer, since) for key, request in requests.items()}

    def _one(self, request: Any, is_answer: Callable[[bool, Message], bool], since: float | None) -> Message:
        self.asked.append(request)
        earlier = [] if since is None else self.messages("trainyard.jobs", request.run_id, since)
        if isinstance(request, RegisterModelVersion):
            told = [ModelVersionRegistered(submission_id=request.submission_id, model=request.model, version=1)]
        else:
            told = self.story.tell(request)
        answers = [message for message in earlier if is_answer(False, message)] + [message for message in told if is_answer(True, message)]
        return answers[0]

    def messages(self, topic: str, key: str, since: float) -> list[Message]:
        if topic == "trainyard.metrics":
            return self.metrics
        return [fact.message for fact in self.story.facts if fact.topic == topic and fact.key == key]


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders.make(tmp_path, "agent-0", "run", 1)
    (made.code / "outputs").mkdir()
    return made


@pytest.fixture
def on_behalf(platform: Platform, objects: MemoryObjects, folders: Folders) -> OnBehalf:
    async def flush() -> None:
        """Nothing waits."""

    offer = LeaseOffered(run_id="run", epoch=1, experiment="exp", tags={"given": "yes"})
    offer.spec.inputs.add(name="digits", dataset="mnist", version=3)
    offer.spec.inputs.add(name="loose")
    return OnBehalf(offer, folders, platform, objects, flush, lambda: platform.discarded)


async def ok(on_behalf: OnBehalf, ask: str, **fields: Any) -> Any:
    answer = await on_behalf.answer({"ask": ask, **fields})
    assert "ok" in answer, answer
    return answer["ok"]


async def refused(on_behalf: OnBehalf, ask: Any, **fields: Any) -> dict[str, str]:
    answer = await on_behalf.answer({"ask": ask, **fields})
    assert "error" in answer, answer
    return dict(answer["error"])


async def test_reads_see_what_was_written(on_behalf: OnBehalf) -> None:
    await ok(on_behalf, "tag", set={"a": "1"}, removed=["given"])
    await ok(on_behalf, "add_properties", properties={"p": "1"})

    seen = await ok(on_behalf, "view")

    assert seen == {"tags": {"a": "1"}, "properties": {"p": "1"}, "files": [], "status": "Running"}


async def test_a_refusal_of_the_scheduler_is_what_the_script_sees(on_behalf: OnBehalf) -> None:
    await ok(on_behalf, "add_properties", properties={"p": "1"})

    error = await refused(on_behalf, "add_properties", properties={"p": "2"})

    assert error["code"] == "UserError" and "never changes" in error["message"]


@pytest.mark.security
@pytest.mark.parametrize("fields", [
    {"cpus": math.nan, "memory_in_gb": math.inf}, {"memory_in_gb": math.nan}, {"gpus": math.inf}, {"gpus": 2**70}, {"cpus": 10**400},
    {"memory_in_gb": -1}, {"model": "\ud800"}, {"tags": {"a": "\ud800"}}, {"path": ["outputs"]}, {"path": "outputs/../../x"}, {"path": None},
])  # fmt: skip
async def test_numbers_and_texts_that_are_none_are_refused_with_a_type(
    on_behalf: OnBehalf, folders: Folders, fields: dict[str, Any]
) -> None:
    (folders.code / "outputs" / "a").write_text("a")

    error = await refused(on_behalf, "register_model", **{"model": "m", "path": "outputs/a", **fields})

    assert error["code"] in ("UserError", "ModelPathNotFound")


@pytest.mark.security
async def test_what_breaks_inside_is_an_answer_that_tells_nothing_of_the_agent(
    on_behalf: OnBehalf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(OnBehalf, "_facts", breaks)

    error = await refused(on_behalf, "view")

    assert error["code"] == "NodeError" and "secret" not in error["message"]


async def test_children_are_opened_closed_and_spoken_for(on_behalf: OnBehalf, platform: Platform) -> None:
    first, second = await ok(on_behalf, "open_children", children=[{"tags": {"n": "1"}}, {"display_name": "two"}])
    await ok(on_behalf, "tag", run=first, set={"a": "1"}, removed=[])
    await ok(on_behalf, "close", run=second, status="FAILED", failure={"code": "Mine", "message": "boom", "last_lines": ["x"]})

    assert (await ok(on_behalf, "view", run=first))["tags"] == {"n": "1", "a": "1"}
    assert (await ok(on_behalf, "view", run=second))["status"] == "Failed"
    assert platform.story.run(second).failure.message == "boom"  # type: ignore[union-attr]
    assert on_behalf.owns(first) and not on_behalf.owns("run") and not on_behalf.owns("other")


async def test_a_child_that_ended_with_its_parent_may_be_closed_again(on_behalf: OnBehalf, platform: Platform) -> None:
    (child,) = await ok(on_behalf, "open_children", children=[{}])
    platform.story.tell(job.CancelRun(run_id="run"))

    await ok(on_behalf, "close", run=child, status="COMPLETED")

    assert platform.story.run(child).status == job.RUN_STATUS_CANCELED


async def test_files_of_the_spool_join_the_run_under_the_name_of_their_content(
    on_behalf: OnBehalf, platform: Platform, objects: MemoryObjects, folders: Folders
) -> None:
    (folders.spool / "one").write_text("A")

    await ok(on_behalf, "upload", files=[["deep/a.txt", "one"]])

    (file,) = platform.story.run().files.files
    assert (file.path, objects.kept[file.object_key]) == ("deep/a.txt", b"A")
    assert file.object_key == f"uploads/run/blobs/{file.sha256}"
    assert list(folders.spool.iterdir()) == []


async def test_another_content_under_a_taken_path_is_refused(on_behalf: OnBehalf, folders: Folders) -> None:
    for name, content in (("one", "A"), ("two", "B")):
        (folders.spool / name).write_text(content)
    await ok(on_behalf, "upload", files=[["a", "one"]])

    error = await refused(on_behalf, "upload", files=[["a", "two"]])

    assert "other content" in error["message"]


ASKED = [
    ("tag", {"set": {"a": "1"}, "removed": []}),
    ("add_properties", {"properties": {"p": "1"}}),
    ("upload", {"files": [["a.txt", "one"]]}),
    ("open_children", {"children": [{}]}),
    ("register_model", {"model": "m", "path": "outputs/a"}),
]


@pytest.mark.parametrize(("ask", "fields"), ASKED)
async def test_what_a_script_asks_for_is_asked_in_the_name_of_its_attempt(
    on_behalf: OnBehalf, platform: Platform, folders: Folders, ask: str, fields: dict[str, Any]
) -> None:
    (folders.spool / "one").write_text("A")
    (folders.code / "outputs" / "a").write_text("a")

    await ok(on_behalf, ask, **fields)

    assert [(it.by.run_id, it.by.epoch) for it in platform.asked] == [("run", 1)]


@pytest.mark.parametrize(("ask", "fields"), [*ASKED, ("view", {}), ("metrics", {})])
async def test_a_discarded_attempts_script_is_served_no_more(
    on_behalf: OnBehalf, platform: Platform, folders: Folders, ask: str, fields: dict[str, Any]
) -> None:
    (folders.spool / "one").write_text("A")
    (folders.code / "outputs" / "a").write_text("a")
    platform.discarded = True

    error = await refused(on_behalf, ask, **fields)

    assert error["code"] == "AttemptIsOver" and "Attempt 1 of run run is over" in error["message"]
    assert platform.asked == []


async def test_an_attempt_that_is_discarded_while_its_files_are_copied_tells_nothing_of_them(
    on_behalf: OnBehalf, platform: Platform, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders.spool / "one").write_text("A")

    def put(*_: Any) -> Artifact:
        platform.discarded = True
        return Artifact(path="a.txt", sha256="a" * 64, object_key="uploads/run/blobs/a")

    monkeypatch.setattr("services.trainer_agent.on_behalf.put", put)

    assert (await refused(on_behalf, "upload", files=[["a.txt", "one"]]))["code"] == "AttemptIsOver"
    assert platform.asked == []


@pytest.mark.parametrize(("ask", "fields"), ASKED[:4])
async def test_an_agent_that_slept_and_knows_nothing_of_it_is_refused_by_the_scheduler(
    on_behalf: OnBehalf, platform: Platform, folders: Folders, ask: str, fields: dict[str, Any]
) -> None:
    (folders.spool / "one").write_text("A")
    platform.story.tell(job.RunRequeued(run_id="run", lost_epoch=1))

    error = await refused(on_behalf, ask, **fields)

    assert "Attempt 1 of run run is over" in error["message"]


async def test_a_child_that_a_lost_attempt_would_close_stays_open_and_its_script_is_told_at_once(
    on_behalf: OnBehalf, platform: Platform
) -> None:
    (child,) = await ok(on_behalf, "open_children", children=[{}])
    platform.story.tell(job.RunRequeued(run_id="run", lost_epoch=1))

    error = await refused(on_behalf, "close", run=child, status="COMPLETED")

    assert "Attempt 1 of run run is over" in error["message"]
    assert platform.story.run(child).status == job.RUN_STATUS_RUNNING


async def test_a_model_is_what_outputs_held_when_it_was_registered(
    on_behalf: OnBehalf, platform: Platform, objects: MemoryObjects, folders: Folders
) -> None:
    weights = folders.code / "outputs" / "model" / "weights"
    weights.parent.mkdir()
    weights.write_text("first")
    await ok(on_behalf, "register_model", model="m", path="outputs/model/")
    weights.write_text("second")
    await ok(on_behalf, "register_model", model="m", path="./outputs/model", gpus=1)

    files = [request.files.files[0] for request in platform.asked]
    assert [file.path for file in files] == ["model/weights", "model/weights"]
    assert [objects.kept[file.object_key] for file in files] == [b"first", b"second"]
    assert [request.requirements.gpus for request in platform.asked] == [0, 1]


async def test_datasets_that_the_script_names_stand_in_the_models_lineage(
    on_behalf: OnBehalf, platform: Platform, folders: Folders
) -> None:
    (folders.code / "outputs" / "a").write_text("a")
    named = [{"purpose": "training", "input": "digits"}, {"purpose": "", "name": "other", "version": 7}]

    await ok(on_behalf, "register_model", model="m", path="outputs/a", datasets=named)

    (request,) = platform.asked
    assert [(it.purpose, it.name, it.version) for it in request.datasets] == [("training", "mnist", 3), ("", "other", 7)]


@pytest.mark.security
@pytest.mark.parametrize(
    "named",
    [
        "digits", {"input": "digits"}, ["digits"], [{"input": "loose"}], [{"input": "no such"}], [{"input": ["digits"]}], [{}], [None],
        [{"name": "other", "version": -1}], [{"name": "other", "version": 2**70}], [{"name": "other", "version": "new"}],
        [{"name": "\ud800", "version": 1}],
    ],
)  # fmt: skip
async def test_what_names_no_registered_dataset_registers_no_model(
    on_behalf: OnBehalf, platform: Platform, folders: Folders, named: Any
) -> None:
    (folders.code / "outputs" / "a").write_text("a")

    error = await refused(on_behalf, "register_model", model="m", path="outputs/a", datasets=named)

    assert error["code"] == "UserError" and error["message"]
    assert platform.asked == []


async def test_a_model_that_is_not_there_names_what_is(on_behalf: OnBehalf, folders: Folders) -> None:
    (folders.code / "outputs" / "modle").write_text("")

    error = await refused(on_behalf, "register_model", model="m", path="outputs/model")

    assert error["code"] == "ModelPathNotFound" and "outputs/modle" in error["message"]


async def test_a_folder_with_more_files_than_a_model_may_have_is_refused_whole(
    on_behalf: OnBehalf, platform: Platform, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.trainer_agent.on_behalf._FILES", 2)
    for name in "abc":
        (folders.code / "outputs" / name).write_text(name)

    error = await refused(on_behalf, "register_model", model="m", path="outputs")

    assert error["code"] == "UserError" and "has 3 files; a script registers 2 at most" in error["message"]
    assert platform.asked == []


async def test_metrics_of_this_attempt_alone_are_read(on_behalf: OnBehalf, platform: Platform) -> None:
    platform.metrics = [
        MetricBatch(run_id="run", epoch=epoch, points=[MetricPoint(name="x", kind="scalar", number=float(epoch))]) for epoch in (0, 1)
    ]

    assert await ok(on_behalf, "metrics") == [("x", "scalar", 1.0)]


async def test_of_a_name_that_every_rank_logs_one_ranks_values_are_read_and_each_step_once(on_behalf: OnBehalf, platform: Platform) -> None:
    def batch(rank: int, *points: tuple[str, float, int]) -> MetricBatch:
        return MetricBatch(
            run_id="run", epoch=1, rank=rank, points=[MetricPoint(name=n, kind="scalar", number=x, step=step) for n, x, step in points]
        )

    platform.metrics = [
        batch(1, ("loss", 9.0, 0), ("own", 5.0, 0)),
        batch(0, ("loss", 1.0, 0)),
        batch(0, ("loss", 1.0, 0), ("loss", 0.5, 1)),
    ]

    assert await ok(on_behalf, "metrics") == [("own", "scalar", 5.0), ("loss", "scalar", 1.0), ("loss", "scalar", 0.5)]


async def test_a_log_that_is_away_is_said_to_be(on_behalf: OnBehalf, platform: Platform) -> None:
    platform.away = True

    assert (await refused(on_behalf, "tag", set={}, removed=[]))["code"] == "Unavailable"


@pytest.mark.parametrize(
    "request_",
    [
        {"ask": "format the disk"},
        {"ask": ["tag"]},
        {"ask": None},
        {"ask": "tag"},
        {"ask": "tag", "set": ["a"], "removed": []},
        {"ask": "tag", "set": {}, "removed": 7},
        {"ask": "tag", "set": {"\ud800": "x"}, "removed": []},
        {"ask": "tag", "run": "somebody", "set": {"a": "1"}, "removed": []},
        {"ask": "tag", "run": ["run"], "set": {"a": "1"}, "removed": []},
        {"ask": "tag", "set": {str(n): "" for n in range(51)}, "removed": []},
        {"ask": "close", "status": "COMPLETED"},
        {"ask": "open_children", "children": []},
        {"ask": "open_children", "children": [{}] * 1001},
        {"ask": "open_children", "children": "many"},
        {"ask": "open_children", "children": [7]},
        {"ask": "upload", "files": [["a", "../code/secret"]]},
        {"ask": "upload", "files": [["a", "/etc/passwd"]]},
        {"ask": "upload", "files": [["a", ".."]]},
        {"ask": "upload", "files": [["a", "link"]]},
        {"ask": "upload", "files": [["a", "pipe"]]},
        {"ask": "upload", "files": [["../a", "real"]]},
        {"ask": "upload", "files": [["a"]]},
        {"ask": "upload", "files": [["a", "real"]] * 3001},
        {"ask": "register_model", "model": "m", "path": "../../etc"},
        {"ask": "register_model", "model": "m", "path": "/etc/passwd"},
        {"ask": "register_model", "model": "m", "path": "outputs/link"},
        {"ask": "register_model"},
    ],
)
async def test_what_cannot_be_asked_for_is_refused_and_changes_nothing(
    request_: dict[str, Any], on_behalf: OnBehalf, platform: Platform, objects: MemoryObjects, folders: Folders
) -> None:
    (folders.spool / "real").write_text("")
    (folders.spool / "link").symlink_to("/etc/passwd")
    (folders.code / "outputs" / "link").symlink_to("/etc/passwd")
    (folders.code / "secret").write_text("")
    os.mkfifo(folders.spool / "pipe")
    before = platform.story.run()

    answer = await on_behalf.answer(request_)

    after = platform.story.run()
    assert answer["error"]["message"]
    assert (after.tags, after.properties, after.files, set(platform.story.state.runs)) == (
        before.tags,
        before.properties,
        before.files,
        {"run"},
    )
    assert objects.kept == {}
