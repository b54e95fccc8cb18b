"""Serving's documents: endpoints, model versions, deployments that wait for a decision, and what submissions came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.chassis import codec
from services.chassis.store import Documents
from services.serving.domain.endpoint import Endpoint
from services.serving.domain.model_version import ModelVersion
from trainyard.endpoint.v1.endpoint_pb2 import DeployEndpoint
from trainyard.event.v1.artifact_pb2 import Failure

ENDPOINT, VERSION, ANSWER, DEPLOY = "endpoint", "model_version", "answer", "deploy"


@dataclass(frozen=True)
class Asked:
    """A deployment that waits for its decision, and the event that brought it."""

    request: DeployEndpoint
    event_id: str
    correlation_id: str


@dataclass(frozen=True)
class Answer:
    """What a submission came to: a deployment, or a failure. Neither while it waits in the document `waits_in`."""

    endpoint: str
    waits_in: str = ""
    deployment: int = 0
    event_id: str = ""
    failure: Failure | None = None

    @property
    def is_given(self) -> bool:
        return self.deployment > 0 or self.failure is not None


class Shelf:
    """`DEPLOY` documents are the worker's intents; their keys are in the order in which the requests lie in the log."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def endpoint(self, name: str) -> Endpoint | None:
        content = self._documents.get(ENDPOINT, name)
        return None if content is None else codec.loads(content, Endpoint)

    def keep(self, endpoint: Endpoint) -> None:
        self._documents.put(ENDPOINT, endpoint.name, codec.dumps(endpoint))

    def endpoints(self) -> list[Endpoint]:
        """By name, those that were deleted left out."""
        found = (codec.loads(content, Endpoint) for _, content in self._documents.all(ENDPOINT))
        return [endpoint for endpoint in found if not endpoint.deleted]

    # -- submissions

    def answer(self, submission_id: str) -> Answer | None:
        content = self._documents.get(ANSWER, submission_id)
        return None if content is None else codec.loads(content, Answer)

    def wait(self, key: str, asked: Asked) -> None:
        """The submission waits under that key; one that is known is left as it is."""
        request = asked.request
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

    def waiting(self, endpoint: str) -> Iterator[DeployEndpoint]:
        for _, content in self._documents.all(DEPLOY):
            request = codec.loads(content, Asked).request
            if request.endpoint == endpoint:
                yield request

    def _put(self, submission_id: str, answer: Answer) -> None:
        self._documents.put(ANSWER, submission_id, codec.dumps(answer))

    # -- model versions

    def version(self, model: str, version: int) -> ModelVersion | None:
        content = self._documents.get(VERSION, f"{model}:{version}")
        return None if content is None else codec.loads(content, ModelVersion)

    def add(self, version: ModelVersion) -> None:
        """A version never changes: the first word counts."""
        if self.version(version.model, version.version) is None:
            self._documents.put(VERSION, version.id, codec.dumps(version))
