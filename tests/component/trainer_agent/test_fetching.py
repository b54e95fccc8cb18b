"""Files by URL onto a node: broken connections, servers that can go on and servers that cannot, files that change meanwhile."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.trainer_agent.adapters.blobs import Blobs
from services.trainer_agent.adapters.data import Data
from services.trainer_agent.ports import PreparationFailed
from trainyard import Dataset, UserErrorException
from trainyard._dataset import FileDataset
from trainyard._objects import MemoryObjects
from trainyard.dataset.v1.dataset_pb2 import Dataset as Message
from trainyard.dataset.v1.dataset_pb2 import SourceFile

pytestmark = pytest.mark.component
BODY = bytes(range(256)) * 1024


class Server:
    """Serves `body`; each answer ends after `cut` bytes. `tag`: the ETag, "" for none; `resumes`: whether it knows Range."""

    def __init__(self) -> None:
        self.body = BODY
        self.cut = 1 << 30
        self.tag = '"one"'
        self.resumes = True
        self.asked: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/file.bin"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("range", "")
            server.asked.append(asked)
            start = 0
            if asked and server.resumes and self.headers.get("if-range") == server.tag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(server.body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
            if server.tag:
                self.send_header("ETag", server.tag)
            self.end_headers()
            self.wfile.write(server.body[start : start + server.cut])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """The tests say what went wrong."""

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(Blobs(tmp_path / "cache"), MemoryObjects())


def a_source(server: Server, body: bytes = BODY) -> SourceFile:
    return SourceFile(url=server.url, path="file.bin", size_bytes=len(body), sha256=hashlib.sha256(body).hexdigest())


def place(data: Data, source: Any, target: Path) -> bytes:
    data.place([(source, target)], writable=False)
    return target.read_bytes()


def test_a_connection_that_breaks_is_taken_up_where_it_ended(server: Server, data: Data, tmp_path: Path) -> None:
    server.cut = 100_000

    assert place(data, a_source(server), tmp_path / "file") == BODY
    assert server.asked == ["", "bytes=100000-", "bytes=200000-"]


def test_what_a_broken_attempt_has_left_is_gone_on_with_by_the_next(server: Server, data: Data, tmp_path: Path) -> None:
    server.cut, server.resumes = 100_000, False
    with pytest.raises(PreparationFailed, match="the body ended after 100000 of 262144 bytes"):
        place(data, a_source(server), tmp_path / "file")
    server.cut, server.resumes = 1 << 30, True
    server.asked.clear()

    assert place(data, a_source(server), tmp_path / "file") == BODY
    assert server.asked == ["bytes=100000-"]


def test_a_beginning_of_another_file_is_not_gone_on_with(server: Server, data: Data, tmp_path: Path) -> None:
    server.cut, server.resumes = 100_000, False
    with pytest.raises(PreparationFailed):
        place(data, a_source(server, BODY[::-1]), tmp_path / "file")
    server.cut, server.resumes, server.tag, server.body = 1 << 30, True, '"two"', BODY[::-1]

    assert place(data, a_source(server, BODY[::-1]), tmp_path / "file") == BODY[::-1]


def test_a_server_that_lies_about_its_tag_is_asked_for_the_whole(server: Server, data: Data, tmp_path: Path) -> None:
    server.cut, server.resumes = 100_000, False
    with pytest.raises(PreparationFailed):
        place(data, a_source(server, BODY[::-1]), tmp_path / "file")
    server.cut, server.resumes, server.body = 1 << 30, True, BODY[::-1]
    server.asked.clear()

    assert place(data, a_source(server, BODY[::-1]), tmp_path / "file") == BODY[::-1]
    assert server.asked == ["bytes=100000-", ""]


def test_a_changed_source_is_refused_with_both_digests_and_its_bytes_are_not_kept(server: Server, data: Data, tmp_path: Path) -> None:
    wanted, server.body = a_source(server), b"other"

    with pytest.raises(PreparationFailed) as caught:
        place(data, wanted, tmp_path / "file")

    assert caught.value.failure.code == "DatasetChanged"
    assert wanted.sha256 in caught.value.failure.message
    assert hashlib.sha256(b"other").hexdigest() in caught.value.failure.message
    server.body = BODY
    assert place(data, wanted, tmp_path / "file") == BODY


# -- on the client


def test_a_client_goes_on_with_a_download_too(server: Server, tmp_path: Path) -> None:
    server.cut = 100_000

    (path,) = Dataset.File.from_files(server.url).download(str(tmp_path / "down"))

    assert Path(path).read_bytes() == BODY
    assert server.asked == ["", "bytes=100000-", "bytes=200000-"]
    assert [file.name for file in Path(path).parent.iterdir()] == ["file.bin"]


def test_a_client_is_told_both_digests_of_a_source_that_changed(server: Server, tmp_path: Path) -> None:
    registered = FileDataset([server.url], Message(name="d", version=1, files=[a_source(server)]))
    server.body = b"other"

    with pytest.raises(UserErrorException) as caught:
        registered.download(str(tmp_path / "down"))

    assert caught.value.code == "DatasetChanged"
    assert a_source(server).sha256 in caught.value.message and hashlib.sha256(b"other").hexdigest() in caught.value.message
    assert list((tmp_path / "down").iterdir()) == []
