"""What a run says while it goes on: log lines and metrics, live to the log topics, and the log files whole on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from services.trainer_agent.reporter import Cause, Reporter, as_record
from trainyard._context import wrong_name
from trainyard.job.v1.telemetry_pb2 import LogChunk, MetricBatch, MetricPoint

BUILD_LOG = "azureml-logs/20_image_build_log.txt"
DRIVER_LOG = "azureml-logs/70_driver_log.txt"
_LINE_BYTES, _CHUNK_BYTES, _CHUNK_LINES = 32 << 10, 256 << 10, 1000
_METRIC_BYTES = 512 << 10
_TEXT = 3000
_LAST_ONE = b"\0the last one\n"
_KINDS = ("scalar", "list", "row", "table")


class Attempt:
    """Identity of what is told: run, epoch, and who tells."""

    def __init__(self, run_id: str, epoch: int, source: str, cause: Cause) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self.source = source
        self.cause = cause


class LogStream:
    """One log of one rank: a file, and chunks that carry the number of their first line."""

    def __init__(self, attempt: Attempt, rank: int, name: str, file: Path, reporter: Reporter) -> None:
        self.name = name
        self.last_lines: deque[str] = deque(maxlen=20)
        self._attempt = attempt
        self._rank = rank
        self._reporter = reporter
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("ab")
        self._next = 0

    def write(self, lines: Iterable[str]) -> None:
        """Lines without their ends; each is cut to 32 KiB in the stream, never in the file."""
        batch: list[str] = []
        size = 0
        for line in lines:
            raw = line.encode("utf-8", "replace")
            self._file.write(raw + b"\n")
            cut = raw[:_LINE_BYTES]
            text = cut.decode("utf-8", "ignore")
            self.last_lines.append(text[:1000])
            if batch and (size + len(cut) > _CHUNK_BYTES or len(batch) >= _CHUNK_LINES):
                self._send(batch)
                batch, size = [], 0
            batch.append(text)
            size += len(cut)
        if batch:
            self._send(batch)
        self._file.flush()

    def close(self) -> None:
        """Whoever follows is told that nothing more comes; a second time does nothing."""
        if not self._file.closed:
            self._file.close()
            self._send([], last=True)

    def _send(self, lines: list[str], *, last: bool = False) -> None:
        attempt = self._attempt
        chunk = LogChunk(
            run_id=attempt.run_id, epoch=attempt.epoch, rank=self._rank, log=self.name, first_line=self._next, lines=lines, last=last
        )
        self._next += len(lines)
        self._reporter.send(as_record("trainyard.logs", attempt.run_id, chunk, attempt.source, attempt.cause))


class Lines:
    """Bytes to lines as they come: \\n, \\r\\n and a bare \\r (a progress bar) end one; a line that never ends is cut at `longest` bytes."""

    def __init__(self, longest: int = _LINE_BYTES) -> None:
        self._longest = longest
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        self._rest += data
        if b"\n" not in self._rest and b"\r" not in self._rest and len(self._rest) < self._longest:
            return []
        held_back = b"\r" if self._rest.endswith(b"\r") else b""
        text = self._rest[: len(self._rest) - len(held_back)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *whole, self._rest = text.split(b"\n")
        self._rest += held_back
        while len(self._rest) >= self._longest:
            whole.append(self._rest[: self._longest])
            self._rest = self._rest[self._longest :]
        return [line.decode("utf-8", "replace") for line in whole]

    def finish(self) -> list[str]:
        rest, self._rest = self._rest.rstrip(b"\r"), b""
        return [rest.decode("utf-8", "replace")] if rest else []


class Metrics:
    """The Unix socket that the run context of a rank writes to: one JSON object a line."""

    def __init__(self, attempt: Attempt, rank: int, reporter: Reporter, complain: LogStream) -> None:
        self._attempt = attempt
        self._rank = rank
        self._reporter = reporter
        self._complain = complain
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._last_one = asyncio.Event()

    async def listen(self, path: Path) -> None:
        self._path = path
        self._server = await asyncio.start_unix_server(self._connected, str(path))

    async def close(self, patience: float = 2.0) -> None:
        """Whatever is on its way is read; a connection that a stray child keeps open is not waited for."""
        if self._server is None:
            return
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
        task = asyncio.ensure_future(self._read(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = Lines(_METRIC_BYTES)
        try:
            while data := await reader.read(1 << 16):
                if data == _LAST_ONE:
                    self._last_one.set()
                    return
                self.take(lines.feed(data))
        except ConnectionError:
            pass
        finally:
            self.take(lines.finish())
            writer.close()

    def take(self, lines: Iterable[str]) -> None:
        points = []
        for line in lines:
            try:
                points.append(as_point(json.loads(line)))
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                self._complain.write([f"trainyard: a metric was not recorded: {error}"])
        if points:
            attempt = self._attempt
            batch = MetricBatch(run_id=attempt.run_id, epoch=attempt.epoch, rank=self._rank, points=points)
            self._reporter.send(as_record("trainyard.metrics", attempt.run_id, batch, attempt.source, attempt.cause))


def as_point(item: Any) -> Any:
    """Raises ValueError, TypeError, KeyError or OverflowError for what is no metric."""
    name, kind, value = item["name"], item["kind"], item["value"]
    trouble = wrong_name(name)
    if trouble:
        raise ValueError(trouble)
    if kind not in _KINDS:
        raise ValueError(f"kind {str(kind)[:50]!r} is none of {', '.join(_KINDS)}")
    point = MetricPoint(name=name, kind=kind)
    point.logged_at.FromNanoseconds(int(float(item["at"]) * 1e9))
    if kind != "scalar" or value is None:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if len(text.encode()) > _METRIC_BYTES:
            raise ValueError(f"{name!r} has more than {_METRIC_BYTES >> 10} KiB")
        point.json = text
    elif isinstance(value, str):
        point.text = value[:_TEXT]
    else:
        point.number = float(value)
    return point
