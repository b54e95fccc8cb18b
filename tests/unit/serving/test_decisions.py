"""Given these facts, when this request or report, then these facts."""

from __future__ import annotations

from typing import Any

import pytest

from services.serving.domain import asking, decisions
from services.serving.domain.decisions import Known, decide_delete
from services.serving.domain.endpoint import Endpoint
from services.serving.domain.model_version import folder_of, served_file
from services.serving.domain.reports import Report, conclude
from tests.unit.serving.builders import (
    FAILURE,
    NOW,
    a_request,
    a_version,
    after,
    artifacts,
    came_up,
    deleted,
    failed,
    gave_up,
    known,
    live,
    progress,
    progressed,
    starting,
    unhealthy,
    went_down,
)
from trainyard.endpoint.v1 import endpoint_pb2 as pb


def decide(request: pb.DeployEndpoint, endpoint: Endpoint | None = None, **files: Any) -> Any:
    return decisions.decide(request, endpoint, known(a_version(**files)), NOW)


def test_the_first_deployment_of_a_version_is_number_one() -> None:
    fact = decide(a_request())

    assert isinstance(fact, pb.EndpointStarting)
    assert (fact.submission_id, fact.endpoint, fact.model, fact.version, fact.deployment) == ("s1", "digits", "mnist", 1, 1)
    assert fact.at.ToDatetime(NOW.tzinfo) == NOW


@pytest.mark.parametrize("facts", [[starting()], [starting(), live()], [starting(), live(), unhealthy()]], ids=["starting", "live", "down"])
def test_an_endpoint_that_lives_is_replaced_only_if_asked(facts: list[Any]) -> None:
    endpoint = after(*facts)

    refused = decide(a_request("s2"), endpoint)
    taken = decide(a_request("s2", overwrite=True), endpoint)

    assert (refused.submission_id, refused.failure.code, refused.failure.target) == ("s2", "AlreadyExists", "digits")
    assert "mnist:1" in refused.failure.message
    assert taken.deployment == 2


@pytest.mark.parametrize("facts", [[starting(), failed()], [starting(), live(), deleted()], [starting(), live(), failed()]])
def test_a_failed_or_deleted_endpoint_may_be_deployed_again_and_numbers_go_on(facts: list[Any]) -> None:
    assert decide(a_request("s2"), after(*facts)).deployment == 2


def test_an_unknown_version_is_refused_by_name() -> None:
    fact = decisions.decide(a_request(model="nobody", version=7), None, Known(), NOW)

    assert isinstance(fact, pb.EndpointRejected)
    assert (fact.failure.code, fact.failure.target) == ("ModelNotFound", "nobody:7")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"model/model.h5": b""},
        {"saved_model.pb": b""},
        {"model/1/saved_model.pb": b""},
        {"model/saved_model.pbtxt": b""},
        {"model/a.tflite": b"", "model/b.tflite": b""},
        {"a.tflite": b"", "model/b.tflite": b""},
        {"model/1/a.tflite": b""},
        {"model/a.tflite.txt": b""},
    ],
)
def test_what_has_neither_saved_model_nor_one_tflite_file_at_the_top_of_its_folder_is_refused_with_what_it_has(
    files: dict[str, bytes],
) -> None:
    fact = decide(a_request(), files=files)

    assert fact.failure.code == "NotASavedModel"
    assert all(path in fact.failure.message for path in files)


@pytest.mark.parametrize(
    ("files", "folder", "file"),
    [
        ({"a.tflite": b""}, "", "a.tflite"),
        ({"model/a.tflite": b"", "model/labels.txt": b"", "model/more/b.tflite": b""}, "model", "model/a.tflite"),
        ({"model/a.tflite": b"", "model/saved_model.pb": b"", "model/b.tflite": b""}, "model", "model/saved_model.pb"),
    ],
)
def test_one_tflite_file_is_deployed_and_a_saved_model_comes_before_it(files: dict[str, bytes], folder: str, file: str) -> None:
    assert isinstance(decide(a_request(), files=files), pb.EndpointStarting)
    assert (folder_of(artifacts(files)), served_file(artifacts(files))) == (folder, file)


def test_a_long_list_of_files_is_cut() -> None:
    fact = decide(a_request(), files={f"model/{number:03}": b"" for number in range(100)})

    assert "model/009 and 90 more" in fact.failure.message


@pytest.mark.parametrize("name", ["abc", "a-1", "tensorflow-web-service", "a" * 32])
def test_a_name_that_can_be_a_host_name_is_taken(name: str) -> None:
    assert asking.name_fault(name) == ""


