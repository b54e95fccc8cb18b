"""Typed exceptions, named as in Azure ML's SDK. Standard library only: scripts import it too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainyard._hints import HINTS

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
        rank: int | None = None,
    ) -> None:
        self.message = message
        self.code = code or type(self).code
        self.target = target
        self.hint = hint
        self.last_lines = list(last_lines)
        self.exit_code = exit_code
        self.rank = rank
        super().__init__(message)

    def __str__(self) -> str:
        parts = [self.message]
        if self.hint:
            parts.append(f"  what to do: {self.hint}")
        # A script's end has them in its message already, below its first line.
        if not self.last_lines or f"  {self.last_lines[-1].rstrip()}" not in self.message.split("\n")[1:]:
            parts += [f"  | {line}" for line in self.last_lines]
        return "\n".join(parts)

    @property
    def inner_exception(self) -> BaseException | None:
        """What led to it, where another exception did."""
        return self.__cause__

    def serialize(self) -> dict[str, Any]:
        """Azure's error shape; code is the platform's own, e.g. "ComputeTargetNotFound"."""
        return error_shape(self.code, self.message, self.target, self.last_lines, exit_code=self.exit_code, rank=self.rank)


AzureMLException = TrainyardException
"""The base of all, under its old name."""

# Whose fault an end is: of these nobody who wrote a script or a request is to blame.
SERVICE_CODES = frozenset(
    (
        "ServiceError",
        "AgentLost",
        "NodeError",
        "OutputsLost",
        "Unavailable",
        "DeadlineExceeded",
        "InternalError",
        "Internal",
        "NotResponding",
    )
)


def error_shape(
    code: str,
    message: str,
    target: str = "",
    last_lines: Sequence[str] = (),
    *,
    exit_code: int | None = None,
    rank: int | None = None,
    operation: str = "",
    request: str = "",
    location: str = "local",
    time: str | None = None,
) -> dict[str, Any]:
    """{error: {code, message, target, details, innerError, ...}, correlation, environment, location, time}."""
    parameters = {"rank": rank, "exitCode": exit_code}
    return {
        "error": {
            "code": code,
            "severity": None,
            "message": message,
            "messageFormat": None,
            "messageParameters": {name: str(value) for name, value in parameters.items() if value is not None},
            "referenceCode": None,
            "detailsUri": None,
            "target": target or None,
            "details": [{"message": line} for line in last_lines],
            "innerError": {"code": code, "innerError": None},
            "debugInfo": {"stackTrace": "\n".join(last_lines)} if last_lines else None,
        },
        "correlation": {"operation": operation or None, "request": request or None},
        "environment": "local",
        "location": location,
        "time": time,
    }


class UserErrorException(TrainyardException):
    """The request cannot be taken as it is."""

    code = "UserError"


class ServiceException(TrainyardException):
    """The platform could not do what it should have done."""


class AuthenticationException(TrainyardException):
    """Who asks is not known, or may not."""

    code = "AuthenticationFailed"


class ProjectSystemException(TrainyardException):
    """A workspace's configuration cannot be found or read."""

    code = "UserError"


class DiscoveryUrlNotFoundException(ProjectSystemException):
    """The configuration names no platform."""


class ComputeTargetException(TrainyardException):
    """A compute target is absent or refused."""

    code = "ComputeTargetNotFound"


class SnapshotException(TrainyardException):
    """The source folder cannot be sent."""

    code = "SnapshotError"


class ModelPathNotFoundException(TrainyardException):
    """The run has no such file or folder; the message lists those it has."""

    code = "ModelPathNotFound"


class ActivityFailedException(TrainyardException):
    """The run ended badly. str() gives the reason, what to do, the last lines of its log, and the error as JSON.

    operation is the run's id, request its attempt as "<run id>/<number>", location the nodes, time when it ended (ISO 8601, UTC).
    """

    code = "RunFailed"
    operation = ""
    request = ""
    location = "local"
    time: str | None = None

    def __str__(self) -> str:
        return f"{super().__str__()}\nErrorResponse\n{json.dumps(self.serialize(), indent=4, ensure_ascii=False)}"

    def serialize(self) -> dict[str, Any]:
        """Azure's error shape; code is "UserError" or "ServiceError", innerError has the platform's own."""
        shape = error_shape(
            self.code,
            self.message,
            self.target,
            self.last_lines,
            exit_code=self.exit_code,
            rank=self.rank,
            operation=self.operation,
            request=self.request,
            location=self.location,
            time=self.time,
        )
        shape["error"]["code"] = "ServiceError" if self.code in SERVICE_CODES else "UserError"
        return shape


class WebserviceException(TrainyardException):
    """An endpoint is absent, refused or failed."""

    code = "WebserviceError"


class ModelNotFoundException(WebserviceException):
    """No such model or version. Azure's SDK raises its WebserviceException for it, and scripts look for the code in its message."""

    code = "ModelNotFound"

    def __init__(self, message: str, **more: Any) -> None:
        prefix = f"{type(self).code}: "
        super().__init__(message if message.startswith(prefix) else prefix + message, **more)


class ImageException(TrainyardException):
    """A container image is absent or refused."""

    code = "ImageError"


class TrainingException(TrainyardException):
    """An estimator's options cannot be used."""

    code = "UserError"


class ExperimentExecutionException(TrainyardException):
    """A submission was refused."""

    code = "UserError"


class ExperimentTimeoutException(TrainyardException):
    """What was waited for did not come in time."""

    code = "TimedOut"


class RunConfigurationException(TrainyardException):
    """A run configuration's options cannot be used."""

    code = "UserError"


class RunEnvironmentException(TrainyardException, RuntimeError):
    """There is no run where one is needed: the script was not started by the platform."""

    code = "NoRun"


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
    "Unavailable": PlatformUnavailableException,
}


def from_parts(error: Mapping[str, Any], otherwise: type[TrainyardException] = UserErrorException) -> TrainyardException:
    """{code, message, target} as an exception."""
    code = str(error.get("code", ""))
    return _BY_CODE.get(code, otherwise)(
        str(error.get("message") or code), code=code, target=str(error.get("target") or ""), hint=HINTS.get(code, "")
    )


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
        hint=HINTS.get(failure.code, ""),
        last_lines=list(failure.last_lines),
        exit_code=exit_code,
        rank=failure.rank if failure.HasField("rank") else None,
    )


def headline(failure: Any) -> str:
    """What a Failure says, for where there is one line: the message of a rank's end has the last lines of its log below it."""
    return str(failure.message).split("\n", 1)[0] if failure.HasField("rank") else str(failure.message)


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
    return otherwise(details, code=code, target=where, hint=HINTS.get(code, ""))


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
