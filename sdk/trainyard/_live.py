"""What a run can be told and asked, wherever it lives: a script's own, an offline one, and one seen by its client give the same
calls. Standard library only."""

from __future__ import annotations

import os
import shutil
import traceback
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from trainyard._errors import UserErrorException
from trainyard._logger import Logger
from trainyard._paths import safe_relpath

Source = str | os.PathLike[str] | BinaryIO
Upload = tuple[str, Source]
"""The path among the run's files, and what becomes of it."""


class LiveRun(Logger):
    """Subclasses say how: the methods that begin with an underscore and raise NotImplementedError."""

    experiment: Any
    _ends_by_itself = False
    """True for a submitted script's run: it ends with its script, so complete, fail and cancel from inside do nothing."""

    # -- how

    def _label(self, tags: Mapping[str, str], removed: Sequence[str]) -> None:
        raise NotImplementedError

    def _add_properties(self, properties: Mapping[str, str]) -> None:
        raise NotImplementedError

    def _labels(self) -> tuple[dict[str, str], dict[str, str]]:
        """(tags, properties) as they are now."""
        raise NotImplementedError

    def _upload(self, uploads: Sequence[Upload]) -> None:
        raise NotImplementedError

    def _open_children(self, names: Sequence[str], tags: Sequence[Mapping[str, str]]) -> list[Any]:
        raise NotImplementedError

    def _close(self, status: str, failure: Mapping[str, Any] | None) -> None:
        """status: COMPLETED, FAILED or CANCELED."""
        raise NotImplementedError

    # -- identity

    @property
    def run_id(self) -> str:
        """As `id`: the experiment's name, a time and a few letters, unless it was chosen."""
        return self.id

    @property
    def name(self) -> str:
        """As `id`; what a run was called when it was made is its `display_name`."""
        return self.id

    # -- tags and properties

    def tag(self, key: str, value: object = None) -> None:
        """Sets one tag; without a value its name says it all."""
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Sets several tags; others stay. At most 50 a run; raises UserErrorException beyond."""
        self._label(_texts(tags), ())

    def remove_tags(self, tags: Iterable[str]) -> None:
        """Names that are not there are no error."""
        self._label({}, [str(name) for name in tags])

    def add_properties(self, properties: Mapping[str, object]) -> None:
        """Properties are set once: raises UserErrorException where one has another value already, unless an earlier attempt of this script
        has set it."""
        self._add_properties(_texts(properties))

    @property
    def tags(self) -> dict[str, str]:
        """Name -> value, as they are now; what is added to the dict stays here: `tag()` sets one."""
        return self._labels()[0]

    @property
    def properties(self) -> dict[str, str]:
        """Name -> value, as they are now; each is set once, by `add_properties()`."""
        return self._labels()[1]

    def get_tags(self) -> dict[str, str]:
        """As they are now."""
        return self.tags

    def get_properties(self) -> dict[str, str]:
        """As they are now."""
        return self.properties

    # -- files

    def upload_file(self, name: str, path_or_stream: Source, datastore_name: str | None = None) -> None:
        """A file, or what a binary stream holds, under that path among the run's files. Returns once it is kept.

        Raises UserErrorException: no such file, no safe path, or other bytes lie under that path already, unless an earlier
        attempt of this script has uploaded them.
        """
        self.upload_files([name], [path_or_stream], datastore_name)

    def upload_files(
        self,
        names: Sequence[str],
        paths: Sequence[Source],
        datastore_name: str | None = None,
        timeout_seconds: int | None = None,
        **_: Any,
    ) -> None:
        """Each of `paths` under the name at the same place in `names`; all or none."""
        if len(names) != len(paths):
            raise UserErrorException(f"{len(names)} names and {len(paths)} paths were given.", target="names")
        if datastore_name is not None:
            raise UserErrorException("Files of a run are kept with the run, in no datastore.", target="datastore_name")
        for name, path in zip(names, paths, strict=True):
            safe_relpath(name)
            if isinstance(path, str | os.PathLike) and not Path(path).is_file():
                raise UserErrorException(f"{path!s} is no file.", target=str(path))
        if names:
            self._upload(list(zip(names, paths, strict=True)))

    def upload_folder(self, name: str, path: str | os.PathLike[str], datastore_name: str | None = None) -> None:
        """Every plain file below `path`, under `name`/ and its place in the folder, in Unicode's form C; links are left out."""
        folder = Path(path)
        if not folder.is_dir():
            raise UserErrorException(f"{folder} is no folder.", target=str(folder))
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        names = [unicodedata.normalize("NFC", f"{name.rstrip('/')}/{file.relative_to(folder).as_posix()}") for file in files]
        self.upload_files(names, files, datastore_name)

    # -- children

    def child_run(self, name: str | None = None, run_id: str | None = None, outputs: str | None = None) -> Any:
        """A run below this one, in its caller's hands: log to it, then complete() or fail() it, or use `with`. It ends with its parent.

        Raises UserErrorException for `outputs`: no folder is a child's own.
        """
        if outputs is not None:
            raise UserErrorException(
                "A child run has no folder of its own for outputs.",
                target="outputs",
                hint="give its files by child.upload_folder(name, path)",
            )
        return self._open_children([name or ""], [{}])[0]

    def create_children(
        self, count: int | None = None, tag_key: str | None = None, tag_values: Sequence[object] | None = None
    ) -> list[Any]:
        """`count` children at once, or one for each of tag_values, tagged with it."""
        if (count is None) == (tag_values is None) or (tag_values is not None and not tag_key):
            raise UserErrorException("Give either count, or tag_key and tag_values.", target="count")
        tags = [{str(tag_key): str(value)} for value in tag_values] if tag_values is not None else [{}] * int(count or 0)
        if not 1 <= len(tags) <= 1000:
            raise UserErrorException(f"{len(tags)} children were asked for; 1 to 1000 are made at a time.", target="count")
        return self._open_children([""] * len(tags), tags)

    # -- the end

    def complete(self, _set_status: bool = True) -> None:
        """Ends the run as Completed. A submitted script's own run ends with its script: then nothing."""
        if not self._ends_by_itself:
            self._finish("COMPLETED", None)

    def fail(self, error_details: object = None, error_code: str | None = None, _set_status: bool = True) -> None:
        """Ends the run as Failed, with a text or an exception as the reason. A submitted script's own run: nothing."""
        if not self._ends_by_itself:
            self._finish("FAILED", failure_of(error_details, error_code))

    def cancel(self) -> None:
        """Ends the run as Canceled. A submitted script's own run is canceled from outside: then nothing."""
        if not self._ends_by_itself:
            self._finish("CANCELED", None)

    def _finish(self, status: str, failure: Mapping[str, Any] | None) -> None:
        self.flush()
        self._close(status, failure)

    def flush(self, timeout_seconds: float = 300.0) -> None:
        """Returns when all that was logged is kept, or after the time."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.complete()
        else:
            self.fail(error)


def copy_source(source: Source, target: Path) -> None:
    """A file's or a stream's bytes into a file of our own."""
    if isinstance(source, str | os.PathLike):
        shutil.copyfile(source, target)
        return
    with target.open("wb") as file:
        shutil.copyfileobj(source, file)


def failure_of(details: object, code: str | None) -> dict[str, Any]:
    """code, message, last_lines (of the traceback, at most 20)."""
    if isinstance(details, BaseException):
        lines = "".join(traceback.format_exception(details)).rstrip().splitlines()
        return {"code": code or "UserError", "message": f"{type(details).__name__}: {details}"[:3000], "last_lines": lines[-20:]}
    message = "The run was ended as failed." if details is None else str(details)
    return {"code": code or "UserError", "message": message[:3000], "last_lines": []}


def _texts(labels: Mapping[str, object]) -> dict[str, str]:
    return {str(name): "" if value is None else str(value) for name, value in labels.items()}
