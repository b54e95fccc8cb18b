"""The object store: immutable files under keys. MinIO in life, memory in tests; one contract suite for both."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainyard._errors import PlatformUnavailableException, TrainyardException

if TYPE_CHECKING:
    from minio import Minio

_POOL = 32
_BLOCK = 1 << 20
_BUSY = ("SlowDown", "ServiceUnavailable", "InternalError", "SlowDownRead", "SlowDownWrite", "XMinioServerNotInitialized")


class ObjectMissing(TrainyardException):
    """There is no object under that key."""

    code = "ObjectMissing"


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it: `modified` is the store's own time."""

    key: str
    size: int
    modified: datetime


class Objects(Protocol):
    """Keys are relative POSIX paths. Every method raises PlatformUnavailableException where the store does not answer."""

    def exists(self, key: str) -> bool: ...

    def size(self, key: str) -> int:
        """Bytes. Raises ObjectMissing."""
        ...

    def put_bytes(self, key: str, data: bytes) -> None: ...

    def put_file(self, key: str, path: Path) -> None: ...

    def get_bytes(self, key: str) -> bytes:
        """Raises ObjectMissing."""
        ...

    def get_file(self, key: str, path: Path) -> None:
        """Writes the object to `path`, whose folder exists. Raises ObjectMissing."""
        ...

    def signed_url(self, key: str, seconds: int) -> str:
        """A URL under which anyone may GET the object for so long, with a client that asks for URLs."""
        ...

    def put_parts(self, key: str, parts: Iterable[bytes]) -> None:
        """One object of several parts, sent side by side; all but the last of one size, at least 5 MiB.

        Parts that an earlier, broken attempt at this key has sent are not sent again. What `parts` raises ends it: then there is no object.
        """
        ...

    def read(self, key: str, start: int = 0) -> Iterator[bytes]:
        """The content from an offset on, block by block. Raises ObjectMissing."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with prefix, sorted."""
        ...

    def entries(self, prefix: str) -> Iterator[Entry]:
        """As `list`, with what the store says of each; read as the store lists, so that a long list needs no memory."""
        ...

    def remove(self, key: str) -> None:
        """No error if it is not there."""
        ...


class MinioObjects:
    def __init__(self, endpoint: str, access_key: str, secret_key: str, bucket: str) -> None:
        self.endpoint = endpoint
        self.bucket = bucket
        self._keys = (access_key, secret_key)

    @cached_property
    def _client(self) -> Minio:
        import urllib3
        from minio import Minio

        http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60),
            maxsize=_POOL,
            retries=urllib3.Retry(total=4, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        )
        # A named region saves the question for the bucket's, which most users here may not ask.
        return Minio(self.endpoint, *self._keys, secure=False, region="us-east-1", http_client=http)

    def _call(self, key: str, action: Callable[[Minio], Any]) -> Any:
        with self._told(key):
            return action(self._client)

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """What the client library raises becomes one of ours."""
        import urllib3
        from minio.error import S3Error

        try:
            yield
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject"):
                raise ObjectMissing(f"The object store has no {key}.", target=key) from error
            if error.code in _BUSY:
                raise self._unavailable(error) from error
            raise TrainyardException(f"The object store refused {key}: {error.code}: {error.message}", target=key) from error
        except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> PlatformUnavailableException:
        return PlatformUnavailableException(
            f"The object store at {self.endpoint} does not answer: {error}", target=self.endpoint, hint="see `make status`"
        )

    def make_bucket(self) -> None:
        self._call(self.bucket, lambda client: client.bucket_exists(self.bucket) or client.make_bucket(self.bucket))

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except ObjectMissing:
            return False
        return True

    def size(self, key: str) -> int:
        return int(self._call(key, lambda client: client.stat_object(self.bucket, key)).size)

    def put_bytes(self, key: str, data: bytes) -> None:
        self._call(key, lambda client: client.put_object(self.bucket, key, io.BytesIO(data), len(data)))

    def put_file(self, key: str, path: Path) -> None:
        self._call(key, lambda client: client.fput_object(self.bucket, key, str(path)))

    def get_bytes(self, key: str) -> bytes:
        def read(client: Minio) -> bytes:
            response = client.get_object(self.bucket, key)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

        data: bytes = self._call(key, read)
        return data

    def get_file(self, key: str, path: Path) -> None:
        self._call(key, lambda client: client.fget_object(self.bucket, key, str(path)))

    def signed_url(self, key: str, seconds: int) -> str:
        return str(self._call(key, lambda client: client.presigned_get_object(self.bucket, key, timedelta(seconds=seconds))))

    def put_parts(self, key: str, parts: Iterable[bytes]) -> None:
        from trainyard._multipart import Multipart

        self._call(key, lambda client: Multipart(client, self.bucket, key).send(parts))

    def read(self, key: str, start: int = 0) -> Iterator[bytes]:
        with self._told(key):
            response = self._client.get_object(self.bucket, key, offset=start)
            try:
                yield from response.stream(_BLOCK)
            finally:
                response.close()
                response.release_conn()

    def list(self, prefix: str) -> Iterator[str]:
        yield from sorted(entry.key for entry in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        with self._told(prefix):
            for found in self._client.list_objects(self.bucket, prefix=prefix, recursive=True):
                yield Entry(str(found.object_name), int(found.size or 0), found.last_modified or datetime.fromtimestamp(0, UTC))

    def remove(self, key: str) -> None:
        self._call(key, lambda client: client.remove_object(self.bucket, key))


class MemoryObjects:
    """For tests."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self._written: dict[str, int] = {}

    def exists(self, key: str) -> bool:
        return key in self.kept

    def size(self, key: str) -> int:
        return len(self.get_bytes(key))

    def put_bytes(self, key: str, data: bytes) -> None:
        self.kept[key] = bytes(data)
        self._written[key] = max(self._written.values(), default=0) + 1

    def put_file(self, key: str, path: Path) -> None:
        self.put_bytes(key, path.read_bytes())

    def get_bytes(self, key: str) -> bytes:
        if key not in self.kept:
            raise ObjectMissing(f"The object store has no {key}.", target=key)
        return self.kept[key]

    def get_file(self, key: str, path: Path) -> None:
        path.write_bytes(self.get_bytes(key))

    def signed_url(self, key: str, seconds: int) -> str:
        return f"data:application/octet-stream;base64,{base64.b64encode(self.get_bytes(key)).decode()}"

    def put_parts(self, key: str, parts: Iterable[bytes]) -> None:
        self.put_bytes(key, b"".join(parts))

    def read(self, key: str, start: int = 0) -> Iterator[bytes]:
        data = self.get_bytes(key)
        for offset in range(start, len(data), _BLOCK):
            yield data[offset : offset + _BLOCK]

    def list(self, prefix: str) -> Iterator[str]:
        yield from sorted(key for key in self.kept if key.startswith(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Times count the writes."""
        for key in self.list(prefix):
            yield Entry(key, len(self.kept[key]), datetime.fromtimestamp(0, UTC) + timedelta(seconds=self._written.get(key, 0)))

    def remove(self, key: str) -> None:
        self.kept.pop(key, None)
