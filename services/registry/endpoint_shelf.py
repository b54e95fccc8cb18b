"""The registry's documents about endpoints: what each has deployed, and deployments that were asked for."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from services.chassis import codec
from services.chassis.store import Documents
from services.registry.domain import endpoints
from services.registry.domain.endpoints import Asked, Endpoint
from trainyard._cloudevents import Received
from trainyard.endpoint.v1.endpoint_pb2 import DeleteEndpoint, DeployEndpoint

TOPIC = "trainyard.endpoints"
ENDPOINT, ASKED, ANSWERED = "endpoint", "endpoint-asked", "endpoint-answered"


class EndpointShelf:
    """`ASKED` and `ANSWERED` are by submission id."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def apply(self, event: Received) -> None:
        match event.message:
            case DeployEndpoint() as request if endpoints.is_answerable(request, event.key):
                if self._documents.get(ANSWERED, request.submission_id) is None:
                    asked = Asked(request.endpoint, endpoints.uses_of(request))
                    self._documents.put(ASKED, request.submission_id, codec.dumps(asked))
            case DeleteEndpoint() as request:
                self._forget(request.endpoint)
            case fact if isinstance(fact, endpoints.FACTS):
                self._fold(fact)

    def users(self, model: str, version: int, pointing: Iterable[str]) -> list[str]:
        """What uses the version, or is asked to, in words. `pointing`: the aliases that point at it."""
        aliases = frozenset(pointing)
        deployed = [codec.loads(content, Endpoint) for _, content in self._documents.all(ENDPOINT)]
        asked = [codec.loads(content, Asked) for _, content in self._documents.all(ASKED)]
        found = {words for endpoint in deployed for words in endpoints.told(endpoint, model, version, aliases)}
        found |= {
            f"endpoint {it.endpoint!r} is about to be deployed with it"
            for it in asked
            if any(u.is_of(model, version, aliases) for u in it.uses)
        }
        return sorted(found)

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
