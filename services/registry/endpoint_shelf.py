"""The registry's documents about endpoints: what each has deployed, and deployments that were asked for."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from services.chassis import codec
from services.chassis.store import Documents
from services.registry.domain import endpoints
from services.registry.domain.endpoints import Asked, Endpoint
from trainyard._cloudevents import Received
from trainyard.endpoint.v1.endpoint_pb2 import DeleteEndpoint, DeployEndpoint, RollBackEndpoint, UpdateEndpoint, UpdateTraffic

TOPIC = "trainyard.endpoints"
ENDPOINT, ASKED, ANSWERED = "endpoint", "endpoint-asked", "endpoint-answered"


class EndpointShelf:
    """`ASKED` and `ANSWERED` are by submission id."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def apply(self, event: Received) -> None:
        match event.message:
            case DeployEndpoint() | UpdateEndpoint() | RollBackEndpoint() | UpdateTraffic() as request if endpoints.is_answerable(
                request, event.key
            ):
                if self._documents.get(ANSWERED, request.submission_id) is None:
                    self._documents.put(ASKED, request.submission_id, codec.dumps(endpoints.asked_by(request)))
            case DeleteEndpoint() as request:
                self._forget(request.endpoint)
            case fact if isinstance(fact, endpoints.FACTS):
                self._fold(fact)

    def users(self, model: str, version: int, aliases: Mapping[str, int]) -> list[str]:
        """What uses the version, or is asked to, in words. `aliases` are the model's."""
        deployed = {name: codec.loads(content, Endpoint) for name, content in self._documents.all(ENDPOINT)}
        asked = [codec.loads(content, Asked) for _, content in self._documents.all(ASKED)]
        found = [words for it in deployed.values() for words in endpoints.told(it, model, version, aliases)]
        found += [words for it in asked for words in endpoints.told_asked(it, deployed.get(it.endpoint), model, version, aliases)]
        return sorted(set(found))

    def _fold(self, fact: Message) -> None:
        if submission_id := getattr(fact, "submission_id", ""):
            self._documents.remove(ASKED, submission_id)
            self._documents.put(ANSWERED, submission_id, b"")
        name: str = getattr(fact, "endpoint", "")
        content = self._documents.get(ENDPOINT, name)
        before = Endpoint(name) if content is None else codec.loads(content, Endpoint)
        after = endpoints.evolve(before, fact)
        if after is not before:
            self._documents.put(ENDPOINT, name, codec.dumps(after))

    def _forget(self, endpoint: str) -> None:
        """What was asked for an endpoint before its deletion never takes place."""
        for submission_id, content in self._documents.all(ASKED):
            if codec.loads(content, Asked).endpoint == endpoint:
                self._documents.remove(ASKED, submission_id)
