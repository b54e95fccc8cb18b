"""The registry's documents about environments: versions, the latest of each name, and what submissions came to."""

from __future__ import annotations

from services.chassis import codec
from services.chassis.store import Documents
from services.registry.domain.environments import Answer, Known
from trainyard.environment.v1.environment_pb2 import EnvironmentVersion

LATEST, VERSION, ANSWER = "environment", "environment-version", "environment-answer"


class EnvironmentShelf:
    """A version is written once and never again."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def known(self, name: str, submission_id: str) -> Known:
        return Known(self.version(name, self.latest(name)), self.answer(submission_id))

    def keep(self, submission_id: str, before: Known, after: Known) -> None:
        if after.answer is not None and after.answer is not before.answer:
            self._documents.put(ANSWER, submission_id, codec.dumps(after.answer))
        if after.latest is not None and after.latest is not before.latest:
            made = after.latest
            self._documents.put(VERSION, f"{made.name}:{made.version}", made.SerializeToString(deterministic=True))
            self._documents.put(LATEST, made.name, str(made.version).encode())

    def answer(self, submission_id: str) -> Answer | None:
        content = self._documents.get(ANSWER, submission_id)
        return None if content is None else codec.loads(content, Answer)

    def latest(self, name: str) -> int:
        """0: there is no such environment."""
        return int(self._documents.get(LATEST, name) or 0)

    def version(self, name: str, version: int) -> EnvironmentVersion | None:
        content = self._documents.get(VERSION, f"{name}:{version}")
        return None if content is None else EnvironmentVersion.FromString(content)

    def names(self) -> list[str]:
        return [name for name, _ in self._documents.all(LATEST)]

    def versions(self, name: str) -> list[EnvironmentVersion]:
        """Newest first."""
        found = (self.version(name, number) for number in range(self.latest(name), 0, -1))
        return [version for version in found if version is not None]

    def latest_of_each(self) -> list[EnvironmentVersion]:
        """By name."""
        found = (self.version(name, self.latest(name)) for name in sorted(self.names()))
        return [version for version in found if version is not None]