@pytest.mark.parametrize("name", ["", "ab", "a" * 33, "Abc", "1bc", "-bc", "ab-", "a_c", "a.c", "a c", "äbc", "abc\n", "../abc"])
def test_any_other_name_is_refused_with_the_rule(name: str) -> None:
    fact = decide(a_request(endpoint=name))

    assert isinstance(fact, pb.EndpointRejected)
    assert fact.failure.code == "UserError"
    assert "3-32 lower-case letters" in fact.failure.message


@pytest.mark.parametrize("fields", [{"model": ""}, {"version": 0}])
def test_a_request_without_a_version_is_refused(fields: dict[str, Any]) -> None:
    assert decide(a_request(**fields)).failure.code == "UserError"


@pytest.mark.parametrize("submission_id", ["", "x" * 129, "a\nb"])
def test_a_submission_that_no_repeat_could_be_known_by_cannot_be_answered(submission_id: str) -> None:
    assert "submission_id" in asking.unanswerable(a_request(submission_id))


def test_deleting_ends_what_is_there_and_what_waits() -> None:
    endpoint = after(starting(), live())
    waiting = a_request("s2", overwrite=True)

    rejected, gone = decide_delete(endpoint, [waiting])
    nothing = decide_delete(after(starting(), deleted()), [])

    assert isinstance(rejected, pb.EndpointRejected)
    assert (rejected.submission_id, rejected.failure.code) == ("s2", "EndpointDeleted")
    assert gone == deleted()
    assert decide_delete(None, []) == nothing == []


# -- reports


def test_a_server_that_comes_up_first_is_loaded_and_live() -> None:
    loaded, up = conclude(after(starting()), came_up())

    assert isinstance(loaded, pb.VersionLoaded)
    assert (loaded.model, loaded.version, loaded.digest, list(loaded.signatures)) == ("mnist", 1, "d" * 64, ["serving_default"])
    assert isinstance(up, pb.EndpointLive)
    assert (up.deployment, up.grpc_address, up.scoring_uri) == (1, "h:7001", "http://h:7001/v1/models/mnist:predict")


def test_a_server_that_comes_back_is_live_again_and_not_loaded_anew() -> None:
    (fact,) = conclude(after(starting(), live(), unhealthy()), came_up(port=9))

    assert isinstance(fact, pb.EndpointLive)
    assert fact.grpc_address == "h:9"


def test_a_server_that_goes_down_is_unhealthy_once() -> None:
    (fact,) = conclude(after(starting(), live()), went_down())

    assert fact == unhealthy()
    assert conclude(after(starting(), live(), unhealthy()), went_down()) == []


@pytest.mark.parametrize("facts", [[starting()], [starting(), live()], [starting(), live(), unhealthy()]], ids=["starting", "live", "down"])
def test_giving_up_is_the_end_of_a_deployment(facts: list[Any]) -> None:
    (fact,) = conclude(after(*facts), gave_up())

    assert isinstance(fact, pb.EndpointFailed)
    assert fact.failure == FAILURE


def test_progress_is_told_once() -> None:
    assert conclude(after(starting()), progressed(why="loading")) == [progress("loading")]
    assert conclude(after(starting(), progress("loading")), progressed(why="loading")) == []
    assert conclude(after(starting(), live()), progressed(why="loading")) == []


def test_the_predecessor_may_go_down_and_come_back_while_its_successor_starts() -> None:
    endpoint = after(starting(), live(), starting(2))

    (down,) = conclude(endpoint, went_down(1))
    (back,) = conclude(after(starting(), live(), starting(2), unhealthy(1)), came_up(1))

    assert down == unhealthy(1)
    assert isinstance(back, pb.EndpointLive)
    assert back.deployment == 1
    assert conclude(after(starting(), live(), starting(2), unhealthy(1)), progressed(1)) == []


@pytest.mark.parametrize("report", [progressed(1), came_up(1), went_down(1), gave_up(1)])
@pytest.mark.parametrize(
    "facts",
    [
        [starting(), starting(2)],
        [starting(), live(), starting(2), live(2)],
        [starting(), failed()],
        [starting(), live(), failed()],
        [starting(), live(), deleted()],
        [starting(), live(), deleted(), starting(2)],
    ],
    ids=["overtaken", "replaced", "failed", "failed for good", "deleted", "deployed anew"],
)
def test_a_late_report_of_a_deployment_that_is_over_changes_nothing(facts: list[Any], report: Report) -> None:
    assert conclude(after(*facts), report) == []
    assert conclude(None, report) == []


@pytest.mark.parametrize("report", [came_up(), progressed(), gave_up(), went_down()], ids=lambda it: type(it).__name__)
def test_what_comes_late_from_a_server_wakes_no_endpoint_that_sleeps(report: Report) -> None:
    slept = pb.EndpointSlept(endpoint="digits", deployment=1)

    assert conclude(after(starting(), live(), slept), report) == []
