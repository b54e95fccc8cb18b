from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.chassis.topics import MAX_MESSAGE_BYTES
from services.scheduler.domain.validate import SPEC_BYTES, submission
from tests.unit.scheduler.story import Story, a_submission
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.dataset.v1.dataset_pb2 import Step
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1 import spec_pb2 as spec


def test_a_plain_submission_is_in_order() -> None:
    assert submission(a_submission()) is None


def _set(**fields: Any) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for name, value in fields.items():
            if isinstance(value, dict):
                getattr(request.spec, name).update(value)
            else:
                setattr(request.spec, name, value)

    return change


def _inline(path: str, content: bytes = b"") -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.spec.source.inline.files[path] = content

    return change


def _input(name: str = "data", url: str = "http://host/a", path: str = "http/host/a") -> Callable[[Any], None]:
    def change(request: Any) -> None:
        item = request.spec.inputs.add(name=name)
        item.files.add(url=url, path=path)

    return change


def _snapshot(request: Any) -> None:
    request.spec.source.snapshot.files.add(path="train.py", sha256="short")


def _argument(request: Any) -> None:
    request.spec.arguments.add(input="nowhere")


def _variable(name: str) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.spec.environment.environment_variables[name] = "x"

    return change


def _no_source(request: Any) -> None:
    request.spec.ClearField("source")


def _no_time(request: Any) -> None:
    request.spec.max_duration.FromSeconds(0)


def _endless(request: Any) -> None:
    request.spec.max_duration.seconds = 10**15


def _name(request: Any) -> None:
    request.experiment = "a b"


