"""How a datastore's files lie in the object store. The client writes them, the dataset service lists them.

    datastores/blobs/<sha256>                               the bytes, once for each content, never changed
    datastores/files/<datastore>/<path>/@<sha256>.<bytes>   an empty object: "at this path lie these bytes"
    datastores/names/<datastore>                            JSON: which datastores there are

Of several marks at one path the one written last counts, by the store's clock. So a path may be overwritten, and a dataset's version,
which names digests, still has its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainyard._errors import UserErrorException
from trainyard._paths import safe_relpath

if TYPE_CHECKING:
    from trainyard._objects import Objects

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}\Z")
_MARK = re.compile(r"(?P<path>.+)/@(?P<sha256>[0-9a-f]{64})\.(?P<size>[0-9]{1,20})\Z", re.DOTALL)
_LONGEST_PATH = 800
_GLOB = re.compile(r"[*?]")


@dataclass(frozen=True)
class StoredFile:
    """`path` below its datastore; `size` in bytes."""

    path: str
    size: int
    sha256: str
    object_key: str


def checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.match(name):
        what = f"{name!r} is no datastore's name: a letter or digit, then letters, digits, _ and -, at most 255."
        raise UserErrorException(what, target=str(name)[:300])
    return name


def checked_path(path: str) -> str:
    """A file's path in a datastore. Raises UserErrorException: "..", absolute, odd characters, too long, * or ?."""
    safe_relpath(path)
    if _GLOB.search(path):
        raise UserErrorException(f"{path!r} has a * or ?, which stand for other characters in a datastore's paths.", target=path[:300])
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > 255 for part in path.split("/")):
        what = f"{path[:100]!r}... is too long: {_LONGEST_PATH} bytes are allowed, 255 between two slashes."
        raise UserErrorException(what, target=path[:300])
    return path


def blob_key(sha256: str) -> str:
    return f"datastores/blobs/{sha256}"


def mark_key(datastore: str, path: str, size: int, sha256: str) -> str:
    return f"datastores/files/{datastore}/{path}/@{sha256}.{size}"


def name_key(datastore: str) -> str:
    return f"datastores/names/{datastore}"


def list_files(objects: Objects, datastore: str, prefix: str = "") -> Iterator[StoredFile]:
    """Files whose path begins with `prefix`, sorted by path."""
    root = f"datastores/files/{checked_name(datastore)}/"
    newest: dict[str, tuple[object, StoredFile]] = {}
    for entry in objects.entries(root + prefix):
        found = _MARK.match(entry.key.removeprefix(root))
        if found is None:
            continue
        file = StoredFile(found["path"], int(found["size"]), found["sha256"], blob_key(found["sha256"]))
        rank = (entry.modified, entry.key)
        if file.path not in newest or newest[file.path][0] < rank:  # type: ignore[operator]
            newest[file.path] = (rank, file)
    for path in sorted(newest):
        yield newest[path][1]


def find(objects: Objects, datastore: str, path: str) -> StoredFile | None:
    """The file at exactly this path."""
    return next((file for file in list_files(objects, datastore, f"{path}/@") if file.path == path), None)
