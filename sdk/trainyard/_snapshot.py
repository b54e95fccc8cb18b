"""The source folder as content-addressed blobs: what git and Azure ignore stays out, and what the store has is not sent again."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard._errors import SnapshotException

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

    from trainyard._objects import Objects
    from trainyard.job.v1.spec_pb2 import Snapshot

DEFAULT_IGNORES = (
    ".git/", ".azureml/", ".trainyard/", ".ipynb_checkpoints/", "azureml-logs/", "azureml-offline/", "azureml-setup/", "/outputs/", "__pycache__/", "*.pyc",
    ".venv/", "venv/", "node_modules/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".DS_Store",
)  # fmt: skip
_MEMORY_BYTES = 8 << 20
_PARALLEL = 8


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
    path: str  # relative, POSIX
    size: int
    executable: bool


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


def ignores(folder: Path) -> GitIgnoreSpec:
    """.amlignore wins over .gitignore; only the one at the root is read. The defaults come first: `!name` takes one back."""
    import pathspec

    lines: list[str] = list(DEFAULT_IGNORES)
    for name in (".amlignore", ".gitignore"):
        if (folder / name).is_file():
            lines += (folder / name).read_text("utf-8", errors="replace").splitlines()
            break
    return pathspec.GitIgnoreSpec.from_lines(lines)


def walk(folder: Path) -> Iterator[Found]:
    """Files to send, sorted. Links to folders are not followed: they may lead out of the project, or round in circles."""
    spec = ignores(folder)
    for here, folders, names in os.walk(folder):
        below = Path(here).relative_to(folder)
        folders[:] = sorted(name for name in folders if not spec.match_file(f"{(below / name).as_posix()}/"))
        for name in sorted(names):
            path = (below / name).as_posix()
            if spec.match_file(path):
                continue
            try:
                status = (folder / path).stat()
            except OSError as error:
                raise SnapshotException(f"{folder / path} cannot be read: {error.strerror}", target=path) from error
            if stat.S_ISREG(status.st_mode):
                yield Found(path, status.st_size, bool(status.st_mode & stat.S_IXUSR))


def take(folder: Path, objects: Objects, limits: Limits | None = None) -> Snapshot:
    """Uploads what the store lacks and names the whole."""
    from trainyard._paths import sha256_file
    from trainyard.job.v1.spec_pb2 import Snapshot, SnapshotFile

    if not folder.is_dir():
        raise SnapshotException(f"The source folder {folder} does not exist or is no folder.", target=str(folder))
    files = sorted(walk(folder), key=lambda found: found.path)
    check(files, limits or Limits.load())
    with ThreadPoolExecutor(_PARALLEL) as pool:
        digests = list(pool.map(lambda found: sha256_file(folder / found.path), files))
        first = {digest: found for found, digest in reversed(list(zip(files, digests, strict=True)))}
        list(pool.map(lambda item: _send(objects, folder / item[1].path, item[0]), first.items()))
    listed = [
        SnapshotFile(path=found.path, size_bytes=found.size, sha256=digest, executable=found.executable)
        for found, digest in zip(files, digests, strict=True)
    ]
    return Snapshot(id=digest_of([(file.path, file.sha256) for file in listed]), files=listed)


def digest_of(files: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256("".join(f"{path}\0{sha256}\n" for path, sha256 in sorted(files)).encode()).hexdigest()


def _send(objects: Objects, path: Path, sha256: str) -> None:
    """The bytes are hashed as sent: a file that changes meanwhile must not poison the blob of its old content."""
    key = f"snapshots/blobs/{sha256}"
    if objects.exists(key):
        return
    if path.stat().st_size <= _MEMORY_BYTES:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == sha256:
            objects.put_bytes(key, content)
            return
    else:
        with tempfile.NamedTemporaryFile(prefix="trainyard-snapshot-") as copy, path.open("rb") as source:
            digest = hashlib.sha256()
            while block := source.read(1 << 20):
                digest.update(block)
                copy.write(block)
            copy.flush()
            if digest.hexdigest() == sha256:
                objects.put_file(key, Path(copy.name))
                return
    raise SnapshotException(f"{path} changed while it was being sent.", code="SnapshotChanged", target=str(path), hint="submit again")
