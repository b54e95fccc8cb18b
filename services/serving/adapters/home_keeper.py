"""The keeper of this home, as its service sees it: processes are started through it, and found again after a service was killed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from services.serving.adapters.kept import Kept
from services.serving.adapters.server_environment import REPO, child_environment
from services.serving.keeper import address
from services.serving.keeper.frames import PROTOCOL, Frames, Garbled, Message, framed
from services.serving.ports import PortTaken

log = structlog.get_logger()
_LOOK_SECONDS = 0.05
_CONNECT_SECONDS, _WELCOME_SECONDS = 30.0, 10.0
_BLOCK = 1 << 16
# By these whoever stops the platform finds what is left of it.
_MARKS = ("TRAINYARD_SETTINGS", "TRAINYARD_HOME")


class Keeper:
    """The keeper of `home`: the one that is there, or one that is started when it is needed."""

    def __init__(self, home: Path, orphan_seconds: float = 900.0) -> None:
        self._home = home
        self._orphan_seconds = orphan_seconds
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._spawned = 0  # a process that is ours to wait for
        self._pid = 0
        self._children: dict[str, Kept] = {}
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._numbers = itertools.count(1)
        self._found: list[Kept] = []  # of the service before this one, and nobody asked for them yet

    async def start(
        self,
        key: str,
        digest: str,
        words: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        listen: tuple[str, int, str] | None = None,
    ) -> Kept:
        """`listen`: host, port and owner of a socket that it is lent by --rest-fd; it is told its parent by --parent-pid. Raises PortTaken, and
        OSError where it cannot be started."""
        await self._connected()
        kept = Kept(self.send, uuid.uuid4().hex, key, digest)
        self._children[kept.id] = kept
        seq = next(self._numbers)
        answer = self._asked[seq] = asyncio.get_running_loop().create_future()
        try:
            about = {"op": "start", "seq": seq, "id": kept.id, "key": key, "digest": digest}
            self.send({**about, "words": list(words), "cwd": str(cwd), "env": dict(env), "listen": listen})
            told = await asyncio.shield(answer)
        except asyncio.CancelledError:
            self._end_unheard(kept)
            raise
        except Garbled as error:
            del self._children[kept.id]
            raise OSError(f"it cannot be told to start: {error}") from error
        finally:
            self._asked.pop(seq, None)
        if "error" in told:
            self._children.pop(kept.id, None)
            raise PortTaken(told["error"]) if told["taken"] else OSError(told["error"])
        return kept

    def _end_unheard(self, kept: Kept) -> None:
        """Nobody waits for it any more; messages stay in order, so the keeper has started it by then."""
        self.send({"op": "signal", "id": kept.id, "number": int(signal.SIGKILL)})

    async def found(self, key: str) -> list[Kept]:
        """What the service before this one had started by that key; each is given once."""
        await self._look()
        given = [it for it in self._found if it.key == key]
        self._found = [it for it in self._found if it.key != key]
        return given

    async def found_keys(self) -> set[str]:
        """Of all that nobody has asked for."""
        await self._look()
        return {it.key for it in self._found}

    async def leave(self) -> None:
        """Whatever runs ends with this service, as does the keeper."""
        await self._look()
        self.send({"op": "leave"})

    def send(self, message: Message) -> None:
        if self._writer is not None:
            self._writer.write(framed(message))

    # -- the connection

    async def _look(self) -> None:
        """Connects to the keeper that is there, if there is one."""
        async with self._connecting:
            if self._writer is None:
                await self._reach()

    async def _connected(self) -> None:
        """Raises OSError."""
        async with self._connecting:
            if self._writer is not None or await self._reach():
                return
            self._spawn()
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    while not await self._reach():
                        await self._until_next_look()
            except TimeoutError as error:
                raise OSError(f"the keeper does not answer: see {self._log}") from error

    async def _until_next_look(self) -> None:
        """Raises OSError where the keeper that was started has ended."""
        if (code := self._ended()) is not None:
            raise OSError(f"the keeper ended with exit code {code}: see {self._log}")
        await asyncio.sleep(_LOOK_SECONDS)

    @property
    def _log(self) -> Path:
        return self._home / "logs" / "keeper.log"

    def _spawn(self) -> None:
        """In a session of its own, with nothing that ends with this process: its output is a file."""
        self._ended()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        options = [f"--home={self._home}", f"--orphan-seconds={self._orphan_seconds}"]
        marks = {name: os.environ[name] for name in _MARKS if name in os.environ}
        appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._spawned = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "services.serving.keeper", *options],
            child_environment(os.environ) | marks | {"PYTHONPATH": str(REPO)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._log), appending, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
        )

    def _ended(self) -> int | None:
        """The exit code of the keeper that was started here; None: it runs, or there is none."""
        if not self._spawned:
            return None
        pid, status = os.waitpid(self._spawned, os.WNOHANG)
        if not pid:
            return None
        self._spawned = 0
        return os.waitstatus_to_exitcode(status)

    async def _reach(self) -> bool:
        """One that does not fit, or does not say who it is, is ended."""
        try:
            connection = address.connect(self._home)
        except OSError:
            return False
        pid = address.pid_of(connection)
        connection.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        frames = Frames()
        try:
            async with asyncio.timeout(_WELCOME_SECONDS):
                writer.write(framed({"op": "hello", "orphan_seconds": self._orphan_seconds}))
                messages = await _first(reader, frames)
            if messages[0].get("protocol") != PROTOCOL:
                raise Garbled(f"it speaks protocol {messages[0].get('protocol')!r}, not {PROTOCOL}")
            self._welcome(messages[0])
        except (OSError, EOFError):
            writer.close()  # it was about to end
            return False
        except (TimeoutError, Garbled, KeyError, TypeError) as error:
            log.warning("the keeper is ended: it does not fit", pid=pid, why=f"{type(error).__name__}: {error}")
            writer.close()
            _kill(pid)
            return False
        self._writer, self._pid = writer, pid
        self._hear_all(messages[1:])
        self._reading = asyncio.create_task(self._read(reader, frames))
        return True

    def _welcome(self, message: Message) -> None:
        """Raises KeyError and TypeError."""
        found = []
        for about in message["children"]:
            kept = Kept(self.send, about["id"], about["key"], about["digest"])
            kept.told(about)
            found.append(kept)
        self._children = {it.id: it for it in found}
        self._found = found

    async def _read(self, reader: asyncio.StreamReader, frames: Frames) -> None:
        try:
            while data := await reader.read(_BLOCK):
                self._hear_all(frames.feed(data))
        except (OSError, Garbled, KeyError, TypeError, ValueError) as error:
            log.warning("the keeper cannot be understood", why=f"{type(error).__name__}: {error}")
        finally:
            self._lost()

    def _hear_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._hear(message)

    def _hear(self, message: Message) -> None:
        """Raises KeyError, TypeError and ValueError."""
        if "seq" in message:
            self._answered(message)
            return
        if message["op"] == "replaced":
            log.error("another service has taken over the keeper")
            self._pid = 0  # it is that one's
            return
        kept = self._children.get(message["id"])
        if kept is None:
            return
        match message["op"]:
            case "output":
                kept.wrote(message["stream"], base64.b64decode(message["data"]))
            case "over":
                kept.wrote_all(message["stream"])
            case "exit":
                kept.has_ended(int(message["code"]))
        if kept.is_over:
            self._children.pop(kept.id, None)

    def _answered(self, message: Message) -> None:
        kept, answer = self._children.get(message.get("id", "")), self._asked.get(message["seq"])
        if kept is not None and "error" not in message:
            kept.told(message)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _lost(self) -> None:
        """Its children die with it, and one that cannot be understood is no longer of use."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        if self._pid:
            log.warning("the keeper is gone, and all servers with it", pid=self._pid)
            _kill(self._pid)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result({"error": "the keeper is gone", "taken": False})
        children, self._children, self._found = list(self._children.values()), {}, []
        for kept in children:
            kept.is_gone()


async def _first(reader: asyncio.StreamReader, frames: Frames) -> list[Message]:
    """What comes first, and what came along with it. Raises EOFError, OSError and Garbled."""
    while not (found := frames.feed(data := await reader.read(_BLOCK))):
        if not data:
            raise EOFError
    return found


def _kill(pid: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
