"""Dataset files on a node: fetched once, checked, cached by digest. What a URL names is fetched by a child process that holds no secrets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from services.trainer_agent.adapters import lazy
from services.trainer_agent.adapters.blobs import Blobs, WrongDigest
from services.trainer_agent.adapters.cache_room import Lease
from services.trainer_agent.adapters.environment import FOR_DOWNLOADS, only
from services.trainer_agent.adapters.patience import when_it_answers
from services.trainer_agent.ports import PreparationFailed
from trainyard import _file_lists, _transfer
from trainyard._objects import ObjectMissing, Objects
from trainyard._paths import SHA256
from trainyard.dataset.v1.dataset_pb2 import SourceFile

REPO = Path(__file__).resolve().parents[3]
_LOOK_SECONDS = 0.2
# Each has a lock and an open file while it is fetched.
_BATCH = 200
_TELL_SECONDS = 5.0
# What a run may be given of the platform's store, whoever asks: datasets' files and what runs have left behind.
_READABLE = ("datastores/blobs/", "runs/", "uploads/")

Say = Callable[[str], None]
Stopped = Callable[[], bool]


def _nobody(_: str) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


class Data:
    def __init__(self, blobs: Blobs, objects: Objects, retry_seconds: float = 600.0) -> None:
        self._blobs = blobs
        self._objects = objects
        self._retry_seconds = retry_seconds

    def files_of(self, item: Any, stopped: Stopped = _never) -> list[Any]:
        return when_it_answers(lambda: _file_lists.of(self._objects, item), self._retry_seconds, stopped)

    def lend(self, files: Sequence[tuple[Any, str]], folder: Path, stopped: Stopped = _never) -> bool:
        _demand_digests(source for source, _ in files)
        budget = self._blobs.budget_bytes
        known = all(source.sha256 for source, _ in files)
        if not budget or not known or sum(source.size_bytes for source, _ in files) <= budget or not lazy.is_possible():
            return False
        return lazy.mount(files, folder, stopped=stopped)

    def borrow(self, source: Any) -> tuple[Lease, Path]:
        """One file, fetched if it is not there, and the lease that keeps it; the caller closes it. Raises PreparationFailed."""
        lease = self._blobs.lease()
        try:
            lease.name(source.sha256)
            found = self._blobs.get(source.sha256)
            if found is None:
                self._blobs.make_room(source.size_bytes)
                found = next(iter(self._fetch([source], _Meter(source.size_bytes, _nobody), _never).values()))
            return lease, found
        except BaseException:
            lease.close()
            raise

    def place(self, files: Sequence[tuple[Any, Path]], *, writable: bool, say: Say = _nobody, stopped: Stopped = _never) -> list[Any]:
        """`writable` gives copies; else hard links to the node's one file, read-only. `say` gets a line now and then while it takes long."""
        sources = [source for source, _ in files]
        _demand_digests(sources)
        _demand_places([target for _, target in files])
        with self._blobs.use() as lease:
            lease.name(*{source.sha256 for source in sources if source.sha256})
            there = {_name(source): blob for source in sources if source.sha256 and (blob := self._blobs.get(source.sha256))}
            missing = {_name(source): source for source in sources if _name(source) not in there}
            self._make_room(list(missing.values()), sources, writable, say)
            meter = _Meter(sum(source.size_bytes for source in missing.values()), say)
            # In one order for all, so that two agents that want the same files never wait for each other in a circle.
            names = sorted(missing)
            for begin in range(0, len(names), _BATCH):
                fetched = self._fetch([missing[name] for name in names[begin : begin + _BATCH]], meter, stopped)
                lease.name(*{blob.name for blob in fetched.values()})
                there |= fetched
            _transfer.side_by_side(lambda item: _put(there[_name(item[0])], item[1], writable, stopped), files)
            return [_measured(source, there[_name(source)]) for source in sources]

    def _make_room(self, missing: Sequence[Any], sources: Sequence[Any], writable: bool, say: Say) -> None:
        copies = sum(source.size_bytes for source in sources) if writable else 0
        if not self._blobs.make_room(sum(source.size_bytes for source in missing) + copies):
            budget = self._blobs.budget_bytes / 1e9
            say(f"data: with what is in use the node's cache takes more than its budget of {budget:.1f} GB (TRAINYARD_AGENT__CACHE_BYTES)")

    def _fetch(self, sources: Sequence[Any], meter: _Meter, stopped: Stopped) -> dict[str, Path]:
        found: dict[str, Path] = {}
        with ExitStack() as stack:
            parts: dict[str, Path] = {}
            for source in sources:
                parts[_name(source)] = stack.enter_context(self._blobs.part(_name(source), stopped))
                if source.sha256 and (blob := self._blobs.get(source.sha256)) is not None:
                    found[_name(source)] = blob
            wanted = [source for source in sources if _name(source) not in found]
            stored = [source for source in wanted if source.object_key]
            _transfer.side_by_side(lambda source: self._from_store(source, parts[_name(source)], meter, stopped), stored)
            found |= {_name(source): self._blobs.take_in(parts[_name(source)], source.sha256, is_checked=True)[0] for source in stored}
            found |= self._from_urls({_name(source): source for source in wanted if not source.object_key}, parts, meter, stopped)
        return found

    def _from_store(self, source: Any, part: Path, meter: _Meter, stopped: Stopped) -> None:
        if not source.object_key.startswith(_READABLE) or ".." in source.object_key.split("/"):
            what = f"{source.object_key!r} is no file that a run may read: only datastores, uploads and what runs have left behind."
            raise PreparationFailed("UserError", what, source.object_key)
        try:
            when_it_answers(lambda: self._fill(source, part, meter, stopped), self._retry_seconds, stopped)
        except ObjectMissing as error:
            raise PreparationFailed("SourceUnreachable", f"{source.url} is not in the object store: {error.message}", source.url) from error
        except _transfer.WrongBytes as error:
            raise PreparationFailed("DatasetChanged", f"{source.url}: {error.message}", source.url) from error

    def _fill(self, source: Any, part: Path, meter: _Meter, stopped: Stopped) -> None:
        _transfer.fill(
            self._objects, source.object_key, part, size=source.size_bytes, sha256=source.sha256, told=meter.add, stopped=stopped
        )

    def _from_urls(self, sources: Mapping[str, Any], parts: Mapping[str, Path], meter: _Meter, stopped: Stopped) -> dict[str, Path]:
        if not sources:
            return {}
        # Two digests may be named for one URL: each is fetched for itself, one after the other.
        first = {source.url: name for name, source in reversed(list(sources.items()))}
        again = {name: source for name, source in sources.items() if first[source.url] != name}
        begun = {name for name in first.values() if parts[name].stat().st_size}
        _download({url: parts[name] for url, name in first.items()}, meter, stopped)
        found = {}
        for name in first.values():
            source = sources[name]
            try:
                found[name] = self._blobs.take_in(parts[name], source.sha256)[0]
            except WrongDigest as error:
                parts[name].write_bytes(b"")
                if name not in begun:
                    raise _changed(source, error) from error
                again[name] = source
        # A beginning that was left behind may be the fault; from an empty file it is the source's.
        return found | self._from_urls(again, parts, meter, stopped)


