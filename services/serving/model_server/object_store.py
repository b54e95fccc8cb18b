"""Models that lie in an object store, s3://BUCKET/PREFIX/VERSION/...: looked for there, and kept in a folder of this machine once they are whole.

`<cache>/<store, bucket and prefix>/<version>/<what lies there>` is a version; it appears by a rename, when every file has come and is what
the store says it is. Processes share the cache: whoever uses a version holds a shared lock of its folder, and what nobody holds may be swept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.serving.model_server.config_files import BadConfig
from services.serving.model_server.folders import Fingerprint

_PATH = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*?))?/*")
_VERSION = re.compile(r"[0-9]{1,18}")
_LAST_LISTING, _WHOLE = "versions.json", "[!.]*"
_ABANDONED_SECONDS = 24 * 3600.0
_BLOCK = 1 << 20


class StoreAway(OSError):
    """The store does not answer, refuses, or has something else than it said. What is served stays."""


@dataclass(frozen=True)
class Entry:
    """An object, by its path below what was listed."""

    path: str
    size: int
    etag: str


class Store(Protocol):
    """Raises StoreAway."""

    @property
    def where(self) -> str: ...

    def list(self, bucket: str, prefix: str) -> Iterable[Entry]:
        """All objects below the prefix, which ends in /."""

    def get(self, bucket: str, key: str, etag: str, file: Path) -> str:
        """Writes it there, if it still has that tag. Returns the MD5 that the bytes should have; "" where the store does not tell."""


def is_remote(path: str) -> bool:
    return path.startswith("s3://")


def parsed(path: str) -> tuple[str, str]:
    """Bucket, and prefix with a / at its end. Raises BadConfig."""
    found = _PATH.fullmatch(path)
    prefix = (found["prefix"] or "") if found else ""
    if found is None or any(part in (".", "..") for part in prefix.split("/")) or not prefix.isprintable():
        raise BadConfig(f"{path[:200]!r} names no folder of models in an object store: write s3://BUCKET/PREFIX")
    return found["bucket"], f"{prefix}/" if prefix else ""


class Mirror:
    """Thread safe."""

    def __init__(self, store: Store, cache: Path) -> None:
        self._store = store
        self._cache = cache
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def versions(self, base_path: str) -> dict[int, tuple[str, Fingerprint]]:
        """Path and fingerprint by version. A store that is away before it was asked once leaves what was kept. Raises OSError."""
        bucket, prefix = parsed(base_path)
        folder = self._folder(bucket, prefix)
        try:
            found = _by_version(self._store.list(bucket, prefix))
        except StoreAway:
            with self._lock:
                kept = _kept(folder) if base_path not in self._seen else []
            if not kept:
                raise
            return {int(name): (_of(bucket, prefix, name), ()) for name in kept}
        with self._lock:
            self._seen.add(base_path)
        _remember(folder, sorted(found))
        _sweep(folder, {name: _content(f"{name}/", entries) for name, entries in found.items()})
        return {int(name): (_of(bucket, prefix, name), _fingerprint(entries)) for name, entries in found.items()}

    @contextlib.contextmanager
    def held(self, path: str) -> Iterator[Path]:
        """The version at that path as a folder of this machine, which stays for so long. Raises OSError."""
        folder = self.folder(path)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks; nobody can sweep there either
                fcntl.flock(handle, fcntl.LOCK_SH)
            if not os.path.samestat(os.fstat(handle), folder.stat()):
                raise StoreAway(f"{path} was replaced just now")
            yield folder
        finally:
            os.close(handle)

    def folder(self, path: str) -> Path:
        """As held, for as long as nobody sweeps. Raises OSError."""
        base, _, version = path.rpartition("/")
        bucket, prefix = parsed(base)
        folder = self._folder(bucket, prefix) / version
        try:
            entries = list(self._store.list(bucket, f"{prefix}{version}/"))
        except StoreAway:
            # Whichever came last; it was whole then.
            if kept := sorted(folder.glob(_WHOLE), key=lambda it: it.stat().st_mtime):
                return kept[-1]
            raise
        if not entries:
            raise StoreAway(f"nothing lies under {path} any more")
        wanted = folder / _content("", entries)
        if not wanted.is_dir():
            self._fetch(bucket, f"{prefix}{version}/", entries, wanted)
        return wanted

    def _fetch(self, bucket: str, prefix: str, entries: list[Entry], wanted: Path) -> None:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".", dir=wanted.parent))
        try:
            for entry in entries:
                file = unfinished / _safe(entry.path)
                file.parent.mkdir(parents=True, exist_ok=True)
                _check(file, entry, self._store.get(bucket, prefix + entry.path, entry.etag, file))
            try:
                unfinished.rename(wanted)
            except OSError:
                if not wanted.is_dir():  # otherwise another process was faster
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _folder(self, bucket: str, prefix: str) -> Path:
        return self._cache / hashlib.sha256(f"{self._store.where}\n{bucket}\n{prefix}".encode()).hexdigest()[:32]


def _of(bucket: str, prefix: str, version: str) -> str:
    return f"s3://{bucket}/{prefix}{version}"


def _by_version(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """By the folder's own name, zeros in front of the number included. Of several folders with a number the one with the fewest counts."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        first, _, rest = entry.path.partition("/")
        if _VERSION.fullmatch(first) and rest:
            found[first].append(entry)
    names = {int(name): name for name in sorted(found, key=len, reverse=True)}
    return {name: found[name] for name in names.values()}


