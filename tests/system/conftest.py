"""One stack for the whole session, on ports and in a home of its own; tests keep apart by the names that they choose."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.local import stack
from deploy.local.layout import Layout, in_use
from tests.system.platform import Platform


def _free_layout(home: Path) -> Layout:
    for _ in range(100):
        layout = Layout(home, base=random.randrange(20_000, 32_000, 100), node_slots=6)
        if not in_use(layout):
            return layout
    raise RuntimeError("no hundred ports in a row are free")


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    layout = _free_layout(tmp_path_factory.mktemp("stack"))
    try:
        stack.up(layout)
        made = Platform(layout)
        yield made
        made.close()
    finally:
        stack.down(layout)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(600))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def files_over_http(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL under which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class _Stuck(BaseHTTPRequestHandler):
    """Takes every request and never answers it, until the test is over."""

    over: threading.Event

    def do_GET(self) -> None:
        self.over.wait(120)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def stuck_source() -> Iterator[str]:
    """A URL below which nothing ever comes."""
    over = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Stuck", (_Stuck,), {"over": over}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    server.server_close()
    thread.join()
