"""Sources in datastores: digests and sizes are known by the store's own listing, so that no file is read. Others go on to where they lead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from services.dataset.ports import Progress, Sources, Unreachable
from trainyard import _stored_sources
from trainyard._datastore_files import StoredFile, list_files
from trainyard._errors import UserErrorException
from trainyard._objects import Objects
from trainyard.dataset.v1.dataset_pb2 import SourceFile


class StoredOrOther:
    """A request's sources of both kinds: those of one kind stand together, in the order asked, URLs first."""

    def __init__(self, objects: Objects, others: Sources) -> None:
        self._objects = objects
        self._others = others

    async def read(self, urls: Sequence[str], progress: Progress) -> list[SourceFile]:
        """Raises PlatformUnavailableException while the store does not answer."""
        stored = [url for url in urls if _stored_sources.is_stored(url)]
        others = [url for url in urls if not _stored_sources.is_stored(url)]
        found = await self._others.read(others, progress) if others else []
        return found + (await asyncio.to_thread(self._expand, stored) if stored else [])

    def _expand(self, urls: Sequence[str]) -> list[SourceFile]:
        try:
            return _stored_sources.expand(urls, self._listing, SourceFile)
        except UserErrorException as error:
            raise Unreachable(error.target, f"{error.message} What to do: {error.hint}") from error

    def _listing(self, datastore: str, prefix: str) -> Iterable[StoredFile]:
        return list_files(self._objects, datastore, prefix)