def _content(above: str, entries: Iterable[Entry]) -> str:
    """The name of the folder that has them. `above`: what their paths begin with beyond it."""
    told = sorted([it.path.removeprefix(above), it.size, it.etag] for it in entries)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _fingerprint(entries: list[Entry]) -> Fingerprint:
    return tuple((it.path, it.size, int(hashlib.sha256(it.etag.encode()).hexdigest()[:15], 16)) for it in entries)


def _safe(path: str) -> str:
    """Names of objects are anybody's. Raises StoreAway."""
    if path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise StoreAway(f"the object {path[:200]!r} has a name that no folder can hold")
    return path


def _check(file: Path, entry: Entry, md5: str) -> None:
    if (size := file.stat().st_size) != entry.size:
        raise StoreAway(f"{entry.path} came with {size} bytes in place of {entry.size}")
    if md5:
        digest = hashlib.md5(usedforsecurity=False)
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != md5:
            raise StoreAway(f"{entry.path} came with other bytes than its tag says")


def _remember(folder: Path, versions: list[str]) -> None:
    """What is served where the store is away at the next start."""
    file = folder / _LAST_LISTING
    if _kept(folder) == versions and file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=folder, prefix=".")
    with os.fdopen(handle, "w") as stream:
        json.dump(versions, stream)
    Path(beside).replace(file)


def _sweep(folder: Path, published: Mapping[str, str]) -> None:
    """What nobody publishes any more goes, and what lay in a version's place before, once no process holds it; and what was left unfinished
    long ago. `published`: what lies there, by version; until it is here, what was there before is all there is where the store goes away."""
    for version in folder.glob("[0-9]*"):
        current = version / published[version.name] if version.name in published else None
        if current is None or current.is_dir():
            for content in set(version.glob(_WHOLE)) - {current}:
                _discard(content)
        if current is None:
            with contextlib.suppress(OSError):  # something is there still
                version.rmdir()
    for unfinished in folder.glob("*/.*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - unfinished.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(unfinished, ignore_errors=True)


def _discard(content: Path) -> None:
    """Unless somebody holds it."""
    with contextlib.suppress(OSError):
        handle = os.open(content, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = content.rename(tempfile.mkdtemp(prefix=".", dir=content.parent))
        finally:
            os.close(handle)
        shutil.rmtree(gone, ignore_errors=True)


def _kept(folder: Path) -> list[str]:
    try:
        told = json.loads((folder / _LAST_LISTING).read_text())
    except (OSError, ValueError):
        return []
    names = [it for it in map(str, told) if _VERSION.fullmatch(it)] if isinstance(told, list) else []
    return [it for it in names if any((folder / it).glob(_WHOLE))]
