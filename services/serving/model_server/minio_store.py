"""The object store by the package minio, which is imported only where a model lies in one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from services.serving.model_server.config_files import BadConfig
from services.serving.model_server.object_store import Entry, StoreAway

_NEEDED = "models under s3:// need the package minio, which this environment has not: pip install minio"
_MD5 = re.compile(r"[0-9a-f]{32}")
_CONNECT_SECONDS, _READ_SECONDS, _AGAIN = 5.0, 30.0, 2
_BLOCK = 1 << 20


class MinioStore:
    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self._where = where

    @property
    def where(self) -> str:
        return self._where

    def list(self, bucket: str, prefix: str) -> Iterable[Entry]:
        try:
            return [
                Entry(it.object_name[len(prefix) :], it.size or 0, (it.etag or "").strip('"'))
                for it in self._client.list_objects(bucket, prefix=prefix, recursive=True)
                if not it.object_name.endswith("/")  # a folder, as consoles make them
            ]
        except Exception as error:
            raise self._away(f"s3://{bucket}/{prefix}", error) from error

    def get(self, bucket: str, key: str, etag: str, file: Path) -> str:
        answer = None
        try:
            answer = self._client.get_object(bucket, key, request_headers={"If-Match": f'"{etag}"'})
            with file.open("wb") as stream:
                for block in answer.stream(_BLOCK):
                    stream.write(block)
            # Of several parts the tag is no digest, and of an encrypted object neither.
            is_digest = _MD5.fullmatch(etag) and not any("server-side-encryption" in name.lower() for name in answer.headers)
            return etag if is_digest else ""
        except Exception as error:
            raise self._away(f"s3://{bucket}/{key}", error) from error
        finally:
            if answer is not None:
                answer.close()
                answer.release_conn()

    def _away(self, what: str, error: Exception) -> StoreAway:
        return StoreAway(f"{what} cannot be read from {self._where}: {type(error).__name__}: {' '.join(str(error).split())[:500]}")


def store_from(environment: Mapping[str, str]) -> MinioStore:
    """Where it is, and by which keys, as AWS's tools and MinIO's have it. Raises BadConfig."""

    def first(*names: str) -> str:
        return next((environment[name] for name in names if environment.get(name)), "")

    told = first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MINIO_ENDPOINT", "S3_ENDPOINT")
    if not told:
        raise BadConfig("models under s3:// need to know where the object store is: set AWS_ENDPOINT_URL, e.g. http://127.0.0.1:9000")
    address = urlsplit(told if "://" in told else f"http://{told}")
    if address.scheme not in ("http", "https") or not address.hostname or address.path not in ("", "/"):
        raise BadConfig("AWS_ENDPOINT_URL is no address of an object store: write http://HOST:PORT or https://HOST")
    try:
        import urllib3
        from minio import Minio
    except ImportError as error:
        raise BadConfig(_NEEDED) from error
    client = Minio(
        address.netloc.rpartition("@")[2],
        access_key=first("AWS_ACCESS_KEY_ID", "MINIO_ACCESS_KEY") or None,
        secret_key=first("AWS_SECRET_ACCESS_KEY", "MINIO_SECRET_KEY") or None,
        session_token=first("AWS_SESSION_TOKEN") or None,
        region=first("AWS_REGION", "AWS_DEFAULT_REGION") or None,
        secure=address.scheme == "https",
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS), retries=urllib3.Retry(_AGAIN, backoff_factor=0.2)
        ),
    )
    return MinioStore(client, f"{address.scheme}://{address.netloc.rpartition('@')[2]}")
