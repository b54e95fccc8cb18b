"""The source folder as content-addressed blobs: what git and Azure ignore stays out, and what the store has is not sent again."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard import _transfer
from trainyard._artifacts import put_list, read_list
from trainyard._errors import SnapshotException, UserErrorException
from trainyard._ignore import IgnoreRules
from trainyard._meter import Meter
from trainyard._paths import below, safe_relpath, sha256_file

if TYPE_CHECKING:
    from trainyard._objects import Objects
    from trainyard.job.v1.spec_pb2 import Snapshot

DEFAULT_IGNORES = (
    ".azureml/", ".trainyard/", ".ipynb_checkpoints/", "azureml-logs/", "azureml-offline/", "azureml-setup/", "/outputs/", "__pycache__/", "*.pyc",
    ".venv/", "venv/", "node_modules/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".DS_Store",
)  # fmt: skip
# Fewer are asked for one by one, more by a listing of all that the store has.
_ASKED_SINGLY = 64
_MOST_BYTES_IN_REQUEST = 300_000


@dataclass(frozen=True)
class Limits:
    """Settings TRAINYARD_SNAPSHOT_MAX_BYTES and TRAINYARD_SNAPSHOT_MAX_FILES."""

    max_bytes: int = 300_000_000
    max_files: int = 2_000

    @classmethod
    def load(cls) -> Limits:
        return cls(
            int(os.environ.get("TRAINYARD_SNAPSHOT_MAX_BYTES", cls.max_bytes)),
            int(os.environ.get("TRAINYARD_SNAPSHOT_MAX_FILES", cls.max_files)),
        )


@dataclass(frozen=True)
class Found:
    """A file to send: `path` is its name in the snapshot (relative, POSIX, NFC), `where` the file itself; "": path below the folder."""

    path: str
    size: int
    executable: bool
    where: str = ""


def check(files: Sequence[Found], limits: Limits) -> None:
    """Raises with the biggest paths, so that the reader knows what to ignore."""
    total = sum(found.size for found in files)
    if total <= limits.max_bytes and len(files) <= limits.max_files:
        return
    if total > limits.max_bytes:
        what = f"Your total snapshot size exceeds the limit of {limits.max_bytes / 1e6:.1f} MB: it is {total / 1e6:.1f} MB."
        listed = ", ".join(f"{path} ({size / 1e6:.1f} MB)" for path, size in _biggest(files, by_count=False))
    else:
        what = f"Your project exceeds the file limit of {limits.max_files}: it has {len(files)} files."
        listed = ", ".join(f"{path} ({count} files)" for path, count in _biggest(files, by_count=True))
    raise SnapshotException(
        f"{what} The biggest: {listed}.",
        code="SnapshotTooLarge",
        hint="list what the run does not need in .amlignore (gitignore syntax); data belongs into a Dataset",
    )


def _biggest(files: Sequence[Found], *, by_count: bool) -> list[tuple[str, int]]:
    """Top-level folders and files, so that a virtual environment shows as one line."""
    sums: dict[str, int] = {}
    for found in files:
        head, _, rest = found.path.partition("/")
        name = f"{head}/" if rest else head
        sums[name] = sums.get(name, 0) + (1 if by_count else found.size)
    return sorted(sums.items(), key=lambda item: -item[1])[:5]


def ignores(folder: Path) -> IgnoreRules:
    """.amlignore wins over .gitignore; only the one at the root is read. The defaults come first: `!name` takes one back."""
    lines: list[str] = list(DEFAULT_IGNORES)
    for name in (".amlignore", ".gitignore"):
        if (folder / name).is_file():
            lines += (folder / name).read_text("utf-8", errors="surrogateescape").removeprefix("\ufeff").split("\n")
            break
    return IgnoreRules(lines)


def walk(folder: Path) -> Iterator[Found]:
    """Files to send. Links to folders are not followed: they may lead out of the project, or round in circles."""
    for found in _Walk(folder).files():
        if isinstance(found, Found):
            yield found


class _Walk:
    def __init__(self, folder: Path) -> None:
        self._root = os.path.realpath(folder)
        self._ignored = ignores(folder).names

    def files(self) -> Iterator[Found | str]:
        """Files, and the paths of folders that are empty on disk."""
        yield from self._below(self._root, "")

    def _below(self, here: str, prefix: str) -> Iterator[Found | str]:
        try:
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise SnapshotException(f"{here} cannot be read: {error.strerror}", target=prefix or here) from error
        if not found and prefix:
            yield _named(prefix.removesuffix("/"))
        for entry in found:
            path = prefix + entry.name
            if entry.name == ".git":
                # As git itself has it, whatever a rule takes back.
                continue
            if entry.is_dir(follow_symlinks=False):
                if not self._ignored(path, is_folder=True):
                    yield from self._below(entry.path, f"{path}/")
            elif not self._ignored(path, is_folder=False) and (file := self._file(entry, path)) is not None:
                yield file

    def _file(self, entry: os.DirEntry[str], path: str) -> Found | None:
        """None for what is no file: a link to a folder, a socket, a pipe."""
        try:
            status = entry.stat()
        except OSError as error:
            raise SnapshotException(f"{entry.path} cannot be read: {error.strerror}", target=path, hint=_LEAVE_OUT) from error
        if not stat.S_ISREG(status.st_mode):
            return None
        if entry.is_symlink() and not os.path.realpath(entry.path).startswith(f"{self._root}{os.sep}"):
            what = f"{entry.path} is a link to {os.path.realpath(entry.path)}, which lies outside of the source folder."
            raise SnapshotException(what, target=path, hint=_LEAVE_OUT)
        return Found(_named(path), status.st_size, bool(status.st_mode & stat.S_IXUSR), entry.path)


_LEAVE_OUT = "list it in .amlignore, or put the file itself there"


def _named(path: str) -> str:
    """The name that travels: Unicode's form C, as most systems write it. Raises for one that a node must not be given."""
    try:
        return safe_relpath(unicodedata.normalize("NFC", path))
    except UserErrorException as error:
        what = f"{path!r} cannot be part of a snapshot: it has characters that are not allowed in a path."
        raise SnapshotException(what, target=ascii(path)[:200], hint="rename it, or list it in .amlignore") from error


