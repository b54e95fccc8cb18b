"""Large objects to MinIO in parts: side by side, each tried again by itself, and going on where a broken attempt ended."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minio import Minio
    from minio.datatypes import Part

_AT_ONCE = 4


class Multipart:
    """The client library's calls for this are named as private; tests/contract/test_objects.py holds them to what is used here."""

    def __init__(self, client: Minio, bucket: str, key: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key

    def send(self, parts: Iterable[bytes]) -> None:
        """The store checks each part against the digest in its request; the object appears once all are there."""
        upload, there = self._earlier()
        upload = upload or self._client._create_multipart_upload(self._bucket, self._key, {})
        slots = threading.Semaphore(_AT_ONCE + 1)
        sent: list[Future[Part]] = []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for number, data in enumerate(parts, 1):
                    # Not all of a large file waits in memory.
                    slots.acquire()
                    future = pool.submit(self._one, upload, number, data, there.get(number))
                    future.add_done_callback(lambda _: slots.release())
                    sent.append(future)
                    for done in sent:
                        if done.done():
                            done.result()
                found = [future.result() for future in sent]
            except BaseException:
                for future in sent:
                    future.cancel()
                raise
        self._client._complete_multipart_upload(self._bucket, self._key, upload, found)

    def _one(self, upload: str, number: int, data: bytes, there: Part | None) -> Part:
        from minio.datatypes import Part

        if there is not None and there.size == len(data) and there.etag == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return Part(number, there.etag)
        return Part(number, self._client._upload_part(self._bucket, self._key, data, None, upload, number))

    def _earlier(self) -> tuple[str, dict[int, Part]]:
        """The newest broken attempt at this key and the parts it has sent; "" where there is none."""
        uploads = self._client._list_multipart_uploads(self._bucket, prefix=self._key).uploads
        mine = [upload for upload in uploads if upload.object_name == self._key and upload.upload_id]
        if not mine:
            return "", {}
        newest = max(mine, key=lambda upload: upload.initiated_time.timestamp() if upload.initiated_time else 0.0)
        upload_id = str(newest.upload_id)
        return upload_id, {part.part_number: part for part in self._parts(upload_id)}

    def _parts(self, upload: str) -> Iterator[Part]:
        marker: str | None = None
        while True:
            answer = self._client._list_parts(self._bucket, self._key, upload, part_number_marker=marker)
            yield from answer.parts
            if not answer.is_truncated or not answer.next_part_number_marker:
                return
            marker = str(answer.next_part_number_marker)
