import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

import trainyard
from trainyard import ComputeTargetException, ModelPathNotFoundException, PlatformUnavailableException, UserErrorException
from trainyard._errors import from_rpc
from trainyard.event.v1.artifact_pb2 import Failure

SDK = Path(trainyard.__file__).resolve().parents[1]


class Refusal(grpc.RpcError):
    def __init__(self, status: grpc.StatusCode, details: str = "", failure: Failure | bytes | None = None) -> None:
        self._status, self._details = status, details
        value = failure.SerializeToString() if isinstance(failure, Failure) else failure
        self._trailers = (("trainyard-failure-bin", value),) if value is not None else ()

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailers


def test_a_failure_in_the_trailer_keeps_its_code_target_and_last_lines() -> None:
    failure = Failure(code="EnvironmentBuildFailed", message="no such package", target="nope", last_lines=["x", "y"], exit_code=2)

    error = from_rpc(Refusal(grpc.StatusCode.FAILED_PRECONDITION, "no", failure), UserErrorException)

    assert (type(error), error.code, error.message, error.target, error.last_lines, error.exit_code) == (
        UserErrorException, "EnvironmentBuildFailed", "no such package", "nope", ["x", "y"], 2,
    )  # fmt: skip


def test_a_known_code_has_its_own_type() -> None:
    failure = Failure(code="ModelPathNotFound", message="its files are: outputs/modle/a")

    assert isinstance(from_rpc(Refusal(grpc.StatusCode.NOT_FOUND, "", failure)), ModelPathNotFoundException)


def test_without_a_failure_the_status_speaks() -> None:
    error = from_rpc(Refusal(grpc.StatusCode.NOT_FOUND, "no pool 'x'"), ComputeTargetException)

    assert isinstance(error, ComputeTargetException)
    assert (error.message, error.code) == ("no pool 'x'", "NotFound")


def test_a_garbled_trailer_does_not_hide_the_status() -> None:
    assert from_rpc(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "bad name", b"\xff\xff\xff")).message == "bad name"


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_service_that_does_not_answer_is_named_with_what_to_do(status: grpc.StatusCode) -> None:
    error = from_rpc(Refusal(status, "refused"), where="127.0.0.1:1")

    assert isinstance(error, PlatformUnavailableException)
    assert "127.0.0.1:1" in error.message
    assert "make up" in error.hint


def test_a_script_needs_nothing_but_the_standard_library_to_import_run() -> None:
    code = f"import sys; sys.path.insert(0, {str(SDK)!r}); from trainyard import Run; print(sorted({{'grpc', 'kafka', 'google', 'rich'}} & set(sys.modules)))"

    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_every_name_of_the_package_loads() -> None:
    assert all(getattr(trainyard, name) for name in trainyard.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        trainyard.nothing  # noqa: B018


def test_a_service_that_answers_not_yet_is_quoted_and_not_called_dead() -> None:
    failure = Failure(code="Unavailable", message="The sources are still being read. Ask again.", target="s1")

    error = from_rpc(Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "", failure))

    assert isinstance(error, PlatformUnavailableException)
    assert (error.message, error.target, error.hint) == ("The sources are still being read. Ask again.", "s1", "")