@pytest.mark.parametrize(
    ("change", "target", "words"),
    [
        (_name, "experiment", "is no name"),
        (_no_source, "source", "no source"),
        (_set(entry_script="other.py"), "other.py", "there is: train.py"),
        (_set(entry_script=""), "entry_script", "not in the source"),
        (_inline("../evil.py"), "../evil.py", "no safe relative path"),
        (_inline("/etc/passwd"), "/etc/passwd", "no safe relative path"),
        (_inline("a\\b"), "a\\b", "no safe relative path"),
        (_inline("train.py/x"), "train.py", "a file and a folder at once"),
        (_inline("big", bytes(600 << 10)), "source", "upload a snapshot"),
        (_snapshot, "train.py", "no SHA-256"),
        (_input(name="1x"), "1x", "input name"),
        (_input(url="file:///etc/passwd"), "data", "no http(s) URL"),
        (_input(url="http://user:secret@host/a"), "data", "without credentials"),
        (_input(path="../../x"), "../../x", "no safe relative path"),
        (_argument, "nowhere", "does not have"),
        (_variable("A-B"), "A-B", "cannot be set"),
        (_variable("TRAINYARD_RUN_SOCKET"), "TRAINYARD_RUN_SOCKET", "platform's own"),
        (_set(framework="Tensor\0Flow"), "framework", "printable characters"),
        (_set(framework="x" * 101), "framework", "at most 100"),
        (_no_time, "max_duration", "more than zero"),
        (_endless, "max_duration", "at most"),
        (_set(tags={"a": "x" * (1 << 20)}), "spec", "put large things into a snapshot"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[Any], None], target: str, words: str) -> None:
    request = a_submission()

    change(request)
    failure = submission(request)

    assert failure is not None
    assert (failure.code, failure.target) == ("UserError", target)
    assert words in failure.message


def test_the_largest_specification_that_is_taken_fits_into_every_message_that_follows() -> None:
    largest = a_submission("r" * 128, experiment="e" * 128)
    largest.spec.arguments.add(text="x" * (SPEC_BYTES - largest.spec.ByteSize() - 20))
    assert SPEC_BYTES - 20 <= largest.spec.ByteSize() <= SPEC_BYTES

    story = Story().with_pool().with_agent()
    story.tell(cluster.PoolResized(name="pool", agent_ids=["agent-0"]))
    followed = story.tell(largest)

    assert [type(message) for message in followed] == [job.RunQueued, cluster.LeaseOffered]
    assert max(message.ByteSize() for message in followed) < MAX_MESSAGE_BYTES


def test_two_inputs_of_one_name_are_refused() -> None:
    request = a_submission()

    for _ in range(2):
        _input()(request)

    failure = submission(request)
    assert failure is not None and failure.target == "inputs"


def test_a_bad_request_becomes_a_rejected_run_and_a_good_one_under_its_id_does_not_revive_it() -> None:
    story = Story().with_pool()
    bad = a_submission()
    bad.spec.entry_script = "other.py"

    (rejected,) = story.tell(bad)
    assert isinstance(rejected, job.RunRejected)
    assert story.run().is_terminal

    assert story.tell(a_submission()) == []


def test_an_unknown_compute_target_lists_those_that_exist() -> None:
    story = Story().with_pool(name="small").with_pool(name="large")

    (rejected,) = story.tell(a_submission(target="nowhere"))

    assert rejected.failure.code == "ComputeTargetNotFound"
    assert "there is: large, small" in rejected.failure.message


def test_numbers_count_within_an_experiment() -> None:
    story = Story().with_pool()

    story.tell(a_submission("a"), a_submission("b", experiment="other"), a_submission("c"))

    assert [story.run(name).number for name in "abc"] == [1, 1, 2]


def test_an_unset_spec_is_refused_and_nothing_raises() -> None:
    assert submission(job.SubmitRun(submission_id="x", experiment="e", spec=spec.RunSpec())) is not None


# -- lists that lie in the object store, files of datastores


def _manifest(key: str, sha256: str = "a" * 64) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.spec.source.snapshot.manifest_key = key
        request.spec.source.snapshot.manifest_sha256 = sha256

    return change


def _stored(key: str, url: str = "datastore://d/a", sha256: str = "a" * 64) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.spec.inputs.add(name="data").files.add(url=url, path="a", object_key=key, sha256=sha256)

    return change


def _given(**fields: Any) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        _input()(request)
        request.spec.inputs[0].MergeFrom(spec.DatasetInput(**fields))

    return change


def _listed_elsewhere(key: str) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.spec.inputs.add(name="data", manifest_key=key, manifest_sha256="a" * 64)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _manifest(f"snapshots/trees/{'a' * 64}"),
        _stored(f"datastores/blobs/{'a' * 64}"),
        _stored("runs/r/1/outputs/a"),
        _given(path_on_compute="/data/here"),
        _given(steps=[Step(take=Step.Take(count=1))]),
        _listed_elsewhere(f"datastores/manifests/{'a' * 64}"),
    ],
)
def test_what_lies_in_the_object_store_is_taken_by_its_key(change: Callable[[Any], None]) -> None:
    request = a_submission()

    change(request)

    assert submission(request) is None


@pytest.mark.parametrize(
    ("change", "target", "words"),
    [
        (_manifest("snapshots/trees/other"), "source", "manifest_key"),
        (_manifest("snapshots/trees/../x", "../x"), "source", "manifest_key"),
        (_stored("secrets/key"), "data", "no file of a datastore"),
        (_stored("runs/../secrets"), "data", "no file of a datastore"),
        (_stored("runs/a", url="http://h/a"), "data", "no file of a datastore"),
        (_stored("runs/a", sha256=""), "data", "no SHA-256"),
        (_given(path_on_compute="../up"), "data", "'..'"),
        (_given(steps=[Step()]), "data", "none of take"),
        (_listed_elsewhere("runs/a"), "data", "manifest_key"),
    ],
)
def test_a_key_that_leads_elsewhere_is_refused(change: Callable[[Any], None], target: str, words: str) -> None:
    request = a_submission()

    change(request)

    found = submission(request)
    assert found is not None
    assert found.target == target and words in found.message


def test_a_source_whose_list_lies_elsewhere_needs_a_command_or_a_script() -> None:
    request = a_submission()
    _manifest(f"snapshots/trees/{'a' * 64}")(request)
    request.spec.entry_script = ""

    nothing = submission(request)
    request.spec.command.extend(["python", "train.py"])

    assert nothing is not None and nothing.target == "entry_script"
    assert submission(request) is None
