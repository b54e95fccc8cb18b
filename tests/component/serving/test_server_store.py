"""The executable with models that lie in MinIO, which comes and goes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from deploy.local import cache as local_cache
from deploy.local import minio
from services.chassis import environments
from services.serving.adapters.server_environment import SERVER_PACKAGES
from services.serving.standalone import STORE_PACKAGES
from tests.component.serving.calls import until
from tests.component.serving.conftest import REPO, Running, started
from tests.conftest import await_port, free_port
from trainyard._environment_cache import default_cache
from trainyard._objects import MinioObjects

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]
USER, SECRET, BUCKET = "trainyard", "trainyard-test", "models"
EXECUTABLE = [str(REPO / ".venv/bin/python"), "-m", "services.serving.standalone"]
Start = Callable[[], AbstractContextManager[Running]]


class Store:
    """A MinIO of the test's own, which is killed and started anew on the same data."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        process = self._process = minio.start(local_cache.part("minio") / "minio", self._home, self.port, USER, SECRET)
        await_port(self.port, lambda: process.poll() is None)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def _objects(self) -> MinioObjects:
        return MinioObjects(f"127.0.0.1:{self.port}", USER, SECRET, BUCKET)

    def put(self, version: int, folder: Path) -> None:
        objects = self._objects
        objects.make_bucket()
        for path in sorted(it for it in folder.rglob("*") if it.is_file()):
            objects.put_file(f"nets/half/{version}/{path.relative_to(folder)}", path)

    def remove(self, version: int) -> None:
        objects = self._objects
        for key in list(objects.list(f"nets/half/{version}/")):
            objects.remove(key)


@pytest.fixture
def store(tmp_path: Path, models: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    made.start()
    try:
        made.put(1, models / "half" / "model")
        yield made
    finally:
        made.kill()


@pytest.fixture
def start(store: Store, tmp_path: Path) -> Start:
    environments.build(environments.definition("tensorflow", "", [], extra=(*SERVER_PACKAGES, *STORE_PACKAGES)), default_cache(), print)
    path = {"PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "sdk")])}
    keys = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}", "AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": SECRET}
    flags = ["--model_name=half", f"--model_base_path=s3://{BUCKET}/nets/half", f"--model_cache_dir={tmp_path / 'kept'}"]

    @contextmanager
    def run() -> Iterator[Running]:
        words = [*EXECUTABLE, *flags, "--port=0", "--rest_port=0", "--file_system_poll_wait_seconds=0.2"]
        with started(words, **path, **keys, HOME=str(Path.home())) as server:
            yield server

    return run


def answer(server: Running) -> float:
    got = httpx.post(f"{server.rest}/v1/models/half:predict", json={"instances": [1.0]}, timeout=30)
    assert got.status_code == 200, got.text
    return float(got.json()["predictions"][0])


def test_new_versions_are_served_and_without_the_store_the_last_one_stays_over_a_restart_too(
    store: Store, start: Start, models: Path
) -> None:
    with start() as server:
        first = answer(server)
        store.put(2, models / "half-3" / "model")
        until(lambda: answer(server) == 3.5, "the second version")
        store.kill()
        away = [answer(server) for _ in range(20)]
    with start() as server:
        again = answer(server)
        store.start()
        store.put(3, models / "half" / "model")
        until(lambda: answer(server) == 2.5, "the third version")

    assert (first, set(away), again) == (2.5, {3.5}, 3.5)


def test_a_version_that_is_published_no_more_leaves_the_disk_when_the_next_one_is_served(
    store: Store, start: Start, models: Path, tmp_path: Path
) -> None:
    with start() as server:
        answer(server)
        (first,) = (tmp_path / "kept").glob("*/1")
        store.put(2, models / "half-3" / "model")
        store.remove(1)
        until(lambda: not first.exists(), "end of the first version's files")
        second = answer(server)

    assert second == 3.5
    assert [it.name for it in first.parent.glob("[0-9]*")] == ["2"]


def test_an_environment_without_minio_says_what_to_install(tmp_path: Path) -> None:
    python = environments.build(environments.definition("tensorflow", "", [], extra=SERVER_PACKAGES), default_cache(), print).python
    words = [str(python), "-m", "services.serving.model_server", "--model_base_path=s3://models/half", f"--model_cache_dir={tmp_path}"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}

    done = subprocess.run(words, capture_output=True, text=True, env=environment)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pip install minio")
