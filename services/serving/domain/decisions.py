"""What follows from requests, and from what the servers report. The time comes in as an argument."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from services.serving.domain.endpoint import Deployment, Endpoint, Fact
from services.serving.domain.model_version import SAVED_MODEL, ModelVersion, folder_of
from trainyard.endpoint.v1.endpoint_pb2 import (
    DeployEndpoint,
    EndpointDeleted,
    EndpointFailed,
    EndpointLive,
    EndpointProgress,
    EndpointRejected,
    EndpointStarting,
    EndpointUnhealthy,
    VersionLoaded,
)
from trainyard.event.v1.artifact_pb2 import Failure

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME_RULE = "3-32 lower-case letters, digits and '-', with a letter first and no '-' last"
_TOLD_FILES = 10
_MAX_TEXT = 3000


@dataclass(frozen=True)
class Progressed:
    endpoint: str
    deployment: int
    why: str


@dataclass(frozen=True)
class CameUp:
    """A server has loaded the version and answered a first call."""

    endpoint: str
    deployment: int
    digest: str
    signatures: tuple[str, ...]
    grpc_address: str
    scoring_uri: str
    at: datetime


@dataclass(frozen=True)
class WentDown:
    endpoint: str
    deployment: int
    why: str


@dataclass(frozen=True)
class GaveUp:
    endpoint: str
    deployment: int
    failure: Failure


Report = Progressed | CameUp | WentDown | GaveUp


# -- requests


def name_fault(name: str) -> str:
    """Why this can be no endpoint's name, in words; "" if it can."""
    if 3 <= len(name) <= 32 and _NAME.fullmatch(name):
        return ""
    return f"{name[:100]!r} is no endpoint name. It must have {_NAME_RULE}."


def unanswerable(request: DeployEndpoint) -> str:
    """Why no answer could name this request; "" if one can."""
    if not 1 <= len(request.submission_id) <= 128 or not request.submission_id.isprintable():
        return "submission_id must be 1-128 printable characters: it is what a repeat is known by"
    if len(request.endpoint) > 255:
        return f"the endpoint's name has {len(request.endpoint)} characters; 32 are the most"
    return ""


def invalid(request: DeployEndpoint) -> EndpointRejected | None:
    """The answer where the request itself is wrong, whatever is known."""
    if fault := name_fault(request.endpoint):
        return rejected(request, Failure(code="UserError", message=fault, target="endpoint"))
    if not request.model or not request.version:
        message = "The request names no model version. Give the name of a registered model and a version from 1."
        return rejected(request, Failure(code="UserError", message=message, target="model"))
    return None


def decide(request: DeployEndpoint, endpoint: Endpoint | None, version: ModelVersion | None, at: datetime) -> Fact:
    """The answer, once all is known of the model that was said before the request."""
    if (refused := invalid(request)) is not None:
        return refused
    if endpoint is not None and not endpoint.deleted and endpoint.failure is None and not request.overwrite:
        message = (
            f"Endpoint {request.endpoint!r} is there already, with {endpoint.latest.model_id}. Deploy with overwrite=True to replace it."
        )
        return rejected(request, Failure(code="AlreadyExists", message=message, target=request.endpoint))
    if version is None:
        message = f"There is no version {request.version} of a model {request.model!r}. In the SDK, Model.list(ws) shows what there is."
        return rejected(
            request, Failure(code="ModelNotFound", message=message[:_MAX_TEXT], target=f"{request.model}:{request.version}"[:1000])
        )
    if not folder_of(version.files):
        return rejected(request, _no_saved_model(version))
    fact = EndpointStarting(
        submission_id=request.submission_id,
        endpoint=request.endpoint,
        model=request.model,
        version=request.version,
        deployment=endpoint.latest.number + 1 if endpoint else 1,
    )
    fact.at.FromDatetime(at)
    return fact


def rejected(request: DeployEndpoint, failure: Failure) -> EndpointRejected:
    return EndpointRejected(submission_id=request.submission_id, endpoint=request.endpoint, failure=failure)


def decide_delete(endpoint: Endpoint | None, pending: Iterable[DeployEndpoint]) -> list[Fact]:
    """What an endpoint's deletion leads to; nothing where there is nothing to delete. `pending` waits for its answer still."""
    message = "The endpoint was deleted before this deployment began."
    facts: list[Fact] = [rejected(it, Failure(code="EndpointDeleted", message=message, target=it.endpoint)) for it in pending]
    if endpoint is not None and not endpoint.deleted:
        facts.append(EndpointDeleted(endpoint=endpoint.name))
    return facts


def _no_saved_model(version: ModelVersion) -> Failure:
    paths = [file.path for file in version.files.files]
    more = f" and {len(paths) - _TOLD_FILES} more" if len(paths) > _TOLD_FILES else ""
    message = (
        f"Model {version.id} has no {SAVED_MODEL} at the top of its folder, so it is no TensorFlow SavedModel. "
        f"It has: {', '.join(paths[:_TOLD_FILES]) or 'no files'}{more}. "
        "Write it by tf.saved_model.save or model.export, and register that folder."
    )
    return Failure(code="NotASavedModel", message=message[:_MAX_TEXT], target=version.id)


# -- reports


def conclude(endpoint: Endpoint | None, report: Report) -> list[Fact]:
    """What a report leads to. One of a deployment that is no longer wanted leads to nothing."""
    if endpoint is None or endpoint.deleted:
        return []
    number = report.deployment
    starts = endpoint.is_starting and endpoint.latest.number == number
    serves = endpoint.serves(number)
    match report:
        case Progressed() if starts or (serves and not endpoint.up):
            told = number == endpoint.latest.number and report.why != endpoint.why
            return [EndpointProgress(endpoint=endpoint.name, deployment=number, why=report.why[:_MAX_TEXT])] if told else []
        case CameUp() if starts:
            return [_loaded(endpoint.latest, report), _live(report)]
        case CameUp() if serves and not endpoint.up:
            return [_live(report)]
        case WentDown() if serves and endpoint.up:
            return [EndpointUnhealthy(endpoint=endpoint.name, deployment=number, why=report.why[:_MAX_TEXT])]
        case GaveUp() if starts or serves:
            return [EndpointFailed(endpoint=endpoint.name, deployment=number, failure=report.failure)]
    return []


def _loaded(deployment: Deployment, report: CameUp) -> VersionLoaded:
    return VersionLoaded(
        endpoint=report.endpoint,
        deployment=deployment.number,
        model=deployment.model,
        version=deployment.version,
        digest=report.digest,
        signatures=report.signatures,
    )


def _live(report: CameUp) -> EndpointLive:
    fact = EndpointLive(
        endpoint=report.endpoint, deployment=report.deployment, grpc_address=report.grpc_address, scoring_uri=report.scoring_uri
    )
    fact.at.FromDatetime(report.at)
    return fact
