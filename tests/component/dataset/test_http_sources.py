import asyncio
import hashlib

import pytest

from services.dataset.adapters.http_sources import HttpSources
from services.dataset.ports import Unreachable
from tests.component.dataset.source_server import FILES, SourceServer, etag
from tests.conftest import free_port
from trainyard._http_source import Limits
from trainyard.dataset.v1.dataset_pb2 import SourceFile

pytestmark = pytest.mark.component


async def read(*urls: str, limits: Limits | None = None) -> list[SourceFile]:
    return await HttpSources(limits).read(urls, lambda files, size: None)


async def trouble(url: str, limits: Limits | None = None) -> str:
    with pytest.raises(Unreachable) as error:
        await read(url, limits=limits)
    assert error.value.url == url
    return str(error.value)


async def test_each_file_is_told_by_size_etag_and_digest_in_the_order_asked(server: SourceServer) -> None:
    names = ["big.bin", "empty.txt", "train.gz"]

    files = await read(*(server.url(f"files/{name}") for name in names))

    assert files == [
        SourceFile(
            url=server.url(f"files/{name}"),
            path=server.url(f"files/{name}").replace("://", "/"),
            size_bytes=len(FILES[name]),
            etag=etag(name),
            sha256=hashlib.sha256(FILES[name]).hexdigest(),
        )
        for name in names
    ]


async def test_progress_counts_files_and_bytes(server: SourceServer) -> None:
    told: list[tuple[int, int]] = []

    await HttpSources().read([server.url("files/train.gz"), server.url("files/test.gz")], lambda files, size: told.append((files, size)))

    assert [files for files, _ in told] == [1, 2]
    assert told[-1][1] == len(FILES["train.gz"]) + len(FILES["test.gz"])


async def test_the_bytes_count_as_they_are_sent_and_no_compression_is_asked_for(server: SourceServer) -> None:
    (file,) = await read(server.url("compressed"))

    assert file.sha256 == hashlib.sha256(b"\x1f\x8bnot really gzip").hexdigest()
    assert server.headers[0]["accept-encoding"] == "identity"


async def test_five_redirects_are_followed_and_a_sixth_is_not(server: SourceServer) -> None:
    (file,) = await read(server.url("redirect/5/files/train.gz"))

    assert (file.url, file.etag) == (server.url("redirect/5/files/train.gz"), etag("train.gz"))
    assert await trouble(server.url("redirect/6/files/train.gz")) == "it redirects more than 5 times"
    assert await trouble(server.url("loop")) == "it redirects more than 5 times"


async def test_a_redirect_to_another_protocol_is_refused(server: SourceServer) -> None:
    assert await trouble(server.url("elsewhere")) == "it redirects to something that is neither http nor https"


async def test_a_status_other_than_ok_is_told(server: SourceServer) -> None:
    assert await trouble(server.url("files/absent")) == "the server answered 404 Not Found"


async def test_a_body_shorter_than_announced_is_told_by_both_lengths(server: SourceServer) -> None:
    assert await trouble(server.url("truncated")) == "the body ended after 10 of 20 bytes"


async def test_a_server_that_does_not_speak_http_is_told(server: SourceServer) -> None:
    assert "does not speak HTTP" in await trouble(server.url("nonsense"))


async def test_a_port_where_nobody_listens_is_told() -> None:
    assert await trouble(f"http://127.0.0.1:{free_port()}/a") == "the connection was refused"


async def test_a_host_that_no_one_knows_is_told() -> None:
    assert await trouble("http://no-such-host.invalid/a") == "its host's name was not found"


async def test_plain_http_where_https_is_asked_for_is_told(server: SourceServer) -> None:
    assert (await trouble(server.url("files/train.gz").replace("http:", "https:"))).startswith("TLS failed")


async def test_a_server_that_goes_silent_is_given_up(server: SourceServer) -> None:
    assert await trouble(server.url("gated/a"), Limits(silence=0.1)) == "the server sent nothing for 0.1 s"


async def test_a_file_that_takes_too_long_as_a_whole_is_given_up(server: SourceServer) -> None:
    assert await trouble(server.url("gated/a"), Limits(file=0.1)) == "it was not read to its end within 0.1 s"


async def test_a_redirect_that_no_client_can_follow_is_an_answer_and_no_crash() -> None:
    assert await trouble("http://127.0.0.1:99999/a")


async def test_so_many_files_of_a_call_are_read_at_a_time_and_no_more(server: SourceServer) -> None:
    sources = HttpSources(Limits(at_once=3))
    urls = [server.url(f"gated/{number}") for number in range(8)]
    call = asyncio.create_task(sources.read(urls, lambda files, size: None))
    await asyncio.to_thread(server.reached, 3)

    server.gate.set()
    found = await call

    assert server.most_at_once == 3
    assert [file.url for file in found] == urls


async def test_the_first_file_that_cannot_be_read_ends_the_others(server: SourceServer) -> None:
    urls = [server.url("gated/a"), server.url("files/absent")]

    with pytest.raises(Unreachable) as error:
        await read(*urls)

    assert error.value.url == urls[1]
