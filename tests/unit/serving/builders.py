"""Model versions, requests and facts, with what a test does not care for filled in."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from services.serving.domain.decisions import Known
from services.serving.domain.endpoint import Endpoint, Fact, evolve
from services.serving.domain.model_version import ModelVersion
from services.serving.domain.reports import CameUp, GaveUp, Progressed, WentDown
from services.serving.ports import Content
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.job.v1.spec_pb2 import EnvironmentSpec
from trainyard.model.v1.model_pb2 import ModelVersionRegistered

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SAVED_MODEL = {"model/saved_model.pb": b"graph", "model/variables/variables.index": b"index"}
FAILURE = Failure(code="ModelLoadFailed", message="cannot load it")


def artifacts(files: dict[str, bytes] | None = None) -> ArtifactSet:
    contents = SAVED_MODEL if files is None else files
    made = [
        Artifact(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), object_key=f"runs/r/1/outputs/{path}")
        for path, content in sorted(contents.items())
    ]
    return ArtifactSet(files=made)


def a_version(model: str = "mnist", version: int = 1, files: dict[str, bytes] | None = None, framework_version: str = "") -> ModelVersion:
    return ModelVersion(model, version, framework_version, artifacts(files))


def known(*versions: ModelVersion, **aliases: int) -> Known:
    """Those versions; aliases are of "mnist"."""
    return Known({it.id: it for it in versions}, {f"mnist@{alias}": version for alias, version in aliases.items()})


def content(version: ModelVersion | None = None, **fields: Any) -> Content:
    """A deployment without code."""
    served = version or a_version()
    return Content("digits", 1, served.id, (served,), **fields)


def registered(model: str = "mnist", version: int = 1, files: dict[str, bytes] | None = None, **fields: Any) -> ModelVersionRegistered:
    return ModelVersionRegistered(model=model, version=version, artifacts=artifacts(files), **fields)


def a_request(
    submission_id: str = "s1", endpoint: str = "digits", model: str = "mnist", version: int = 1, **fields: Any
) -> pb.DeployEndpoint:
    return pb.DeployEndpoint(submission_id=submission_id, endpoint=endpoint, model=model, version=version, **fields)


def starting(deployment: int = 1, model: str = "mnist", version: int = 1, submission_id: str = "s1", **fields: Any) -> pb.EndpointStarting:
    return pb.EndpointStarting(
        submission_id=submission_id, endpoint="digits", model=model, version=version, deployment=deployment, **fields
    )


def scoring(script: str = "score.py", content: bytes = b"code", **environment: Any) -> pb.Scoring:
    made = pb.Scoring(entry_script=script, environment=EnvironmentSpec(framework="none", **environment))
    made.source.inline.files[script] = content
    return made


def an_update(submission_id: str = "s2", **fields: Any) -> pb.UpdateEndpoint:
    return pb.UpdateEndpoint(submission_id=submission_id, endpoint="digits", **fields)


def a_split(version: int = 0, percent: float = 10, submission_id: str = "s5", **fields: Any) -> pb.UpdateTraffic:
    request = pb.UpdateTraffic(submission_id=submission_id, endpoint="digits", split=pb.TrafficSplit(percent=percent, **fields))
    if version:
        request.beside.version = version
    return request


def a_roll_back(submission_id: str = "s9", deployment: int = 0) -> pb.RollBackEndpoint:
    return pb.RollBackEndpoint(submission_id=submission_id, endpoint="digits", deployment=deployment)


def progress(why: str, deployment: int = 1) -> pb.EndpointProgress:
    return pb.EndpointProgress(endpoint="digits", deployment=deployment, why=why)


def live(deployment: int = 1, port: int = 0) -> pb.EndpointLive:
    port = port or 7000 + deployment
    uri = f"http://h:{port + 1000}/v1/models/mnist:predict"
    return pb.EndpointLive(endpoint="digits", deployment=deployment, grpc_address=f"h:{port}", scoring_uri=uri)


def unhealthy(deployment: int = 1) -> pb.EndpointUnhealthy:
    return pb.EndpointUnhealthy(endpoint="digits", deployment=deployment, why="it died")


def failed(deployment: int = 1) -> pb.EndpointFailed:
    return pb.EndpointFailed(endpoint="digits", deployment=deployment, failure=FAILURE)


def deleted() -> pb.EndpointDeleted:
    return pb.EndpointDeleted(endpoint="digits")


def progressed(deployment: int = 1, why: str = "loading") -> Progressed:
    return Progressed("digits", deployment, why)


def came_up(deployment: int = 1, port: int = 7001) -> CameUp:
    return CameUp("digits", deployment, "d" * 64, ("serving_default",), f"h:{port}", f"http://h:{port}/v1/models/mnist:predict", NOW)


def went_down(deployment: int = 1) -> WentDown:
    return WentDown("digits", deployment, "it died")


def gave_up(deployment: int = 1) -> GaveUp:
    return GaveUp("digits", deployment, FAILURE)


def after(*facts: Fact) -> Endpoint:
    endpoint: Endpoint | None = None
    for fact in facts:
        endpoint = evolve(endpoint, fact)
    assert endpoint is not None
    return endpoint
