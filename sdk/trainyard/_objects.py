"""The object store: immutable files under keys. MinIO in life, memory in tests; one contract suite for both."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainyard._errors import PlatformUnavailableException, TrainyardException

if TYPE_CHECKING:
    from minio import Minio

_POOL = 16
_BUSY = ("SlowDown", "ServiceUnavailable", "InternalError", "SlowDownRead", "SlowDownWrite", "XMinioServerNotInitialized")


class ObjectMissing(TrainyardException):
    """There is no object under that key."""

    code = "ObjectMissing"


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

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with prefix, sorted."""
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
        import urllib3
        from minio.error import S3Error

        try:
            return action(self._client)
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
        from datetime import timedelta

        return str(self._call(key, lambda client: client.presigned_get_object(self.bucket, key, timedelta(seconds=seconds))))

    def list(self, prefix: str) -> Iterator[str]:
        def names(client: Minio) -> list[str]:
            return sorted(str(found.object_name) for found in client.list_objects(self.bucket, prefix=prefix, recursive=True))

        yield from self._call(prefix, names)

    def remove(self, key: str) -> None:
        self._call(key, lambda client: client.remove_object(self.bucket, key))


class MemoryObjects:
    """For tests."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def exists(self, key: str) -> bool:
        return key in self.kept

    def size(self, key: str) -> int:
        return len(self.get_bytes(key))

    def put_bytes(self, key: str, data: bytes) -> None:
        self.kept[key] = bytes(data)

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

    def list(self, prefix: str) -> Iterator[str]:
        yield from sorted(key for key in self.kept if key.startswith(prefix))

    def remove(self, key: str) -> None:
        self.kept.pop(key, None)
