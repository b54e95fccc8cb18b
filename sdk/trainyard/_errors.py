"""Typed exceptions, named as in Azure ML's SDK. Standard library only: scripts import it too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FAILURE_KEY = "trainyard-failure-bin"


class TrainyardException(Exception):
    """What went wrong (message), its stable code, the thing at fault (target) and what to do (hint)."""

    code = "ServiceError"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        target: str = "",
        hint: str = "",
        last_lines: Sequence[str] = (),
        exit_code: int | None = None,
    ) -> None:
        self.message = message
        self.code = code or type(self).code
        self.target = target
        self.hint = hint
        self.last_lines = list(last_lines)
        self.exit_code = exit_code
        super().__init__(message)

    def __str__(self) -> str:
        parts = [self.message]
        if self.hint:
            parts.append(f"  what to do: {self.hint}")
        parts += [f"  | {line}" for line in self.last_lines]
        return "\n".join(parts)

    def serialize(self) -> dict[str, Any]:
        """Azure's error shape."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "target": self.target,
                "details": [{"message": line} for line in self.last_lines],
            }
        }


class UserErrorException(TrainyardException):
    """The request cannot be taken as it is."""

    code = "UserError"


class ComputeTargetException(TrainyardException):
    """A compute target is absent or refused."""

    code = "ComputeTargetNotFound"


class SnapshotException(TrainyardException):
    """The source folder cannot be sent."""

    code = "SnapshotError"


class ModelNotFoundException(TrainyardException):
    """No such model or version."""

    code = "ModelNotFound"


class ModelPathNotFoundException(TrainyardException):
    """The run has no such file or folder; the message lists those it has."""

    code = "ModelPathNotFound"


class ActivityFailedException(TrainyardException):
    """The run ended badly."""

    code = "RunFailed"


class WebserviceException(TrainyardException):
    """An endpoint is absent, refused or failed."""

    code = "WebserviceError"


class TrainingException(TrainyardException):
    """An estimator's options cannot be used."""

    code = "UserError"


class ExperimentExecutionException(TrainyardException):
    """A submission was refused."""

    code = "UserError"


class RunNotFoundException(TrainyardException):
    """No such run."""

    code = "RunNotFound"


class PlatformUnavailableException(TrainyardException):
    """A service of the platform does not answer."""

    code = "Unavailable"


_BY_CODE: dict[str, type[TrainyardException]] = {
    "ModelPathNotFound": ModelPathNotFoundException,
    "ModelNotFound": ModelNotFoundException,
    "NotASavedModel": WebserviceException,
    "RunNotFound": RunNotFoundException,
}


def from_failure(
    failure: Any, otherwise: type[TrainyardException] = UserErrorException, message: str = "", *, fixed: bool = False
) -> TrainyardException:
    """A trainyard.event.v1.Failure as an exception; `fixed` keeps the given type whatever the code."""
    kind = otherwise if fixed else _BY_CODE.get(failure.code, otherwise)
    exit_code = failure.exit_code if failure.HasField("exit_code") else None
    return kind(
        failure.message or message or failure.code,
        code=failure.code,
        target=failure.target,
        last_lines=list(failure.last_lines),
        exit_code=exit_code,
    )


def from_rpc(error: Any, otherwise: type[TrainyardException] = UserErrorException, where: str = "") -> TrainyardException:
    """A grpc.RpcError as an exception: the Failure in its trailing metadata where there is one, else its status."""
    status = error.code().name
    details = error.details() or status
    failure = _failure_of(error)
    if status in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        said = f"The service at {where}" if where else "A service of the platform"
        return PlatformUnavailableException(
            failure.message if failure is not None else f"{said} did not answer ({status}: {details}).",
            code=status.title().replace("_", ""),
            target=failure.target if failure is not None else where,
            hint="" if failure is not None and status == "DEADLINE_EXCEEDED" else "see `make status`; start the local stack with `make up`",
        )
    if failure is not None:
        return from_failure(failure, otherwise, details)
    code = {"INVALID_ARGUMENT": "UserError", "NOT_FOUND": "NotFound", "ALREADY_EXISTS": "AlreadyExists"}.get(
        status, status.title().replace("_", "")
    )
    return otherwise(details, code=code, target=where)


def _failure_of(error: Any) -> Any:
    """The Failure that the service sent along, or None."""
    for key, value in error.trailing_metadata() or ():
        if key == FAILURE_KEY:
            from trainyard.event.v1 import artifact_pb2

            try:
                return artifact_pb2.Failure.FromString(value)
            except Exception:  # noqa: BLE001 - a garbled trailer must not hide the status
                return None
    return None
