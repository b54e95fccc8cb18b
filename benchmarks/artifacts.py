"""Files into and out of the object store: the platform's transfer, which hashes, checks and resumes, beside bare calls of the `minio` client.

One large file and many small ones, both ways, each pair in the same run, the two taking turns. A ratio of 1 is the bare client's speed.
TRAINYARD_BENCH_LARGE_MB and TRAINYARD_BENCH_FILES give other sizes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from minio import Minio

from benchmarks.report import Row
from deploy.local.keys import BUCKET, Secrets
from services.trainer_agent.adapters.outputs import OutputStore
from trainyard import _artifacts
from trainyard._details import fetch_all
from trainyard._objects import MinioObjects
from trainyard._paths import sha256_file

_ROUNDS = 3
_SMALL_BYTES = 10_000


@dataclass
class _Pair:
    """Seconds of the bare client and of the platform, by turns."""

    bare: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    def rows(self, what: str, size: float, aim: str) -> list[Row]:
        return [
            Row(f"{what}, minio client", "MB/s", [size / 1e6 / seconds for seconds in self.bare]),
            Row(f"{what}, platform", "MB/s", [size / 1e6 / seconds for seconds in self.ours]),
            Row(f"{what}, platform / minio client", "ratio", [b / o for b, o in zip(self.bare, self.ours, strict=True)], aim),
        ]


def measure(home: Path) -> list[Row]:
    """`home` is that of a running stack."""
    import json

    large = int(os.environ.get("TRAINYARD_BENCH_LARGE_MB", "1000")) * 1_000_000
    count = int(os.environ.get("TRAINYARD_BENCH_FILES", "10000"))
    endpoint = json.loads((home / "config.json").read_text())["trainyard"]["object_store"]["endpoint"]
    secret = Secrets.load_or_make(home / "secrets.json").passwords["root"]
    bench = _Bench(MinioObjects(endpoint, "root", secret, BUCKET), Minio(endpoint, "root", secret, secure=False, region="us-east-1"))
    rows: list[Row] = []
    for what, sizes, aim in (
        (f"{large / 1e9:g} GB in one file", [large], ">= 0.8"),
        (f"{count} files of {_SMALL_BYTES // 1000} KB", [_SMALL_BYTES] * count, "> 1"),
    ):
        up, down = bench.both(sizes)
        rows += up.rows(f"upload {what}", sum(sizes), aim) + down.rows(f"download {what}", sum(sizes), aim)
    return rows


class _Bench:
    def __init__(self, objects: MinioObjects, bare: Minio) -> None:
        self._objects = objects
        self._bare = bare

    def both(self, sizes: Sequence[int]) -> tuple[_Pair, _Pair]:
        up, down = _Pair(), _Pair()
        for turn in range(_ROUNDS):
            with _files(sizes) as folder:
                names = sorted(path.name for path in (folder / "there").iterdir())
                run = f"bench-{uuid.uuid4().hex}"
                work: list[Callable[[], None]] = [
                    lambda: self._bare_round(folder, names, f"runs/{run}/0", up, down),  # noqa: B023
                    lambda: self._our_round(folder, run, up, down),  # noqa: B023
                ]
                for one in work if turn % 2 else reversed(work):
                    one()
                for key in self._objects.list(f"runs/{run}/"):
                    self._objects.remove(key)
        return up, down

    def _bare_round(self, folder: Path, names: Sequence[str], prefix: str, up: _Pair, down: _Pair) -> None:
        with _timed(up.bare):
            for name in names:
                self._bare.fput_object(BUCKET, f"{prefix}/{name}", str(folder / "there" / name))
        with _timed(down.bare):
            for name in names:
                self._bare.fget_object(BUCKET, f"{prefix}/{name}", str(folder / "bare" / name))

    def _our_round(self, folder: Path, run: str, up: _Pair, down: _Pair) -> None:
        with _timed(up.ours):
            store = OutputStore(self._objects)
            sent, _ = store.upload(run, 1, [("outputs", folder / "there")], lambda: False)
            saved = store.listed(run, 1, sent, lambda: False)
        files = list(_artifacts.resolve(self._objects, saved).files)
        with _timed(down.ours):
            fetch_all(self._objects, [(file, folder / "ours" / file.path) for file in files])
        one = files[-1]
        assert sha256_file(folder / "ours" / one.path) == one.sha256


@contextmanager
def _files(sizes: Sequence[int]) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="trainyard-bench-"))
    try:
        (folder / "there").mkdir()
        for number, size in enumerate(sizes):
            with (folder / "there" / f"{number:06}").open("wb") as file:
                for begin in range(0, size, 1 << 20):
                    file.write(os.urandom(min(1 << 20, size - begin)))
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _timed(seconds: list[float]) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - begin)
