"""Serving's documents: endpoints, model versions, deployments that wait for a decision, and what submissions came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.chassis import codec
from services.chassis.store import Documents
from services.serving.domain.asking import Request, models_of
from services.serving.domain.decisions import Known, roll_back_target
from services.serving.domain.endpoint import Deployment, Endpoint
from services.serving.domain.model_version import ModelVersion
from trainyard.endpoint.v1.endpoint_pb2 import DeployEndpoint, ModelReference, RollBackEndpoint, UpdateEndpoint, UpdateTraffic
from trainyard.event.v1.artifact_pb2 import Failure

ENDPOINT, VERSION, ALIAS, LEAVING, ANSWER, DEPLOY = "endpoint", "model_version", "model_alias", "model_leaving", "answer", "deploy"


@dataclass(frozen=True)
class Asked:
    """A request that waits for its decision (it is one of the four), and the event that brought it."""

    request: DeployEndpoint | None
    event_id: str
    correlation_id: str
    update: UpdateEndpoint | None = None
    roll_back: RollBackEndpoint | None = None
    traffic: UpdateTraffic | None = None

    @classmethod
    def of(cls, request: Request, event_id: str, correlation_id: str) -> Asked:
        match request:
            case DeployEndpoint():
                return cls(request, event_id, correlation_id)
            case UpdateEndpoint():
                return cls(None, event_id, correlation_id, update=request)
            case UpdateTraffic():
                return cls(None, event_id, correlation_id, traffic=request)
        return cls(None, event_id, correlation_id, roll_back=request)

    @property
    def what(self) -> Request:
        found = self.request or self.update or self.roll_back or self.traffic
        assert found is not None
        return found


@dataclass(frozen=True)
class Answer:
    """What a submission came to: a deployment, a change, or a failure. None of them while it waits in the document `waits_in`."""

    endpoint: str
    waits_in: str = ""
    deployment: int = 0
    event_id: str = ""
    failure: Failure | None = None
    changed: bool = False

    @property
    def is_given(self) -> bool:
        return self.deployment > 0 or self.failure is not None or self.changed


class Shelf:
    """`DEPLOY` documents are the worker's intents; their keys are in the order in which the requests lie in the log."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def endpoint(self, name: str) -> Endpoint | None:
        content = self._documents.get(ENDPOINT, name)
        return None if content is None else codec.loads(content, Endpoint)

    def keep(self, endpoint: Endpoint) -> None:
        self._documents.put(ENDPOINT, endpoint.name, codec.dumps(endpoint))

    def endpoints(self, *, deleted: bool = False) -> list[Endpoint]:
        """By name, those that were deleted left out, unless `deleted`."""
        found = (codec.loads(content, Endpoint) for _, content in self._documents.all(ENDPOINT))
        return [endpoint for endpoint in found if deleted or not endpoint.deleted]

    # -- submissions

    def answer(self, submission_id: str) -> Answer | None:
        content = self._documents.get(ANSWER, submission_id)
        return None if content is None else codec.loads(content, Answer)

    def wait(self, key: str, asked: Asked) -> None:
        """The submission waits under that key; one that is known is left as it is."""
        request = asked.what
        if self.answer(request.submission_id) is None:
            self._put(request.submission_id, Answer(request.endpoint, waits_in=key))
            self._documents.put(DEPLOY, key, codec.dumps(asked))

    def is_open(self, submission_id: str, event_id: str) -> bool:
        """That event brought the submission, or would bring it, and nothing was answered yet."""
        known = self.answer(submission_id)
        if known is None:
            return True
        content = self._documents.get(DEPLOY, known.waits_in) if known.waits_in else None
        return content is not None and codec.loads(content, Asked).event_id == event_id

    def give(self, submission_id: str, answer: Answer) -> None:
        """The first answer counts."""
        known = self.answer(submission_id)
        if known is not None and known.is_given:
            return
        if known is not None:
            self._documents.remove(DEPLOY, known.waits_in)
        self._put(submission_id, answer)

    def waiting(self, endpoint: str) -> Iterator[Request]:
        for _, content in self._documents.all(DEPLOY):
            request = codec.loads(content, Asked).what
            if request.endpoint == endpoint:
                yield request

    def _put(self, submission_id: str, answer: Answer) -> None:
        self._documents.put(ANSWER, submission_id, codec.dumps(answer))

    # -- models

    def models(self, request: Request) -> list[ModelReference]:
        """Those that the request names, or, where it names none, those that the endpoint has, and would have again."""
        endpoint = self.endpoint(request.endpoint)
        if endpoint is None or isinstance(request, DeployEndpoint) or (isinstance(request, UpdateEndpoint) and request.models):
            return models_of(request)
        if isinstance(request, UpdateTraffic):
            return [ModelReference(model=it.model or endpoint.latest.model, version=it.version) for it in models_of(request)]
        target = roll_back_target(endpoint, request.deployment) if isinstance(request, RollBackEndpoint) else endpoint.latest
        return target.models if target is not None else []

    def known(self, request: Request) -> Known:
        """All that the registry has told of those models."""
        versions, aliases = {}, {}
        alias = request.alias if isinstance(request, DeployEndpoint | UpdateEndpoint) else ""
        for place, named in enumerate(self.models(request)):
            number = named.version
            if alias and not place:
                number = aliases[f"{named.model}@{alias}"] = self.alias(named.model, alias)
            version = self.version(named.model, number)
            if version is not None:
                versions[version.id] = version
        return Known(versions, aliases)

    def alias(self, model: str, alias: str) -> int:
        """The version that it stands for; 0: none."""
        return self._alias(model, alias)[0]

    def moved_by(self, model: str, alias: str) -> str:
        """Id of the event that moved it last; "" where none did."""
        return self._alias(model, alias)[1]

    def move(self, model: str, alias: str, version: int, event_id: str) -> None:
        """0: it was removed."""
        if version:
            self._documents.put(ALIAS, f"{model}@{alias}", f"{version} {event_id}".encode())
        else:
            self._documents.remove(ALIAS, f"{model}@{alias}")

    def _alias(self, model: str, alias: str) -> tuple[int, str]:
        content = self._documents.get(ALIAS, f"{model}@{alias}")
        version, _, event_id = content.decode().partition(" ") if content is not None else ("0", "", "")
        return int(version), event_id

    def version(self, model: str, version: int) -> ModelVersion | None:
        content = self._documents.get(VERSION, f"{model}:{version}")
        return None if content is None else codec.loads(content, ModelVersion)

    def versions(self, deployment: Deployment) -> tuple[ModelVersion, ...]:
        """Those of its models that were registered."""
        found = (self.version(it.model, it.version) for it in deployment.models)
        return tuple(it for it in found if it is not None)

    def add(self, version: ModelVersion) -> None:
        """A version never changes: the first word counts."""
        if self.version(version.model, version.version) is None:
            self._documents.put(VERSION, version.id, codec.dumps(version))

    def leave(self, model: str, number: int, submission_id: str) -> None:
        """Nobody deploys it from now on, unless that request is refused."""
        version = self.version(model, number)
        if version is not None and not version.leaving:
            self._documents.put(VERSION, version.id, codec.dumps(replace(version, leaving=submission_id)))
            self._documents.put(LEAVING, submission_id, version.id.encode())

    def stay(self, submission_id: str) -> None:
        """That request was refused; of others nothing is known here."""
        content = self._documents.get(LEAVING, submission_id)
        if content is None:
            return
        self._documents.remove(LEAVING, submission_id)
        model, _, number = content.decode().rpartition(":")
        version = self.version(model, int(number))
        if version is not None:
            self._documents.put(VERSION, version.id, codec.dumps(replace(version, leaving="")))
