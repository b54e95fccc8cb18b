"""A version's files on this node: fetched once by digest, published whole by a rename, and each hashed before a server starts from it."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.serving.domain.model_version import ModelVersion, folder_of
from services.serving.ports import CannotServe, ModelFolder, Say
from trainyard._errors import PlatformUnavailableException, TrainyardException, UserErrorException
from trainyard._objects import ObjectMissing, Objects
from trainyard._paths import below, sha256_file
from trainyard.event.v1.artifact_pb2 import Artifact, Failure

_VERSIONS_AT_ONCE, _FILES_AT_ONCE = 4, 4
# What was left unfinished so long ago is nobody's any more.
_ABANDONED_SECONDS = 24 * 3600.0


class CachedModelFiles:
    """`<cache>/models/<digest>/`. Several processes may fetch the same version at once: the first to finish publishes it."""

    def __init__(self, objects: Objects, cache: Path) -> None:
        self._objects = objects
        self._folder = cache / "models"
        # Threads of its own: those that publish events must not have to wait for downloads.
        self._threads = ThreadPoolExecutor(_VERSIONS_AT_ONCE, thread_name_prefix="model-files")

    async def fetch(self, version: ModelVersion, say: Say) -> ModelFolder:
        canceled = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, version, say, canceled)
        finally:
            canceled.set()

    def _fetch(self, version: ModelVersion, say: Say, canceled: threading.Event) -> ModelFolder:
        files = list(version.files.files)
        digest = digest_of(files)
        folder = self._folder / digest
        try:
            if folder.is_dir():
                if not (fault := _fault(folder, files)):
                    return _found(folder, digest, version)
                say(f"{fault}; fetching {version.id} anew")
            else:
                fault = ""
            began = time.monotonic()
            try:
                self._make(folder, version, canceled)
            except CannotServe as error:
                raise _cannot(error.failure.code, _after(fault, error.failure.message), error.failure.target) from error
            except PlatformUnavailableException as error:
                raise PlatformUnavailableException(_after(fault, error.message), target=error.target) from error
            say(f"fetched {len(files)} files of {version.id} in {time.monotonic() - began:.1f} s")
        except UserErrorException as error:
            raise _cannot(
                "ArtifactCorrupt", f"Model {version.id} has a file that no folder can hold. {error.message}", error.target
            ) from error
        except OSError as error:
            raise _cannot("ModelFetchFailed", f"The files of {version.id} cannot be kept on this node: {error}", str(folder)) from error
        return _found(folder, digest, version)

    def _make(self, folder: Path, version: ModelVersion, canceled: threading.Event) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        _sweep(self._folder)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=self._folder))
        files = list(version.files.files)

        def get(file: Artifact) -> None:
            if not canceled.is_set():
                self._get(unfinished, file, version)

        try:
            with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
                try:
                    list(pool.map(get, files))
                finally:
                    canceled.set()  # one that failed is enough
            _publish(unfinished, folder, files)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _get(self, folder: Path, file: Artifact, version: ModelVersion) -> None:
        path = below(folder, file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._objects.get_file(file.object_key, path)
        except ObjectMissing as error:
            message = f"{file.path} of model {version.id} is gone from the object store (key {file.object_key}). Register the model again."
            raise _cannot("ArtifactMissing", message, file.path) from error
        except (PlatformUnavailableException, UserErrorException):
            raise
        except TrainyardException as error:
            raise _cannot("ModelFetchFailed", f"{file.path} of model {version.id} cannot be fetched. {error.message}", file.path) from error
        if (found := sha256_file(path)) != file.sha256:
            message = (
                f"{file.path} of model {version.id} is not what was registered: its SHA-256 is {found}, not {file.sha256}. "
                f"Somebody changed {file.object_key} in the object store. Register the model again."
            )
            raise _cannot("ArtifactCorrupt", message, file.path)


def digest_of(files: Sequence[Artifact]) -> str:
    """As the registry works it out: of the sorted lines "path NUL sha256"."""
    lines = sorted(f"{file.path}\0{file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _found(folder: Path, digest: str, version: ModelVersion) -> ModelFolder:
    return ModelFolder(folder / folder_of(version.files), digest, folder)


def _fault(folder: Path, files: Sequence[Artifact]) -> str:
    """What of it is not as it was registered; "" where all is. Whatever cleans caches may have taken single files away, and whoever reaches
    the node may have changed one: its size says nothing of that."""
    for file in files:
        path = below(folder, file.path)
        if not path.is_file():
            return f"{file.path} is gone from this node's cache"
        if path.stat().st_size != file.size_bytes or sha256_file(path) != file.sha256:
            return f"{file.path} changed in this node's cache: its SHA-256 is {sha256_file(path)}, not {file.sha256}"
    return ""


def _after(fault: str, why: str) -> str:
    """With what was found here, where that is why it was to be fetched."""
    return f"{fault}. It cannot be fetched anew: {why}" if fault else why


def _publish(unfinished: Path, folder: Path, files: Sequence[Artifact]) -> None:
    if folder.exists() and _fault(folder, files):
        # A server may have it open: what is renamed stays readable until it is closed.
        shutil.rmtree(folder.rename(unfinished.with_suffix(".damaged")), ignore_errors=True)
    try:
        unfinished.rename(folder)
    except OSError:
        if _fault(folder, files):  # otherwise another process was faster
            raise


def _sweep(models: Path) -> None:
    for path in models.glob("*.*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _cannot(code: str, message: str, target: str) -> CannotServe:
    return CannotServe(Failure(code=code, message=message[:3000], target=target[:1000]))
