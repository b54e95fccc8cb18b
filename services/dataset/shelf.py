"""The dataset service's documents: versions, the latest of each name, what submissions wait for and what they came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from services.chassis import codec
from services.chassis.store import Documents, Store
from services.dataset.domain import Answer, Asked, Known
from trainyard.dataset.v1.dataset_pb2 import Dataset, DatasetVersionRegistered

LATEST, VERSION, ANSWER, PROBE, UNREGISTERED = "dataset", "version", "answer", "probe", "unregistered"


class Shelf:
    """`PROBE` documents are the worker's intents, by submission id; a version is written once and never again."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def known(self, name: str, submission_id: str) -> Known:
        return Known(self.latest(name), self.pending(submission_id), self.answer(submission_id), self.is_unregistered(name))

    def keep(self, submission_id: str, before: Known, after: Known) -> None:
        if after.pending is None:
            self._documents.remove(PROBE, submission_id)
        elif after.pending is not before.pending:
            self._documents.put(PROBE, submission_id, codec.dumps(after.pending))
        if after.answer is not None and after.answer is not before.answer:
            self._documents.put(ANSWER, submission_id, codec.dumps(after.answer))

    def add(self, fact: DatasetVersionRegistered) -> None:
        self._documents.put(VERSION, f"{fact.name}:{fact.version}", _shown(fact).SerializeToString(deterministic=True))
        self._documents.put(LATEST, fact.name, str(fact.version).encode())
        self._documents.remove(UNREGISTERED, fact.name)

    def take_off(self, name: str) -> None:
        """Its versions stay, and the count of them."""
        self._documents.put(UNREGISTERED, name, b"")

    def is_unregistered(self, name: str) -> bool:
        return self._documents.get(UNREGISTERED, name) is not None

    def pending(self, submission_id: str) -> Asked | None:
        content = self._documents.get(PROBE, submission_id)
        return None if content is None else codec.loads(content, Asked)

    def answer(self, submission_id: str) -> Answer | None:
        content = self._documents.get(ANSWER, submission_id)
        return None if content is None else codec.loads(content, Answer)

    def latest(self, name: str) -> int:
        """0: there is no such dataset."""
        return int(self._documents.get(LATEST, name) or 0)

    def version(self, name: str, version: int) -> Dataset | None:
        content = self._documents.get(VERSION, f"{name}:{version}")
        return None if content is None else Dataset.FromString(content)

    def names(self) -> list[str]:
        """Those on the lists."""
        return [name for name, _ in self._documents.all(LATEST) if not self.is_unregistered(name)]

    def latest_of_each(self, after: str = "") -> Iterator[Dataset]:
        """By name, those whose name comes after that one."""
        for name in sorted(name for name in self.names() if name > after):
            found = self.version(name, self.latest(name))
            if found is not None:
                yield found


def versions(store: Store) -> Callable[[str, int], Dataset | None]:
    """For who is not in a handler: a version by its number, None where there is no such."""

    def found(name: str, version: int) -> Dataset | None:
        with store.reading() as documents:
            return Shelf(documents).version(name, version)

    return found


def _shown(fact: DatasetVersionRegistered) -> Dataset:
    return Dataset(
        name=fact.name,
        version=fact.version,
        description=fact.description,
        tags=fact.tags,
        files=fact.files,
        registered_at=fact.registered_at,
        steps=fact.steps,
        manifest_key=fact.manifest_key,
        manifest_sha256=fact.manifest_sha256,
        count=fact.count,
        total_bytes=fact.total_bytes,
    )
