"""A dataset's files on the client's machine: downloaded, or lent for a while as a read-only folder."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trainyard import _http_source, _transfer
from trainyard._errors import UserErrorException
from trainyard._meter import Meter
from trainyard._paths import below

if TYPE_CHECKING:
    from trainyard._dataset import FileDataset


def download(dataset: FileDataset, target_path: str | None, *, overwrite: bool) -> list[str]:
    """See FileDataset.download."""
    folder = Path(target_path) if target_path is not None else Path(tempfile.mkdtemp(prefix="trainyard-dataset-"))
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(file, below(folder, file.path)) for file in dataset._files()]
    taken = next((target for _, target in wanted if target.exists()), None)
    if taken is not None and not overwrite:
        raise UserErrorException(f"{taken} is there already.", target=str(taken), hint="give overwrite=True, or another target_path")
    stored = [item for item in wanted if item[0].object_key]
    by_url = [item for item in wanted if not item[0].object_key]
    with Meter("downloading", sum(file.size_bytes for file, _ in wanted)) as meter:
        if stored:
            objects = dataset._require_workspace()._objects

            def one(item: tuple[Any, Path]) -> None:
                file, target = item
                _transfer.receive(objects, file.object_key, target, size=file.size_bytes, sha256=file.sha256, told=meter.add)

            _transfer.side_by_side(one, stored)
        if by_url:
            _from_urls(by_url, meter.add)
    return [str(target) for _, target in wanted]


def _from_urls(wanted: Sequence[tuple[Any, Path]], told: Callable[[int], object]) -> None:
    """On a loop of its own thread: the caller may be a notebook, which has one running."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(_fetch(wanted, told))
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
            raised.append(error)

    thread = threading.Thread(target=work, name="trainyard-download")
    thread.start()
    thread.join()
    if raised:
        raise _as_user_error(raised[0])


def _as_user_error(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, _http_source.Unreachable):
        return UserErrorException(f"{error.url} cannot be read: {error}.", code="SourceUnreachable", target=error.url)
    return error


async def _fetch(wanted: Sequence[tuple[Any, Path]], told: Callable[[int], object]) -> None:
    limits = _http_source.Limits()
    slots = asyncio.Semaphore(limits.at_once)

    async def one(http: Any, file: Any, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent / f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.part"
        async with slots:
            begun = part.exists() and part.stat().st_size > 0
            found = await _http_source.download(http, file.url, part, limits, told)
            if file.sha256 and found.sha256 != file.sha256 and begun:
                part.unlink()
                found = await _http_source.download(http, file.url, part, limits, told)
        if file.sha256 and found.sha256 != file.sha256:
            part.unlink()
            what = f"{file.url} has changed since the dataset was registered: its SHA-256 was {file.sha256}, now it is {found.sha256}."
            raise UserErrorException(what, code="DatasetChanged", target=file.url, hint="register a new version")
        part.replace(target)

    async with _http_source.client(limits) as http, asyncio.TaskGroup() as tasks:
        for file, target in wanted:
            tasks.create_task(one(http, file, target))


class MountContext:
    """`with dataset.mount() as mounted: os.listdir(mounted.mount_point)`; or start() and stop()."""

    def __init__(self, dataset: FileDataset, mount_point: str | None) -> None:
        self._dataset = dataset
        self._given = mount_point
        self._made: Path | None = None

    @property
    def mount_point(self) -> str:
        """The folder; a dataset of one file has it inside. Raises UserErrorException before start."""
        if self._made is None:
            raise UserErrorException("The dataset is not mounted yet.", target="mount_point", hint="use it in `with`, or call start()")
        return str(self._made)

    def start(self) -> None:
        if self._made is not None:
            return
        if self._given is not None:
            folder = Path(self._given)
            if folder.exists() and any(folder.iterdir()):
                raise UserErrorException(f"The mount point {folder} is not empty.", target=str(folder), hint="choose another")
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(tempfile.mkdtemp(prefix="trainyard-mount-"))
        self._made = folder
        try:
            for path in self._dataset.download(str(folder), overwrite=True):
                os.chmod(path, 0o444)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """A mount point that was given stays, empty."""
        folder, self._made = self._made, None
        if folder is None:
            return
        shutil.rmtree(folder, ignore_errors=True)
        if self._given is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> MountContext:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
