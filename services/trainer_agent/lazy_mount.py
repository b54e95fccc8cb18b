"""Serves an input's files by FUSE, read-only: `python -m services.trainer_agent.lazy_mount`. A file is fetched when it is first opened.

Standard input has a JSON object: {"mount": folder, "files": [[SourceFile as base64, path below the folder], ...]}. The process ends when the
folder is unmounted, or with the agent that started it.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from services.chassis.settings import Settings
from services.trainer_agent.adapters.blobs import Blobs
from services.trainer_agent.adapters.cache_room import Lease
from services.trainer_agent.adapters.data import Data
from services.trainer_agent.ports import PreparationFailed
from trainyard._errors import TrainyardException
from trainyard._objects import MinioObjects
from trainyard.dataset.v1.dataset_pb2 import SourceFile


class Tree:
    """Folders and files by absolute path, as FUSE asks for them. What it raises are OSErrors with an errno."""

    def __init__(self, files: Mapping[str, Any], data: Data) -> None:
        self._files = {f"/{path}": source for path, source in files.items()}
        self._data = data
        self._names: dict[str, set[str]] = {"/": set()}
        for path in self._files:
            while path != "/":
                parent = path.rpartition("/")[0] or "/"
                self._names.setdefault(parent, set()).add(path.rpartition("/")[2])
                path = parent
        self._lock = threading.Lock()
        self._open: dict[int, Lease] = {}

    def attributes(self, path: str) -> dict[str, int]:
        if path in self._names:
            return {"st_mode": stat.S_IFDIR | 0o555, "st_nlink": 2}
        source = self._files.get(path)
        if source is None:
            raise OSError(errno.ENOENT, "no such file")
        return {"st_mode": stat.S_IFREG | 0o444, "st_nlink": 1, "st_size": source.size_bytes}

    def names(self, path: str) -> Iterator[str]:
        yield from (".", "..")
        yield from sorted(self._names.get(path, ()))

    def open(self, path: str) -> int:
        """A handle, after the file was fetched; for as long as it is open, the cache keeps the file."""
        if path not in self._files:
            raise OSError(errno.ENOENT, "no such file")
        try:
            lease, blob = self._data.borrow(self._files[path])
        except (PreparationFailed, TrainyardException, OSError) as error:
            sys.stderr.write(f"{path}: {error}\n")
            sys.stderr.flush()
            raise OSError(errno.EIO, str(error)) from error
        handle = os.open(blob, os.O_RDONLY)
        with self._lock:
            self._open[handle] = lease
        return handle

    def close(self, handle: int) -> None:
        with self._lock:
            lease = self._open.pop(handle, None)
        if lease is not None:
            os.close(handle)
            lease.close()


def serve(tree: Tree, mount: str) -> None:
    """Returns when it is unmounted."""
    import mfusepy

    class Operations(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            return tree.attributes(path)

        def readdir(self, path: str, fh: int) -> Any:
            return tree.names(path)

        def open(self, path: str, flags: int) -> int:
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise mfusepy.FuseOSError(errno.EROFS)
            return tree.open(path)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(fh, size, offset)

        def release(self, path: str, fh: int) -> int:
            tree.close(fh)
            return 0

    mfusepy.FUSE(Operations(), mount, foreground=True, ro=True, fsname="trainyard")


def main() -> int:
    asked = json.load(sys.stdin)
    settings = Settings.load("trainer_agent")
    store = settings.object_store
    objects = MinioObjects(store.endpoint, store.access_key, store.secret_key.get_secret_value(), store.bucket)
    data = Data(Blobs(settings.cache / "blobs", settings.agent.cache_bytes), objects)
    serve(Tree({path: SourceFile.FromString(base64.b64decode(content)) for content, path in asked["files"]}, data), asked["mount"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
