"""A model's files on this machine: sent under the digest of the whole, fetched and checked, found inside a deployment."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from trainyard._errors import ModelNotFoundException, UserErrorException
from trainyard._meter import Meter
from trainyard._paths import safe_relpath, sha256_file

if TYPE_CHECKING:
    from trainyard._objects import Objects
    from trainyard.event.v1.artifact_pb2 import ArtifactSet

# Where Azure's client keeps downloaded models, below the working folder.
LOCAL = "azureml-models"
IN_DEPLOYMENT = "AZUREML_MODEL_DIR"
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,254}\Z")
_PARALLEL = 8


class Upload:
    """One local file or folder, listed and hashed when made; `send` may be called again."""

    def __init__(self, model_path: str | os.PathLike[str], *, show_progress: bool = True) -> None:
        """Raises UserErrorException for what is not there, empty, a link that leads out, or has a name no store can keep."""
        from trainyard._snapshot import digest_of
        from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

        self._shown = show_progress
        root = Path(os.path.abspath(model_path))
        self._local = dict(sorted(_listed(root, str(model_path))))
        sizes = {path: _status(local).st_size for path, local in self._local.items()}
        for path, local in self._local.items():
            _refuse(path, local, sizes[path])
        self._total = sum(sizes.values())
        with Meter("reading the model", self._total, shown=show_progress) as meter, ThreadPoolExecutor(_PARALLEL) as pool:

            def digest(path: str) -> str:
                try:
                    found = sha256_file(self._local[path])
                except OSError as error:
                    _unreadable(error)
                meter.add(sizes[path])
                return found

            digests = dict(zip(self._local, pool.map(digest, self._local), strict=True))
        self.digest = digest_of(list(digests.items()))
        self.files: ArtifactSet = ArtifactSet(
            files=[
                Artifact(path=path, size_bytes=sizes[path], sha256=digests[path], object_key=f"uploads/models/{self.digest}/{path}")
                for path in self._local
            ]
        )

    def send(self, objects: Objects, *, again: bool = False) -> None:
        """Uploads what the store lacks, or all of it `again`. Raises UserErrorException for a file that changed meanwhile."""
        with Meter("uploading the model", self._total, shown=self._shown) as meter, ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(lambda file: self._send(objects, file, meter, again), self.files.files))

    def _send(self, objects: Objects, file: Any, meter: Meter, again: bool) -> None:
        from trainyard._objects import ObjectMissing

        local = self._local[file.path]
        try:
            there = not again and objects.size(file.object_key) == file.size_bytes
        except ObjectMissing:
            there = False
        if not there:
            before = local.stat()
            objects.put_file(file.object_key, local)
            after = local.stat()
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or after.st_size != file.size_bytes:
                raise UserErrorException(f"{local} changed while it was being sent.", target=str(local), hint="register again")
        meter.add(file.size_bytes)


def _listed(root: Path, said: str) -> Iterator[tuple[str, Path]]:
    """(path below the root's parent, where it is)."""
    if root.is_file():
        yield _plain(root.name), root
        return
    if not root.is_dir():
        raise UserErrorException(f"The model_path {said!r} does not exist, or is neither a file nor a folder.", target=said)
    real_root, found = os.path.realpath(root), 0
    for here, folders, names in os.walk(root, onerror=_unreadable):
        folders.sort()
        linked = [name for name in folders if (Path(here) / name).is_symlink()]
        if linked:
            link = Path(here) / linked[0]
            raise UserErrorException(
                f"{link} is a link to a folder.", target=str(link), hint="copy what it leads to into the model's folder"
            )
        for name in sorted(names):
            path = Path(here) / name
            real = os.path.realpath(path)
            if os.path.commonpath([real, real_root]) != real_root:
                raise UserErrorException(f"{path} is a link that leads out of {root}.", target=str(path), hint="copy the file there")
            if not stat.S_ISREG(_status(path).st_mode):
                raise UserErrorException(f"{path} is no regular file.", target=str(path))
            found += 1
            yield _plain(f"{root.name}/{path.relative_to(root).as_posix()}"), path
    if not found:
        raise UserErrorException(f"The model_path {said!r} is a folder without files.", target=said)


def _refuse(path: str, local: Path, size: int) -> None:
    """Raises UserErrorException for what the registry would refuse, before anything is sent."""
    from trainyard import _keras_archive
    from trainyard._model_contents import HEAD_BYTES, by_head, is_keras

    try:
        with local.open("rb") as file:
            why = by_head(path, file.read(HEAD_BYTES), size)
            if not why and is_keras(path):
                why = _keras_archive.refused(file)
    except OSError as error:
        _unreadable(error)
    if why:
        raise UserErrorException(f"File {path!r} {why}.", code="ModelRefused", target=str(local))


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        _unreadable(error)


def _unreadable(error: OSError) -> NoReturn:
    raise UserErrorException(f"{error.filename} cannot be read: {error.strerror}", target=str(error.filename)) from error


def _plain(path: str) -> str:
    try:
        return safe_relpath(path)
    except (UserErrorException, UnicodeEncodeError) as error:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise UserErrorException(f"A model cannot hold a file named {shown!r}.", target=shown[:200], hint="rename it") from error


def download(objects: Objects, files: Sequence[Any], folder: Path, *, show_progress: bool = True) -> None:
    """Each file below `folder` under its path, checked against its digest; one that is there already with these bytes is left."""
    from trainyard._details import fetch
    from trainyard._paths import below

    folder.mkdir(parents=True, exist_ok=True)
    targets = [(file, below(folder, file.path)) for file in files]

    with (
        Meter("downloading the model", sum(file.size_bytes for file in files), shown=show_progress) as meter,
        ThreadPoolExecutor(_PARALLEL) as pool,
    ):

        def get(pair: tuple[Any, Path]) -> None:
            file, target = pair
            if not (target.is_file() and target.stat().st_size == file.size_bytes and sha256_file(target) == file.sha256):
                fetch(objects, file, target)
            meter.add(file.size_bytes)

        list(pool.map(get, targets))


def local_path(name: str, version: int | None = None) -> Path:
    """Where a model lies inside a deployment ($AZUREML_MODEL_DIR), or where a client has downloaded it (./azureml-models).

    Raises ModelNotFoundException with what there is.
    """
    if not _NAME.match(name) or ".." in name:
        raise ModelNotFoundException(f"{name!r} is no model name.", target=name)
    deployed = os.environ.get(IN_DEPLOYMENT)
    root = Path(deployed) if deployed else Path(LOCAL)
    if (root / name).is_dir() and (versions := _versions(root / name)):
        if version is not None and version not in versions:
            there = ", ".join(str(number) for number in sorted(versions))
            raise ModelNotFoundException(f"{root} has no version {version} of {name!r}; it has: {there}.", target=f"{name}:{version}")
        return _only(root / name / str(max(versions) if version is None else version))
    if deployed and root.is_dir() and any(root.iterdir()):
        return _only(root)
    where = f"{IN_DEPLOYMENT}={deployed}" if deployed else f"{root.absolute()}"
    raise ModelNotFoundException(f"There is no model {name!r} in {where}.", target=name, hint="outside of a deployment give _workspace=ws")


def _versions(folder: Path) -> set[int]:
    return {int(found.name) for found in folder.iterdir() if found.name.isdecimal() and found.is_dir()}


def _only(folder: Path) -> Path:
    """What was registered lies there under its own last name."""
    there = [found for found in folder.iterdir() if not found.name.startswith(".")]
    return there[0] if len(there) == 1 else folder
