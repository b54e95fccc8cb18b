import asyncio

import pytest

from services.dataset.adapters.http_sources import HttpSources
from trainyard._http_source import Limits


def no_progress(files: int, size: int) -> None:
    """Nobody asks."""


@pytest.mark.component
async def test_a_server_that_never_ends_holds_up_nobody_elses_files() -> None:
    met = asyncio.Event()
    never = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
        if b"/slow" in request:
            met.set()
            await never.wait()
        writer.write(b"data")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sources = HttpSources(Limits(at_once=1))
    slow = asyncio.create_task(sources.read([f"{base}/slow"], no_progress))
    await met.wait()

    (found,) = await asyncio.wait_for(sources.read([f"{base}/quick"], no_progress), 30)

    assert found.size_bytes == 4
    assert not slow.done()

    never.set()
    await slow
    server.close()
    await server.wait_closed()