def _demand_digests(sources: Iterable[Any]) -> None:
    """They become names of files in the cache."""
    for source in sources:
        if source.sha256 and not SHA256.match(source.sha256):
            what = f"{source.url} has no SHA-256 of 64 lower-case hex digits. Register a new version."
            raise PreparationFailed("UserError", what, source.url)


def _demand_places(targets: Sequence[Path]) -> None:
    """A list that lies in the object store is not checked before."""
    twice = next((target for target, count in Counter(targets).items() if count > 1), None)
    if twice is not None:
        raise PreparationFailed("UserError", f"Two files of one input would lie at {twice.name!r} on the node.", twice.name)


def _name(source: Any) -> str:
    """What its part in the cache is called: one name for one content."""
    return str(source.sha256) or hashlib.sha256(source.url.encode()).hexdigest()


def _changed(source: Any, error: WrongDigest) -> PreparationFailed:
    what = (
        f"{source.url} has changed since the dataset was registered: its SHA-256 was {error.wanted}, now it is {error.found}. "
        "Register a new version."
    )
    return PreparationFailed("DatasetChanged", what, source.url)


def _measured(source: Any, blob: Path) -> SourceFile:
    return SourceFile(
        url=source.url,
        path=source.path,
        size_bytes=blob.stat().st_size,
        etag=source.etag,
        sha256=blob.name,
        object_key=source.object_key,
    )


class _Meter:
    """A line every few seconds. `add` may be called from any thread."""

    def __init__(self, total: int, say: Say) -> None:
        self._total = total
        self._say = say
        self._bytes = 0
        self._at = time.monotonic()

    def add(self, number: int) -> None:
        self._bytes += number
        now = time.monotonic()
        if now - self._at >= _TELL_SECONDS:
            self._at = now
            of = f" of {self._total / 1e6:.1f}" if self._total else ""
            self._say(f"data: {self._bytes / 1e6:.1f}{of} MB fetched")


def _download(targets: Mapping[str, Path], meter: _Meter, stopped: Stopped) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-m", "services.trainer_agent.fetch", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env={**only(os.environ, FOR_DOWNLOADS), "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "sdk")])},
        ) as child,
        _ended_when(stopped, child),
    ):
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps({url: str(target) for url, target in targets.items()}))
            child.stdin.close()
        last: dict[str, Any] = {}
        passed, noise = 0, ""
        for line in child.stdout:
            try:
                last = dict(json.loads(line))
            except (ValueError, TypeError):
                noise = (noise + line)[-500:]
                continue
            if "bytes" in last:
                meter.add(int(last["bytes"]) - passed)
                passed = int(last["bytes"])
        child.wait()
    if child.returncode:
        url = str(last.get("url", next(iter(targets))))
        what = str(last.get("error", f"the download process ended with {child.returncode}: {noise.strip()}"))
        raise PreparationFailed("SourceUnreachable", f"{url} cannot be read: {what}", url)


@contextmanager
def _ended_when(stopped: Stopped, child: subprocess.Popen[str]) -> Iterator[None]:
    """Inside of it, whoever reads what the child says need not look at `stopped()`: the child's end ends the reading."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            if stopped():
                child.kill()
                return

    looking = threading.Thread(target=look, name="looks after a download", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


def _put(blob: Path, target: Path, writable: bool, stopped: Stopped) -> None:
    _transfer.go_on_unless(stopped)
    target.parent.mkdir(parents=True, exist_ok=True)
    # What lies there may be a link into the cache, of an input that was placed before: written through, it would change for every run.
    target.unlink(missing_ok=True)
    if writable:
        shutil.copyfile(blob, target)
        return
    try:
        os.link(blob, target)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(blob, target)
        target.chmod(0o444)
