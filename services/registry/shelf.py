"""The registry's documents: runs, model versions and their aliases, what submissions wait for and what they came to."""

from __future__ import annotations

from collections.abc import Iterator

from services.chassis import codec
from services.chassis.store import Documents
from services.registry.domain import files, uploads
from services.registry.domain.model import Leaving, Removal, State, pointing
from services.registry.domain.registration import Answer, Asked, Known
from services.registry.domain.runs import Run
from trainyard._model_version import registered
from trainyard._times import order
from trainyard.model.v1.model_pb2 import ModelVersion, ModelVersionRegistered

RUN, LATEST, VERSION, ANSWER, REGISTER = "run", "model", "version", "answer", "register"
ALIASES, LEAVING, DELETE, CHANGED = "aliases", "leaving", "delete", "change-answer"
REMOVE, REMOVING, EMPTIED = "remove", "removing", "emptied"
KINDS = (RUN, LATEST, VERSION, ANSWER, REGISTER, ALIASES, LEAVING, DELETE, CHANGED, REMOVE, REMOVING, EMPTIED)


class Shelf:
    """`REGISTER` and `DELETE` documents are the workers' intents, by submission id. A version's number and files are written once."""

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
        pending = self.pending(submission_id)
        named = self.stored(model, pending.request.version) if pending is not None and pending.request.version else None
        return Known(self.latest(model), pending, self.answer(submission_id), named.digest if named is not None else "")

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

    # -- changes

    def state(self, model: str, version: int, submission_id: str) -> State:
        return State(
            self.latest(model),
            self.stored(model, version),
            self.aliases(model),
            self._leaving(model, version),
            self.deletion(submission_id) is not None,
            self.change(submission_id),
        )

    def keep_state(self, model: str, version: int, submission_id: str, before: State, after: State) -> None:
        if after.version is not None and after.version is not before.version:
            self._documents.put(VERSION, f"{model}:{version}", after.version.SerializeToString(deterministic=True))
            if after.version.HasField("deleted_at") and self.newest(model) is None:
                self._documents.put(EMPTIED, model, b"")
        if after.aliases is not before.aliases:
            self._documents.put(ALIASES, model, codec.dumps(dict(sorted(after.aliases.items()))))
        if after.leaving != before.leaving:
            if after.leaving:
                self._documents.put(LEAVING, f"{model}:{version}", after.leaving.encode())
            else:
                self._documents.remove(LEAVING, f"{model}:{version}")
        if after.answer is not None and after.answer is not before.answer:
            self._documents.put(CHANGED, submission_id, codec.dumps(after.answer))
            self._documents.remove(DELETE, submission_id)

    def change(self, submission_id: str) -> Answer | None:
        """What a request to change something came to."""
        content = self._documents.get(CHANGED, submission_id)
        return None if content is None else codec.loads(content, Answer)

    def deletion(self, submission_id: str) -> Leaving | None:
        content = self._documents.get(DELETE, submission_id)
        return None if content is None else codec.loads(content, Leaving)

    def begin_deletion(self, leaving: Leaving) -> None:
        self._documents.put(DELETE, leaving.submission_id, codec.dumps(leaving))

    # -- files that go

    def shares(self, digest: str, but: tuple[str, int]) -> bool:
        """Whether a version other than that one has these files, or one that waits for its answer is to have them."""
        for model, latest in self._documents.all(LATEST):
            for number in range(1, int(latest) + 1):
                version = self.stored(model, number)
                if version is not None and version.digest == digest and not version.HasField("deleted_at") and (model, number) != but:
                    return True
        waiting = (codec.loads(content, Asked).request for _, content in self._documents.all(REGISTER))
        return any(uploads.is_upload(request) and files.digest(request.files.files) == digest for request in waiting)

    def removal(self, submission_id: str) -> Removal | None:
        content = self._documents.get(REMOVE, submission_id)
        return None if content is None else codec.loads(content, Removal)

    def begin_removal(self, removal: Removal) -> None:
        self._documents.put(REMOVE, removal.submission_id, codec.dumps(removal))
        self._documents.put(REMOVING, removal.digest, removal.submission_id.encode())

    def end_removal(self, removal: Removal) -> None:
        self._documents.remove(REMOVE, removal.submission_id)
        self._documents.remove(REMOVING, removal.digest)

    def is_being_removed(self, digest: str) -> bool:
        return self._documents.get(REMOVING, digest) is not None

    def _leaving(self, model: str, version: int) -> str:
        return (self._documents.get(LEAVING, f"{model}:{version}") or b"").decode()

    # -- models

    def aliases(self, model: str) -> dict[str, int]:
        content = self._documents.get(ALIASES, model)
        return {} if content is None else codec.loads(content, dict[str, int])

    def add(self, fact: ModelVersionRegistered) -> None:
        self._documents.put(VERSION, f"{fact.model}:{fact.version}", registered(fact).SerializeToString(deterministic=True))
        self._documents.put(LATEST, fact.model, str(fact.version).encode())
        self._documents.remove(EMPTIED, fact.model)

    def latest(self, model: str) -> int:
        """The last number that was given; 0: there was no such model."""
        return int(self._documents.get(LATEST, model) or 0)

    def stored(self, model: str, version: int) -> ModelVersion | None:
        """As it is kept, deleted ones too, without its aliases."""
        content = self._documents.get(VERSION, f"{model}:{version}")
        return None if content is None else ModelVersion.FromString(content)

    def version(self, model: str, version: int) -> ModelVersion | None:
        """As it is shown; None for a deleted one."""
        found = self.stored(model, version)
        if found is None or found.HasField("deleted_at"):
            return None
        found.aliases[:] = pointing(self.aliases(model), version)
        return found

    def newest(self, model: str) -> ModelVersion | None:
        """The latest that is not deleted."""
        return next(self.versions(model), None)

    def models(self) -> list[str]:
        """Those that have a version which is not deleted."""
        emptied = {model for model, _ in self._documents.all(EMPTIED)}
        return [model for model, _ in self._documents.all(LATEST) if model not in emptied]

    def versions(self, model: str, before: int | None = None) -> Iterator[ModelVersion]:
        """Newest first, those before that one."""
        newest = self.latest(model) if before is None else min(before - 1, self.latest(model))
        found = (self.version(model, number) for number in range(newest, 0, -1))
        return (version for version in found if version is not None)

    def latest_of_each(self, before: tuple[int, str] | None = None) -> Iterator[ModelVersion]:
        """Newest first, those before that moment in nanoseconds and name."""
        found = (self.newest(model) for model, _ in self._documents.all(LATEST))
        ages = sorted(((order(it.registered_at), it.model, it.version) for it in found if it is not None), reverse=True)
        again = (self.version(model, number) for at, model, number in ages if before is None or (at, model) < before)
        return (version for version in again if version is not None)
