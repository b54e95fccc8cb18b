"""Sources by HTTP: streamed, hashed on the way and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx

from services.dataset.ports import Progress
from trainyard import _http_source as http_source
from trainyard._http_source import Found, Limits
from trainyard._sources import mounted_path
from trainyard.dataset.v1.dataset_pb2 import SourceFile


class HttpSources:
    """At most `limits.at_once` files of a call are read at a time. Calls share nothing: a slow server holds up only those who named it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._tls = httpx.create_ssl_context()

    async def read(self, urls: Sequence[str], progress: Progress) -> list[SourceFile]:
        """The first file that cannot be read ends all the others."""
        found: dict[int, Found] = {}
        size = 0
        todo = iter(enumerate(urls))

        async def pull(client: httpx.AsyncClient) -> None:
            nonlocal size
            # An iterator that all pullers share.
            for index, url in todo:
                found[index] = await http_source.read(client, url, self._limits)
                size += found[index].size
                progress(len(found), size)

        async with http_source.client(self._limits, self._tls) as client:
            pullers = [asyncio.create_task(pull(client)) for _ in range(min(self._limits.at_once, len(urls)))]
            try:
                await asyncio.gather(*pullers)
            finally:
                for puller in pullers:
                    puller.cancel()
                await asyncio.gather(*pullers, return_exceptions=True)
        return [
            SourceFile(url=url, path=mounted_path(url), size_bytes=found[n].size, etag=found[n].etag, sha256=found[n].sha256)
            for n, url in enumerate(urls)
        ]
