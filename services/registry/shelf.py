"""The registry's documents: runs, model versions, the latest of each model, what submissions wait for and what they came to."""

from __future__ import annotations

from collections.abc import Iterator

from services.chassis import codec
from services.chassis.store import Documents
from services.registry.domain.registration import Answer, Asked, Known
from services.registry.domain.runs import Run
from trainyard._times import order
from trainyard.model.v1.model_pb2 import ModelVersion, ModelVersionRegistered

RUN, LATEST, VERSION, ANSWER, REGISTER = "run", "model", "version", "answer", "register"


class Shelf:
    """`REGISTER` documents are the worker's intents, by submission id; a version is written once and never again."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    # -- runs

    def run(self, run_id: str) -> Run | None:
        content = self._documents.get(RUN, run_id)
        return None if content is None else codec.loads(content, Run)

    def keep_run(self, run: Run) -> None:
        self._documents.put(RUN, run.id, codec.dumps(run))

    # -- submissions

    def known(self, model: str, submission_id: str) -> Known:
        return Known(self.latest(model), self.pending(submission_id), self.answer(submission_id))

    def keep(self, submission_id: str, before: Known, after: Known) -> None:
        if after.pending is None:
            self._documents.remove(REGISTER, submission_id)
        elif after.pending is not before.pending:
            self._documents.put(REGISTER, submission_id, codec.dumps(after.pending))
        if after.answer is not None and after.answer is not before.answer:
            self._documents.put(ANSWER, submission_id, codec.dumps(after.answer))

    def pending(self, submission_id: str) -> Asked | None:
        content = self._documents.get(REGISTER, submission_id)
        return None if content is None else codec.loads(content, Asked)

    def answer(self, submission_id: str) -> Answer | None:
        content = self._documents.get(ANSWER, submission_id)
        return None if content is None else codec.loads(content, Answer)

    # -- models

    def add(self, fact: ModelVersionRegistered) -> None:
        self._documents.put(VERSION, f"{fact.model}:{fact.version}", _shown(fact).SerializeToString(deterministic=True))
        self._documents.put(LATEST, fact.model, str(fact.version).encode())

    def latest(self, model: str) -> int:
        """0: there is no such model."""
        return int(self._documents.get(LATEST, model) or 0)

    def version(self, model: str, version: int) -> ModelVersion | None:
        content = self._documents.get(VERSION, f"{model}:{version}")
        return None if content is None else ModelVersion.FromString(content)

    def models(self) -> list[str]:
        return [model for model, _ in self._documents.all(LATEST)]

    def versions(self, model: str, before: int | None = None) -> Iterator[ModelVersion]:
        """Newest first, those before that one."""
        newest = self.latest(model) if before is None else min(before - 1, self.latest(model))
        found = (self.version(model, number) for number in range(newest, 0, -1))
        return (version for version in found if version is not None)

    def latest_of_each(self, before: tuple[int, str] | None = None) -> Iterator[ModelVersion]:
        """Newest first, those before that moment in nanoseconds and name."""
        found = (self.version(model, self.latest(model)) for model in self.models())
        ages = sorted(((order(it.registered_at), it.model) for it in found if it is not None), reverse=True)
        again = (self.version(model, self.latest(model)) for at, model in ages if before is None or (at, model) < before)
        return (version for version in again if version is not None)


def _shown(fact: ModelVersionRegistered) -> ModelVersion:
    return ModelVersion(
        model=fact.model,
        version=fact.version,
        digest=fact.digest,
        artifacts=fact.artifacts,
        lineage=fact.lineage,
        framework=fact.framework,
        framework_version=fact.framework_version,
        description=fact.description,
        tags=fact.tags,
        properties=fact.properties,
        requirements=fact.requirements if fact.HasField("requirements") else None,
        registered_at=fact.registered_at,
    )
