"""What a run writes while it goes on: log lines, live to the log topic, and the log files whole on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

from services.trainer_agent.reporter import Cause, Reporter, as_record
from trainyard.job.v1.telemetry_pb2 import LogChunk

BUILD_LOG = "azureml-logs/20_image_build_log.txt"
_LINE_BYTES, _CHUNK_BYTES, _CHUNK_LINES = 32 << 10, 256 << 10, 1000


class Attempt:
    """Identity of what is told: run, epoch, and who tells."""

    def __init__(self, run_id: str, epoch: int, source: str, cause: Cause) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self.source = source
        self.cause = cause
        self.kinds: dict[tuple[str, str], str] = {}
        """(run, metric) -> its kind, as first logged by any rank; the run is the attempt's own or a child's."""


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
