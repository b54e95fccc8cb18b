"""REST beside gRPC. Connections, calls and bodies have limits. What a path means is a route's affair."""

from __future__ import annotations

import socket
import ssl
import sys
import time
import traceback
from collections.abc import Callable, Mapping

from services.serving.listening import listen
from services.serving.model_server.config_files import Tls
from services.serving.model_server.errors import ServeError
from services.serving.model_server.http_messages import Answer, Request, decoded, error_answer, json_answer
from services.serving.model_server.rest_loop import Loop

_LAST_WORDS_SECONDS = 1.0  # a drain waits so long for the next request of who is new or spoke so lately, and closes with its answer

Route = Callable[[Request], Answer]
"""Takes a request whose body is there and decoded. May raise ServeError, which is answered as TensorFlow Serving does."""


class RestServer:
    def __init__(
        self,
        routes: Mapping[str, Route],
        host: str,
        port: int,
        *,
        share: bool = False,
        listening: int | None = None,
        calls_at_once: int = 8,
        tls: Tls | None = None,
    ) -> None:
        """`routes`: by the first word of the path, "" for all others. `listening`: the descriptor of a socket that listens already, which
        other servers may take from as well. Raises OSError if the port is taken, or the descriptor is no such socket."""
        self._routes = routes
        self._inherited = listening is not None
        context = _context(tls) if tls else None
        taken = socket.socket(fileno=listening) if listening is not None else listen(host, port, share=share)
        self.server_port: int = taken.getsockname()[1]
        self._loop = Loop(taken, self.answer, calls_at_once, context)

    @property
    def draining(self) -> bool:
        return self._loop.draining

    def drain(self, seconds: float) -> None:
        """Takes no new connections, answers what is under way, waits for it no longer than that.

        Who is in the middle of a row of requests is told with the next answer that it is the last one here: a connection that was closed
        between two of them might be closed on the second's way.
        """
        loop = self._loop
        loop.drain(take_what_waits=not self._inherited)
        with loop.changed:
            loop.changed.wait_for(lambda: loop.closed, seconds)
            since = time.monotonic() - _LAST_WORDS_SECONDS
            lively = {it for it in loop.connections() if it.spoke > since}
            loop.changed.wait_for(lambda: not (loop.under_way or lively & loop.connections()), min(seconds, _LAST_WORDS_SECONDS))
            loop.changed.wait_for(lambda: not loop.under_way, seconds)

    def answer(self, request: Request) -> Answer:
        try:
            word = request.target[1:].partition("?")[0].partition("/")[0].lower()
            route = self._routes.get(word) or self._routes[""]
            if "content-encoding" in request.headers:
                request = Request(request.method, request.target, request.headers, decoded(request.body, request.headers))
            return route(request)
        except ServeError as error:
            return error_answer(error)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            return json_answer(500, {"error": f"{type(error).__name__}: {error}"[:1024]})


def _context(tls: Tls) -> ssl.SSLContext:
    """Python reads keys from files only; these are gone when it has."""
    import tempfile

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(tls.certificate + b"\n" + tls.key)
        file.flush()
        context.load_cert_chain(file.name)
    if tls.client_ca:
        context.load_verify_locations(cadata=tls.client_ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED if tls.client_must else ssl.CERT_OPTIONAL
    return context
