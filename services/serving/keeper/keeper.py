"""Starts processes for a service, and holds them while no service is there. One service at a time: who comes last takes over."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

from services.serving.keeper.address import NAME
from services.serving.keeper.child import Child, Stream
from services.serving.keeper.frames import PROTOCOL, Frames, Garbled, Message, framed
from services.serving.keeper.lending import Lending, Taken

_HIGH_WATER = 1 << 20  # bytes that a slow service has not read
_LAST_WORDS_SECONDS = 2.0  # for what a child that ended left behind, and still writes
_LATE_SECONDS = 2.0  # for what a service that was stopped has not drained
_GRACE_SECONDS, _KILLED_SECONDS = 5.0, 5.0


class Link(asyncio.Protocol):
    """A connection. Nothing that comes by it ends the keeper."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self.is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._frames.feed(data)
        except Garbled as error:
            say(f"a connection is closed: {error}")
            self.close()
            return
        for message in messages:
            try:
                self._keeper.hear(self, message)
            except Exception as error:  # whatever it is, the children are more
                say(f"a message is passed over: {type(error).__name__}: {error}")

    def send(self, message: Message) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self._keeper.tell()

    def connection_lost(self, error: Exception | None) -> None:
        self._keeper.lost(self)


class Keeper:
    def __init__(self, orphan_seconds: float) -> None:
        """`orphan_seconds`: so long it goes on without a service. In a running loop."""
        self.over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._orphan_seconds = orphan_seconds
        self._children: dict[str, Child] = {}
        self._lending = Lending()
        self._link: Link | None = None
        self._ends_with_service = False
        self._is_ending = False
        self._has_served = False
        self._alone = self._loop.call_later(orphan_seconds, self._end_alone)

    # -- the service

    def hear(self, link: Link, message: Message) -> None:
        if message.get("op") == "hello":
            self._hello(link, message)
            return
        if link is not self._link:
            return
        match message["op"]:
            case "start":
                link.send({"seq": message["seq"], **self._started(message)})
            case "signal":
                if (child := self._children.get(message["id"])) is not None:
                    child.signal(int(message["number"]))
            case "note":
                if (child := self._children.get(message["id"])) is not None:
                    child.note = message["note"]
            case "leave":
                self._ends_with_service = True

    def lost(self, link: Link) -> None:
        if link is not self._link:
            return
        self._link = None
        if self._ends_with_service or not self._living():
            self.end(_LATE_SECONDS)
        else:
            say(f"the service is gone; {len(self._children)} processes go on, for {self._orphan_seconds:g} s without another")
            self._alone = self._loop.call_later(self._orphan_seconds, self._end_alone)

    def _hello(self, link: Link, message: Message) -> None:
        orphan_seconds = float(message["orphan_seconds"])
        if self._is_ending:
            link.close()
            return
        before, self._link = self._link, link
        if before is not None and before is not link:
            before.send({"op": "replaced"})
            before.close()
        self._alone.cancel()
        self._orphan_seconds = orphan_seconds
        self._ends_with_service, self._has_served = False, True
        link.send({"protocol": PROTOCOL, "children": [it.about() for it in self._children.values()]})
        for child in self._children.values():
            child.forget_told()
        self.tell()

    # -- children

    def _started(self, told: Message) -> dict[str, Any]:
        try:
            child = self._start(told)
        except Taken as error:
            return {"error": str(error), "taken": True}
        except (OSError, ValueError, TypeError, KeyError, subprocess.SubprocessError) as error:
            return {"error": f"{type(error).__name__}: {error}", "taken": False}
        return child.about()

    def _start(self, told: Message) -> Child:
        """Raises Taken, and OSError, ValueError, TypeError, KeyError and SubprocessError where it cannot be started as it was told."""
        if self._is_ending or told["id"] in self._children:
            raise ValueError("the keeper is ending" if self._is_ending else "it was started already")
        with ExitStack() as undo:
            words, lent, passed = [*told["words"], f"--parent-pid={os.getpid()}"], None, []
            if told["listen"] is not None:
                lent = self._lending.take(*told["listen"])
                undo.callback(self._lending.give_back, lent)
                passed.append(lent.listening.fileno())
                words.append(f"--rest-fd={passed[0]}")
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=told["cwd"],
                env=told["env"],
                process_group=0,
                pass_fds=passed,
                bufsize=0,
            )
            undo.pop_all()
        child = self._children[told["id"]] = Child(told["id"], told["key"], told["digest"], process, lent)
        for stream in child.streams:
            self._loop.add_reader(stream.descriptor, partial(self._read, child, stream))
        return child

    def _read(self, child: Child, stream: Stream) -> None:
        if not stream.read():
            self._close(child, stream)
        self._tell(child)

    def _close(self, child: Child, stream: Stream) -> None:
        if stream.descriptor >= 0:
            self._loop.remove_reader(stream.descriptor)
            stream.close()
        self._tell(child)

    def reap(self) -> None:
        """A child may have ended."""
        for child in list(self._children.values()):
            if child.has_ended():
                if child.lent is not None:
                    self._lending.give_back(child.lent)
                for stream in child.streams:
                    self._loop.call_later(_LAST_WORDS_SECONDS, self._close, child, stream)
                self._tell(child)
        if self._living():
            return
        if self._is_ending:
            self.over.set()
        elif self._link is None and self._has_served:
            self.end(0)  # there is nothing to keep

    def _living(self) -> list[Child]:
        return [it for it in self._children.values() if it.code is None]

    def tell(self) -> None:
        """All that is not said yet."""
        for child in list(self._children.values()):
            self._tell(child)

    def _tell(self, child: Child) -> None:
        link = self._link
        if link is None or link.is_full or child.id not in self._children:
            return
        for number, stream in enumerate(child.streams):
            if stream.kept:
                link.send({"op": "output", "id": child.id, "stream": number, "data": base64.b64encode(stream.take()).decode()})
            if stream.descriptor < 0 and not stream.told_over:
                stream.told_over = True
                link.send({"op": "over", "id": child.id, "stream": number})
        if child.code is not None and not child.told_exit:
            child.told_exit = True
            link.send({"op": "exit", "id": child.id, "code": child.code})
        if child.is_told:
            del self._children[child.id]

    # -- the end

    def _end_alone(self) -> None:
        say(f"no service came for {self._orphan_seconds:g} s: the processes are ended")
        self.end(_GRACE_SECONDS)

    def end(self, grace_seconds: float) -> None:
        """`over` once no child lives, or will not end."""
        if self._is_ending:
            return
        self._is_ending = True
        with contextlib.suppress(OSError):
            os.unlink(NAME)  # whoever comes now begins anew
        for child in self._living():
            child.signal(signal.SIGTERM if grace_seconds else signal.SIGKILL)
        self._loop.call_later(grace_seconds, self._kill)
        self._loop.call_later(grace_seconds + _KILLED_SECONDS, self.over.set)
        self.reap()

    def _kill(self) -> None:
        for child in self._living():
            child.signal(signal.SIGKILL)


def say(line: str) -> None:
    """Into the keeper's log. A full disk ends nothing."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