def take(folder: Path, objects: Objects, limits: Limits | None = None, *, show_progress: bool = True) -> Snapshot:
    """Uploads what the store lacks and names the whole.

    Raises SnapshotException: too large, a file that cannot be read, changes meanwhile, or whose name cannot travel.
    """
    from trainyard.job.v1.spec_pb2 import Snapshot, SnapshotFile

    if not folder.is_dir():
        raise SnapshotException(f"The source folder {folder} does not exist or is no folder.", target=str(folder))
    walked = list(_Walk(folder).files())
    files = sorted((found for found in walked if isinstance(found, Found)), key=lambda found: found.path)
    _refuse_twins(files)
    check(files, limits or Limits.load())
    try:
        digests = _transfer.side_by_side(lambda found: sha256_file(Path(found.where)), files)
    except OSError as error:
        raise SnapshotException(f"{error.filename} cannot be read: {error.strerror}", target=str(error.filename)) from error
    _send(objects, {digest: found for found, digest in reversed(list(zip(files, digests, strict=True)))}, show_progress)
    listed = [
        SnapshotFile(path=found.path, size_bytes=found.size, sha256=digest, executable=found.executable)
        for found, digest in zip(files, digests, strict=True)
    ]
    empty = sorted(found for found in walked if isinstance(found, str))
    whole = Snapshot(id=digest_of([(file.path, file.sha256) for file in listed], empty), files=listed, empty_folders=empty)
    return whole if whole.ByteSize() <= _MOST_BYTES_IN_REQUEST else _by_name(objects, whole)


def _refuse_twins(files: Sequence[Found]) -> None:
    for one, two in zip(files, files[1:], strict=False):
        if one.path == two.path:
            what = f"{one.where!a} and {two.where!a} have one name, {one.path!r}, once it is written in Unicode's form C."
            raise SnapshotException(what, target=one.path, hint="rename one of them")


def _by_name(objects: Objects, whole: Any) -> Any:
    from trainyard.job.v1.spec_pb2 import Snapshot

    key, digest = put_list(objects, "snapshots/trees", whole)
    return Snapshot(id=whole.id, manifest_key=key, manifest_sha256=digest, count=len(whole.files))


def listed(objects: Objects, snapshot: Any) -> Any:
    """The snapshot with all of its files. Raises ObjectMissing, and TrainyardException for a list that is too long or not as its digest says."""
    from trainyard.job.v1.spec_pb2 import Snapshot

    if not snapshot.manifest_key:
        return snapshot
    return read_list(objects, Snapshot, f"snapshots/trees/{snapshot.manifest_sha256}", snapshot.manifest_sha256)


def restore(objects: Objects, snapshot: Any, folder: Path, *, show_progress: bool = True) -> None:
    """The source folder as it was sent, below `folder`. Files of the same names are replaced, others stay."""
    whole = listed(objects, snapshot)
    folder.mkdir(parents=True, exist_ok=True)
    for path in whole.empty_folders:
        below(folder, path).mkdir(parents=True, exist_ok=True)

    def one(file: Any) -> None:
        target = below(folder, file.path)
        _transfer.receive(objects, f"snapshots/blobs/{file.sha256}", target, size=file.size_bytes, sha256=file.sha256, told=meter.add)
        target.chmod(0o755 if file.executable else 0o644)

    with Meter("restoring the snapshot", sum(file.size_bytes for file in whole.files), shown=show_progress) as meter:
        _transfer.side_by_side(one, whole.files)


def digest_of(files: Iterable[tuple[str, str]], empty_folders: Iterable[str] = ()) -> str:
    """Of a folder: `files` are (path, SHA-256) in any order."""
    lines = [f"{path}\0{sha256}\n" for path, sha256 in files] + [f"{path}/\0\n" for path in empty_folders]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _send(objects: Objects, wanted: dict[str, Found], show_progress: bool) -> None:
    """What the store has already is not sent again."""
    there = _known(objects, wanted)
    missing = [(digest, found) for digest, found in wanted.items() if digest not in there]

    def one(item: tuple[str, Found]) -> None:
        digest, found = item
        try:
            _transfer.send(objects, f"snapshots/blobs/{digest}", Path(found.where), sha256=digest, told=meter.add)
        except (OSError, _transfer.ChangedWhileSent) as error:
            what = f"{found.where} changed while it was being sent."
            raise SnapshotException(what, code="SnapshotChanged", target=found.path, hint="submit again") from error

    with Meter("sending the source folder", sum(found.size for _, found in missing), shown=show_progress) as meter:
        _transfer.side_by_side(one, missing)


def _known(objects: Objects, digests: Iterable[str]) -> set[str]:
    wanted = list(digests)
    if len(wanted) <= _ASKED_SINGLY:
        found = _transfer.side_by_side(lambda digest: objects.exists(f"snapshots/blobs/{digest}"), wanted)
        return {digest for digest, there in zip(wanted, found, strict=True) if there}
    return {entry.key.rpartition("/")[2] for entry in objects.entries("snapshots/blobs/")}
