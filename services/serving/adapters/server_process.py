"""A model server or a scoring script as a child process: heard until it says that it is ready, bound in its memory, drained at the end."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import deque
from typing import Any

from services.serving.adapters import server_look
from services.serving.adapters.kept import Kept
from services.serving.adapters.output_lines import lines
from services.serving.ports import CannotServe, Content, Ports, PortTaken, Say
from trainyard.event.v1.artifact_pb2 import Failure

_PORT_TAKEN = 4
_LAST_LINES = 20
_LAST_WORDS_SECONDS = 2.0
_LOOK_SECONDS = 0.5  # between two looks at how much memory a server takes


class ModelServer:
    """One process. All that it writes goes to `say`; the JSON line on standard output says that it answers, and where."""

    def __init__(self, process: Kept, content: Content, say: Say, host: str, rest_port: int) -> None:
        self._process = process
        self._content = content
        self._say = say
        self._host = host
        self._rest_port = rest_port
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._bound = (0, "")  # bytes of memory, and whose bound that is
        self._over = ""  # why it was ended, where it took too much memory
        self._watching: asyncio.Task[None] | None = None
        self._reading = [asyncio.create_task(self._read_output(process.stdout)), asyncio.create_task(self._read_errors(process.stderr))]

    @property
    def ports(self) -> Ports:
        """A script may print any number; where it answers over REST is ours to know, and over gRPC it does not."""
        return Ports(int(self._ready.result()["grpc_port"]) if self._content.scoring is None else 0, self._rest_port)

    @property
    def signatures(self) -> tuple[str, ...]:
        return tuple(self._ready.result()["signatures"])

    def keep_for_the_next(self, digest: str) -> None:
        """It answers: the next service may take it as it is. `digest`: of the files that it serves."""
        self._process.keep({"ready": self._ready.result(), "digest": digest})

    def left_by_the_one_before(self) -> str | None:
        """The digest of its files, where it has answered already; None where nobody knows."""
        note = self._process.note
        told = _as_ready(json.dumps(note.get("ready"))) if isinstance(note, dict) else None
        if told is None:
            return None
        if not self._ready.done():
            self._ready.set_result(told)
        return str(note.get("digest", ""))

    def bound(self, memory_bytes: int, budget: int = 0) -> None:
        """From here on it is ended where it takes more than its own bound, or than all servers may take together; 0: no bound."""
        bounds = [
            (memory_bytes, "is its bound; give it more memory_gb"),
            (budget, "is what all endpoints may take together; set more serving.memory_budget_bytes"),
        ]
        if found := [it for it in bounds if it[0]]:
            self._bound = min(found)
            self._watching = asyncio.create_task(self._watch_memory())

    async def _watch_memory(self) -> None:
        while self._process.returncode is None:
            if why := await asyncio.to_thread(self._exceeds):
                self._over = why
                self._hear(why)
                self._process.send_signal(signal.SIGKILL)
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _exceeds(self) -> str:
        """Its bound, and in which words; "" where it does not."""
        most, bound = self._bound
        used = server_look.memory_of(self._process.pid, most) if most else 0
        return f"the server took {used / 2**20:.0f} MiB of memory, and {most / 2**20:.0f} MiB {bound}" if used > most else ""

    async def calls(self) -> int | None:
        """As its metrics have it."""
        tls = self._content.tls
        return await asyncio.to_thread(server_look.calls_of, self._host, self.ports.rest, tls.certificate_pem if tls is not None else "")

    async def memory(self) -> int:
        return await asyncio.to_thread(server_look.memory_of, self._process.pid)

    async def until_ready(self, seconds: float) -> None:
        """Raises CannotServe, and PortTaken."""
        ended = asyncio.create_task(self._ended())
        either: list[asyncio.Future[Any]] = [self._ready, ended]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            raise CannotServe(self._failure("LoadTimedOut", f"the model server did not answer within {seconds:.0f} s")) from error
        finally:
            ended.cancel()
        failed = "ModelLoadFailed" if self._content.scoring is None else "ScoringScriptFailed"
        if self._ready.done():
            # One that fills its memory faster than anybody looks never answers a call.
            if why := await asyncio.to_thread(self._exceeds):
                raise CannotServe(self._failure(failed, why))
            return
        code, why = ended.result()
        if code == _PORT_TAKEN:
            raise PortTaken(why)
        raise CannotServe(self._failure(failed, why, code))

    async def wait(self) -> Failure:
        code, why = await self._ended()
        return self._failure("ModelServerDied", why, code)

    async def stop(self, grace_seconds: float) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_seconds):
                    await self._process.wait()
            except TimeoutError:
                pass
            finally:
                if self._process.returncode is None:
                    self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        await asyncio.wait(self._reading, timeout=_LAST_WORDS_SECONDS)

    async def _ended(self) -> tuple[int, str]:
        """The exit code, and what happened in words, once all that it wrote was read."""
        code = await self._process.wait()
        await asyncio.wait(self._reading, timeout=_LAST_WORDS_SECONDS)
        if self._over:
            return code, self._over
        if code < 0:
            memory = "; the system may have run out of memory" if -code == signal.SIGKILL else ""
            return code, f"the model server was killed by {signal.Signals(-code).name}{memory}"
        return code, self._last[-1] if code and self._last else f"the model server ended with exit code {code}"

    def _failure(self, code: str, why: str, exit_code: int | None = None) -> Failure:
        what = f"Model {self._content.title}" if self._content.scoring is None else self._content.title
        return Failure(
            code=code, message=f"{what}: {why}"[:3000], target=self._content.id, last_lines=list(self._last), exit_code=exit_code
        )

    async def _read_output(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            told = _as_ready(line)
            if told is not None and not self._ready.done():
                self._ready.set_result(told)
            else:
                self._hear(line)

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            self._hear(line)

    def _hear(self, line: str) -> None:
        self._last.append(line[:1000])
        self._say(line)


def _as_ready(line: str) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("ready") is not True:
        return None
    # A script prints what it likes, what it was sent included.
    ports, names = [told.get("grpc_port"), told.get("rest_port")], told.get("signatures")
    fits = (
        all(type(it) is int and 0 <= it < 1 << 16 for it in ports) and isinstance(names, list) and all(isinstance(it, str) for it in names)
    )
    return told if fits else None
