"""Events of trainyard.environments in, documents and facts out."""

from __future__ import annotations

from collections.abc import Iterable

from services.chassis.handler import Emit, InvalidMessage
from services.chassis.store import Documents
from services.registry.domain import environments
from services.registry.environment_shelf import EnvironmentShelf
from trainyard._cloudevents import Received
from trainyard.environment.v1.environment_pb2 import EnvironmentRejected, EnvironmentVersionRegistered, RegisterEnvironment

TOPIC = "trainyard.environments"


def react(event: Received, request: RegisterEnvironment, documents: Documents) -> Iterable[Emit]:
    """The answer, at once. Raises InvalidMessage for what no answer could name."""
    if why := environments.unanswerable(request):
        raise InvalidMessage(why)
    if event.key != request.name:
        what = f"the record's key {event.key[:200]!r} must be the environment's name {request.name[:200]!r}"
        raise InvalidMessage(f"{what}: order within a key is what counts")
    known = EnvironmentShelf(documents).known(request.name, request.submission_id)
    return [Emit(TOPIC, fact.name, fact) for fact in environments.decide(known, request, event.time)]


def apply(event: Received, documents: Documents) -> None:
    """Facts change what is known; requests alone do not, since each is answered by a fact."""
    fact = event.message
    if isinstance(fact, EnvironmentVersionRegistered | EnvironmentRejected):
        shelf = EnvironmentShelf(documents)
        before = shelf.known(fact.name, fact.submission_id)
        shelf.keep(fact.submission_id, before, environments.evolve(before, fact, event.causation_id))
