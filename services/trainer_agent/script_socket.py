"""The Unix socket that a rank's run context writes to: JSON lines as sdk/trainyard/_wire.py defines them. The script is hostile
until it has shown otherwise: lines are bounded, connections are counted, and nothing that it sends ends the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import structlog

from services.trainer_agent.metrics import Metrics
from trainyard._wire import LINE_BYTES

log = structlog.get_logger()
_LAST_ONE = b"\0the last one\n"
_CONNECTIONS, _BEHIND = 512, 2000
_LONGEST_FLUSH_SECONDS = 600.0


class Requests(Protocol):
    """What a script may ask for."""

    def owns(self, run_id: str) -> bool:
        """Whether the script may speak for that run: a child that it opened."""
        ...

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"ok": ...} or {"error": {...}}. Never raises."""
        ...


class ScriptSocket:
    def __init__(self, metrics: Metrics, requests: Requests) -> None:
        self._metrics = metrics
        self._requests = requests
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._last_one = asyncio.Event()
        self._closing = False

    async def listen(self, path: Path) -> None:
        self._path = path
        self._server = await asyncio.start_unix_server(self._connected, str(path))

    async def close(self, patience: float = 2.0) -> None:
        """Whatever is on its way is read; a connection that a stray child keeps open is not waited for."""
        if self._server is None:
            return
        self._closing = True
        # Connections are accepted in their order: once this one is, every earlier one has been, its writer dead or not.
        # A script may have removed the socket: what its run has come to counts all the same.
        with contextlib.suppress(OSError):
            async with asyncio.timeout(patience):
                _, last = await asyncio.open_unix_connection(str(self._path))
                last.write(_LAST_ONE)
                last.close()
                await self._last_one.wait()
        self._server.close()
        if self._connections:
            await asyncio.wait(self._connections, timeout=patience)
        for task in self._connections:
            task.cancel()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _CONNECTIONS and not self._closing:
            self._metrics.complain(f"more than {_CONNECTIONS} connections at once: one was turned away")
            writer.close()
            return
        task = asyncio.ensure_future(self._read(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = Frames(LINE_BYTES + 4096)
        try:
            while data := await reader.read(1 << 16):
                if data == _LAST_ONE and self._closing:
                    self._last_one.set()
                    return
                for line in frames.feed(data):
                    await self._line(line, writer)
                if self._metrics.behind > _BEHIND and not self._closing:
                    # A script that logs faster than Kafka takes it waits here, not in this process' memory.
                    await self._metrics.flush()
        except ConnectionError:
            pass
        except Exception:
            log.exception("a script's connection broke")
        finally:
            if frames.lost:
                self._metrics.complain(f"{frames.lost} lines were not recorded: each takes {LINE_BYTES} bytes at most, and ends")
            writer.close()

    async def _line(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            item = json.loads(line)
            if not isinstance(item, dict):
                raise ValueError("no JSON object")
        except (ValueError, RecursionError) as error:
            self._metrics.complain(f"a line was not understood: {str(error)[:200]}")
            return
        if "ask" in item:
            answer = await self._asked(item)
            with contextlib.suppress(ConnectionError):
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
            return
        run, rows = item.get("run") or "", item.get("metrics")
        if not isinstance(rows, list) or not isinstance(run, str) or (run and not self._requests.owns(run)):
            self._metrics.complain(f"metrics of {str(run)[:150]!r} were not recorded: no list, or no child of this script")
            return
        self._metrics.take(rows, run)

    async def _asked(self, item: dict[str, Any]) -> dict[str, Any]:
        match item["ask"]:
            case "sync":
                return {"ok": True}
            case "flush":
                try:
                    async with asyncio.timeout(_patience(item.get("seconds"))):
                        await self._metrics.flush()
                except TimeoutError:
                    return {"ok": False}
                return {"ok": True}
        return await self._requests.answer(item)


def _patience(asked: Any) -> float:
    """Seconds. What is no number waits for nothing; NaN would put the loop's timers out of order."""
    try:
        seconds = float(asked or 0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_FLUSH_SECONDS) if seconds == seconds else 0.0


class Frames:
    """Bytes to lines; one that is longer than `limit` is dropped whole and counted."""

    def __init__(self, limit: int) -> None:
        self.lost = 0
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._dropping = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        *ended, rest = data.split(b"\n")
        for piece in ended:
            whole = self._take(piece)
            self._parts, self._size = [], 0
            if self._dropping:
                self._dropping = False
                self.lost += 1
            elif whole:
                yield b"".join(whole)
        self._take(rest)

    def _take(self, piece: bytes) -> list[bytes]:
        self._size += len(piece)
        if self._size > self._limit:
            self._dropping, self._parts = True, []
        elif piece:
            self._parts.append(piece)
        return self._parts
