"""Source folders of scoring scripts on this node: fetched once, each file checked, published whole by a rename; then copied, as code may
write into its own folder."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
from pathlib import Path

from services.serving.ports import CannotServe
from trainyard import _snapshot, _transfer
from trainyard._errors import PlatformUnavailableException, TrainyardException, UserErrorException
from trainyard._objects import ObjectMissing, Objects
from trainyard._paths import below
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1.spec_pb2 import Source

_ABANDONED_SECONDS = 24 * 3600.0


class CachedSources:
    """`<cache>/sources/<digest of the source's description>/`."""

    def __init__(self, objects: Objects, cache: Path) -> None:
        self._objects = objects
        self._folder = cache / "sources"
        self._lock = threading.Lock()  # two deployments of one source fetch it once

    def copy(self, source: Source, target: Path) -> None:
        """The source as a folder of its own, which must not be there yet. Blocking.

        Raises CannotServe, and PlatformUnavailableException where the object store does not answer.
        """
        try:
            with self._lock:
                cached = self._cached(source)
            shutil.copytree(cached, target)
        except ObjectMissing as error:
            raise _cannot("SnapshotMissing", f"The source folder of the entry script is gone from the object store: {error}") from error
        except PlatformUnavailableException:
            raise
        except (UserErrorException, _transfer.WrongBytes) as error:
            raise _cannot("SnapshotCorrupt", f"The source folder of the entry script is not what was sent. {error.message}") from error
        except TrainyardException as error:
            raise _cannot("SnapshotFetchFailed", f"The source folder of the entry script cannot be fetched. {error.message}") from error
        except OSError as error:
            raise _cannot("SnapshotFetchFailed", f"The source folder cannot be kept on this node: {error}") from error

    def _cached(self, source: Source) -> Path:
        folder = self._folder / hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
        if folder.is_dir():
            return folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=self._folder))
        try:
            self._fetch(source, unfinished)
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return folder

    def _fetch(self, source: Source, folder: Path) -> None:
        if source.WhichOneof("where") == "snapshot":
            _snapshot.restore(self._objects, source.snapshot, folder, show_progress=False)
            return
        for path, content in source.inline.files.items():
            target = below(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def _sweep(self) -> None:
        for path in self._folder.glob("*.*"):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _cannot(code: str, message: str) -> CannotServe:
    return CannotServe(Failure(code=code, message=message[:3000], target="source_directory"))
