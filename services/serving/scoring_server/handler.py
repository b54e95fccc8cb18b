"""The requests of one connection to a scoring script: what is asked for, and how it is answered."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from services.serving.sampling.call import SCRIPT, Body, Call
from services.serving.scoring_server import bodies
from services.serving.scoring_server.script import Answered, Asked, NotText, RunFailed

if TYPE_CHECKING:
    from services.serving.scoring_server.front import ScoringServer

JSON = "application/json"
_FAILED = {"x-ms-run-function-failed": "True"}
_NONE: Mapping[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # a connection that says nothing for so many seconds is closed
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: ScoringServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/score":
            self._call()
        elif path in ("/", "/healthz", "/readyz"):
            self._send(200, json.dumps({"status": "ok" if path != "/readyz" else "ready"}).encode())
        elif path == "/metrics":
            # The one figure that the model server tells under this name too: by it the platform sees whether anybody calls.
            text = "".join(
                f':tensorflow:serving:request_count{{status="{status}"}} {count}\n'
                for status, count in sorted(self.server.answered.items())
            )
            # A call counts when it is answered, which may take long.
            text += f"trainyard_serving_under_way {self.server.under_way}\n{self.server.sampler.metrics()}"
            self._send(200, text.encode(), {"Content-Type": "text/plain; version=0.0.4"})
        else:
            self.close_connection = True
            self._refuse(*self._nowhere(path))

    def do_POST(self) -> None:
        self._call()

    def do_OPTIONS(self) -> None:
        self._call()

    def _call(self) -> None:
        self.server.begin()
        status = 500
        try:
            answered = self._score()
            status = answered.status
            self._send(status, answered.body, answered.headers)
        except bodies.Refused as error:
            self.close_connection = True  # what was not read would be taken for the next request
            status = error.status
            self._refuse(status, str(error))
        finally:
            self.server.end(status)

    def _score(self) -> Answered:
        path = self.path.partition("?")[0]
        if path != "/score":
            raise bodies.Refused(*self._nowhere(path))
        if why := self.server.access.refusal(self.headers.get("Authorization")):
            raise bodies.Refused(401, why)
        length, encoding = bodies.announced(self.command, self.headers)
        with ExitStack() as held:
            try:
                body = bodies.read(self.connection, self.rfile, length, encoding, self.server.rooms, held)
            finally:
                self.connection.settimeout(self.timeout)
            asked = Asked(self.command, self.path, dict(self.headers.items()), body)
            at, begin = time.time_ns(), time.perf_counter_ns()
            answered = self._answer(asked)
            sampler = self.server.sampler
            if sampler.rate and sampler.chosen():
                sampler.take(_sampled(asked, answered, at, time.perf_counter_ns() - begin))
            return answered

    def _answer(self, asked: Asked) -> Answered:
        """Raises Refused."""
        try:
            return self.server.script.run(asked)
        except NotText as error:
            raise bodies.Refused(400, str(error)) from error
        except RunFailed as error:
            return Answered(500 if error.is_the_answers_fault else 502, _told(str(error)), _FAILED)

    def _nowhere(self, path: str) -> tuple[int, str]:
        return 404, f"There is no {path}; the scoring script answers under /score"

    def _refuse(self, status: int, why: str) -> None:
        self._send(status, _told(why))

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = _NONE) -> None:
        if self.server.draining:
            self.close_connection = True
        self.send_response(status)
        if not any(name.lower() == "content-type" for name in headers):
            self.send_header("Content-Type", JSON)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body if status not in (204, 304) else b"")
        self.wfile.flush()

    def handle_expect_100(self) -> bool:
        """Told at once: the client holds its body back until it hears this."""
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The base class calls this for what it cannot parse; its answer would be HTML."""
        self.close_connection = True
        self.request_version = self.protocol_version  # not known yet, and the oldest would get no head
        self._refuse(code, message or explain or f"HTTP {code}")

    def version_string(self) -> str:
        return "trainyard"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """A line a request would fill the log."""


def _sampled(asked: Asked, answered: Answered, at_ns: int, latency_ns: int) -> Call:
    """The query is what a GET asks; of other calls it may be anything, a key among it."""
    path = asked.target if asked.method == "GET" else asked.target.partition("?")[0]
    kinds = [
        next((value for name, value in headers.items() if name.lower() == "content-type"), "")
        for headers in (asked.headers, answered.headers)
    ]
    request, response = Body(asked.body, kinds[0]), Body(answered.body, kinds[1] or JSON)
    return Call(SCRIPT, asked.method, path, answered.status, at_ns, latency_ns, request, response)


def _told(why: str) -> bytes:
    return json.dumps({"error": why}).encode()
