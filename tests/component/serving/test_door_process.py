"""The door as a child of the serving service: what becomes of it while somebody else has its port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.serving.adapters.door_process import DoorProcess, DoorTable
from services.serving.adapters.home_keeper import Keeper
from services.serving.keeper import address
from services.serving.shown import Door
from tests.conftest import free_port

pytestmark = pytest.mark.component


async def test_a_port_that_is_taken_is_told_once_and_the_door_opens_when_it_is_free(tmp_path: Path) -> None:
    grpc_port, rest_port = free_port(), free_port()
    process = DoorProcess(Keeper(tmp_path), DoorTable(tmp_path), "127.0.0.1", grpc_port, rest_port, "")
    door = Door("here", grpc_port, rest_port, lambda: process.is_kept_out)

    with capture_logs() as told:
        with socket.create_server(("127.0.0.1", grpc_port)):
            running = asyncio.create_task(process.run())
            await _until(lambda: process.is_kept_out)
            assert not door.is_open
            count = _count(told, "debug")
            await _until(lambda: _count(told, "debug") > count)  # it has tried once more
        await _until(lambda: not process.is_kept_out)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    address.end(tmp_path)

    assert door.is_open
    (line,) = [it for it in told if it["log_level"] == "warning"]
    assert f"127.0.0.1:{grpc_port} is taken" in line["why"]
    assert "serving.door_grpc_port" in line["what_to_do"]


def _count(told: Sequence[Mapping[str, Any]], level: str) -> int:
    return sum(it["log_level"] == level for it in told)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)
