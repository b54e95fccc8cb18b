"""The loop behind the REST front: one thread has all connections, and answers itself what is prompt; the rest is for other threads.

To change threads costs a small call more than its answer does. So a call is answered in the loop's own thread where the last answer to the
same was prompt. Should one take long for once, another thread goes on with the loop, and this one ends its call like any other.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from services.serving.model_server.http_messages import Answer, Request, json_answer, to_bytes
from services.serving.model_server.peer import has_spoken
from services.serving.model_server.rest_connection import READ, Connection, Phase
from services.serving.model_server.rest_rooms import Rooms

MAX_CONNECTIONS = 256
_LOOK_SECONDS = 0.25  # between two looks for who has been silent for too long
_ACCEPT_AGAIN_SECONDS = 0.1  # too many open files, or the like: it passes
_STUCK_SECONDS = 0.01  # a call in the loop's thread that takes so long loses the loop
_QUIET_LOOKS = 100  # after so many without a call nobody watches, until there is one
_SMALL = 64 << 10  # bytes of a body that is prompt where others to the same path are
_MOST_PROMPT, _LONGEST_PROMPT = 1024, 512  # paths; callers choose how they write them
_ACCEPTED_AT_A_TIME = 128
_CALLS_A_TURN = 16  # whoever has more here already lets the others go first
_IDLE_ENOUGH_SECONDS = 1.0  # then a kept connection may have to go for a newcomer

Move = Callable[[float], Request | None]


class Loop:
    def __init__(
        self, listening: socket.socket, answering: Callable[[Request], Answer], calls_at_once: int, tls: ssl.SSLContext | None
    ) -> None:
        """`answering` raises nothing."""
        self.changed = threading.Condition()
        """While it drains it is told here after each turn."""
        self.closed = False
        """Nobody new is accepted any more."""
        self._answering = answering
        self._tls = tls
        self._open: set[Connection] = set()
        self._rooms = Rooms()
        self._draining = self._takes_what_waits = False
        # More calls at a time only take memory and each other's cache; a look must not wait for them.
        self._most_calls = calls_at_once
        self._calls = ThreadPoolExecutor(calls_at_once, "rest-call")
        self._looks = ThreadPoolExecutor(MAX_CONNECTIONS, "rest-look")
        self._elsewhere = 0  # so many calls are in other threads
        self._done: deque[tuple[Connection, Request, bool, bool]] = deque()
        self._again: dict[Connection, None] = {}  # whose turn was over before they were done
        self._prompt: set[tuple[str, str]] = set()
        self._listening = listening
        self._accept_at = self._look_at = 0.0
        self._bell, self._ear = socket.socketpair()
        self._rung = False
        self._selector = selectors.DefaultSelector()
        for heard in (self._ear, listening):
            heard.setblocking(False)
            self._selector.register(heard, READ)
        # Who leads, and since when it is in a call.
        self._lead_lock = threading.Lock()
        self._term = 0
        self._in_call_since = 0.0
        self._watch_sleeps = False
        self._wake_watch = threading.Event()
        threading.Thread(target=self._lead, args=(0,), name="rest", daemon=True).start()
        threading.Thread(target=self._watch, name="rest-watch", daemon=True).start()

    # -- for other threads

    def connections(self) -> set[Connection]:
        return set(self._open)  # one step, which the loop cannot come in between

    @property
    def under_way(self) -> bool:
        return any(it.under_way for it in self.connections())

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self, *, take_what_waits: bool) -> None:
        """No connection is kept from now on, and nobody accepted, but for those who wait already, where they are to be taken."""
        self._draining, self._takes_what_waits = True, take_what_waits
        self._ring()

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            with suppress(OSError):
                self._bell.send(b"\0")

    # -- who leads

    def _lead(self, term: int) -> None:
        self._elsewhere += term > 0  # the call of whoever led before
        leads = True
        while leads:
            try:
                leads = self._round(term)
            except Exception:  # of one connection: the others are none the worse for it
                traceback.print_exc(file=sys.stderr)

    def _round(self, term: int) -> bool:
        """False: another thread leads from here on."""
        again = list(self._again)
        patience = 0 if again or self._done else _LOOK_SECONDS if self._open or self._accept_at else None
        ready = self._selector.select(patience)
        now = time.monotonic()
        for key, _ in ready:
            if key.data is not None:
                if not self._event(key.data, now, term):
                    return False
            elif key.fileobj is self._ear:
                self._hear()
            else:
                self._accept(now)
        if not (self._take_answers(now, term) and self._admit(now, term) and self._go_on(again, now, term)):
            return False
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._look(now, term)
        if self._draining:
            self._tell_drained()
        return True

    def _watch(self) -> None:
        quiet = 0
        while True:
            if quiet < _QUIET_LOOKS:
                time.sleep(_STUCK_SECONDS)
            else:
                self._watch_sleeps = True
                if not self._in_call_since:
                    self._wake_watch.wait()
                self._watch_sleeps = False
                self._wake_watch.clear()
            with self._lead_lock:
                since = self._in_call_since
                quiet = 0 if since else quiet + 1
                if since and time.monotonic() - since > _STUCK_SECONDS:
                    self._in_call_since = 0.0
                    self._term += 1
                    threading.Thread(target=self._lead, args=(self._term,), name="rest", daemon=True).start()

    # -- turns. False: another thread leads from here on.

    def _event(self, connection: Connection, now: float, term: int) -> bool:
        if connection.phase in (Phase.CALL, Phase.ROOM):  # what it has to say has time until then
            self._selector.unregister(connection.socket)
            connection.registered = 0
            return True
        if connection.more:  # it goes on after the others
            return True
        return self._turn(connection, connection.ready, now, term)

    def _take_answers(self, now: float, term: int) -> bool:
        for _ in range(len(self._done)):
            connection, request, prompt, well = self._done.popleft()
            self._elsewhere -= 1
            self._remember(request, prompt)
            if not well:
                connection.end()
            if not self._turn(connection, connection.answered if well else _nothing, now, term):
                return False
        return True

    def _admit(self, now: float, term: int) -> bool:
        while (connection := self._rooms.next()) is not None:
            if not self._turn(connection, connection.admitted, now, term):
                return False
        return True

    def _go_on(self, again: list[Connection], now: float, term: int) -> bool:
        for connection in again:
            del self._again[connection]
            if not self._turn(connection, connection.go_on, now, term):
                return False
        return True

    def _turn(self, connection: Connection, move: Move, now: float, term: int) -> bool:
        calls = 0
        try:
            request = move(now)
            while request is not None:
                if not self._is_prompt(request):
                    self._elsewhere += 1
                    (self._looks if request.method == "GET" else self._calls).submit(self._answer_elsewhere, connection, request)
                    break
                if not self._answer_here(connection, request, term):
                    return False
                calls += 1
                if calls == _CALLS_A_TURN:
                    connection.more = connection.finished(now)
                    break
                request = connection.answered(now)
        except OSError:
            connection.end()  # the client has gone, or never spoke TLS
        except Exception:
            traceback.print_exc(file=sys.stderr)
            connection.end()
        if connection.more:
            self._again[connection] = None
        self._mind(connection)
        return True

    def _is_prompt(self, request: Request) -> bool:
        if (request.method, request.target) not in self._prompt:
            return False
        return request.method == "GET" or (
            len(request.body) <= _SMALL and self._elsewhere < self._most_calls and "content-encoding" not in request.headers
        )

    def _remember(self, request: Request, prompt: bool) -> None:
        what = request.method, request.target
        if not prompt:
            self._prompt.discard(what)
        elif what not in self._prompt and len(request.target) <= _LONGEST_PROMPT:
            if len(self._prompt) >= _MOST_PROMPT:
                self._prompt.clear()
            self._prompt.add(what)

    def _answer_here(self, connection: Connection, request: Request, term: int) -> bool:
        self._in_call_since = time.monotonic()
        if self._watch_sleeps:
            self._wake_watch.set()
        answer = self._answering(request)
        with self._lead_lock:
            leads = self._term == term
            if leads:
                self._in_call_since = 0.0
        if leads:
            self._remember(request, answer.prompt)
            connection.put(answer, last=self._draining)
        else:
            self._hand_over(connection, request, answer, prompt=False)
        return leads

    def _answer_elsewhere(self, connection: Connection, request: Request) -> None:
        answer = self._answering(request)
        self._hand_over(connection, request, answer, prompt=answer.prompt)

    def _hand_over(self, connection: Connection, request: Request, answer: Answer, *, prompt: bool) -> None:
        """Whoever answered sends as well: the client need not wait until the loop hears of it."""
        well = False
        try:
            connection.put(answer, last=self._draining)
            well = True
        except OSError:
            pass  # the client has gone
        except Exception:
            traceback.print_exc(file=sys.stderr)
        finally:
            self._done.append((connection, request, prompt, well))
            self._ring()

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            self._ear.recv(64)
        self._rung = False

    # -- connections

    def _accept(self, now: float) -> None:
        for _ in range(_ACCEPTED_AT_A_TIME):
            try:
                accepted, _address = self._listening.accept()
            except BlockingIOError:
                return
            except OSError:
                self._selector.unregister(self._listening)
                self._accept_at = now + _ACCEPT_AGAIN_SECONDS
                return
            self._welcome(accepted, now)

    def _welcome(self, accepted: socket.socket, now: float) -> None:
        if len(self._open) >= MAX_CONNECTIONS and not self._make_place(now):
            full = json_answer(503, {"error": f"{MAX_CONNECTIONS} connections are open, which is all this server takes"})
            with accepted, suppress(OSError):
                accepted.setblocking(False)
                accepted.send(to_bytes(full, close=True))
            return
        try:
            connection = Connection(accepted, self._tls, self._rooms, now)
        except OSError:
            accepted.close()
            return
        self._open.add(connection)
        self._mind(connection)

    def _make_place(self, now: float) -> bool:
        """Closes the connection that has been idle longest; clients know that a kept one may go."""
        idle = sorted((it for it in self._open if it.idles and it.spoke + _IDLE_ENOUGH_SECONDS <= now), key=lambda it: it.spoke)
        for connection in idle:
            if not has_spoken(connection.socket):
                connection.end()
                self._mind(connection)
                return True
        return False

    def _mind(self, connection: Connection) -> None:
        """The selector looks for what the connection waits for."""
        over = connection.phase is Phase.OVER
        wanted, registered = 0 if over else connection.wanted, connection.registered
        if wanted != registered:
            if not registered:
                self._selector.register(connection.socket, wanted, connection)
            elif not wanted:
                self._selector.unregister(connection.socket)
            else:
                self._selector.modify(connection.socket, wanted, connection)
            connection.registered = wanted
        if over:
            self._open.discard(connection)
            with suppress(OSError):
                connection.socket.close()

    def _look(self, now: float, term: int) -> None:
        for connection in self.connections():
            if connection.until <= now or connection.phase is Phase.ROOM:
                self._turn(connection, connection.looked_at, now, term)
        if self._accept_at and not self.closed and now >= self._accept_at:
            self._accept_at = 0.0
            self._selector.register(self._listening, READ)

    def _tell_drained(self) -> None:
        """Who is connected and not yet accepted would be cut off by the close. Whoever connects between the last look and the close is cut
        off still; a socket that is inherited knows no such moment."""
        if not self.closed:
            if self._takes_what_waits and not self._accept_at:
                self._accept(time.monotonic())
            if not self._accept_at:
                self._selector.unregister(self._listening)
            self._accept_at = 0.0
            self._listening.close()
            self.closed = True
        with self.changed:
            self.changed.notify_all()


def _nothing(_: float) -> None:
    return None
