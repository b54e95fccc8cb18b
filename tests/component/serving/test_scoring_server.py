"""The scoring server as a process: it runs a script of the user's with Python's standard library alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.serving.access import signed

pytestmark = [pytest.mark.component, pytest.mark.timeout(60)]
REPO = Path(__file__).resolve().parents[3]
ECHO = """
import json, os
def init():
    global calls
    calls = 0
def run(raw_data):
    global calls
    calls += 1
    if raw_data == 'fail':
        raise ValueError('cannot\\nscore this')
    return {'given': raw_data, 'calls': calls}
"""


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/score"


def command(folder: Path, script: str, *options: str) -> list[str]:
    return [sys.executable, "-P", "-m", "services.serving.scoring_server", f"--entry-script={script}", "--rest-port=0", *options]


def write(folder: Path, script: str, name: str = "score.py") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(script)
    return folder


@contextmanager
def running(folder: Path, *options: str, script: str = "score.py", listening: int | None = None, **variables: str) -> Iterator[Running]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), **variables}
    words = [*command(folder, script, *options)]
    inherited = () if listening is None else (listening,)
    words += [f"--rest-fd={it}" for it in inherited]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder, pass_fds=inherited
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                if '"ready"' in line:
                    break
            else:
                raise AssertionError(process.stderr.read())
            yield Running(process, json.loads(line)["rest_port"])
        finally:
            process.kill()


def ends(folder: Path, script: str = "score.py") -> tuple[int, list[str]]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    done = subprocess.run(command(folder, script), capture_output=True, text=True, env=environment, cwd=folder)
    return done.returncode, done.stderr.splitlines()


def test_a_script_is_initialised_once_and_answers_text_with_json(tmp_path: Path) -> None:
    with running(write(tmp_path, ECHO)) as server:
        first = httpx.post(server.url, json={"data": [1, 2]})
        second = httpx.post(server.url, content=gzip.compress("ü".encode()), headers={"content-encoding": "gzip"})
        alive = httpx.get(server.url.replace("/score", "/healthz"))

    assert (first.status_code, first.json()) == (200, {"given": '{"data":[1,2]}', "calls": 1})
    assert second.json() == {"given": "ü", "calls": 2}
    assert (alive.status_code, first.headers["content-type"]) == (200, "application/json")


def test_an_exception_of_run_is_a_502_with_its_words_and_the_next_call_is_answered(tmp_path: Path) -> None:
    with running(write(tmp_path, ECHO)) as server, httpx.Client() as client:
        failed = client.post(server.url, content="fail")
        after = client.post(server.url, content="go on")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.stderr is not None
        written = server.process.stderr.read()

    assert failed.status_code == 502
    assert failed.json() == {"error": "run() of score.py raised ValueError: cannot score this"}
    assert failed.headers["x-ms-run-function-failed"] == "True"
    assert after.json()["calls"] == 2
    assert "raise ValueError" in written
    assert "services/serving" not in written


@pytest.mark.parametrize(
    ("result", "status", "answer"),
    [
        ("[1, 2.5, None]", 200, [1, 2.5, None]),
        ("json.dumps([1])", 200, "[1]"),
        ("type('Array', (), {'tolist': lambda self: [7]})()", 200, [7]),
        ("object()", 500, None),
        ("sys.exit(3)", 502, None),
    ],
)
def test_what_run_returns_is_written_as_json(tmp_path: Path, result: str, status: int, answer: object) -> None:
    with running(write(tmp_path, f"import json, sys\ndef init(): pass\ndef run(data): return {result}\n")) as server:
        got = httpx.post(server.url, content="")

    assert got.status_code == status
    assert status != 200 or got.json() == answer
    assert status == 200 or "run() of score.py" in got.json()["error"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("def init(): raise RuntimeError('no weights')\ndef run(d): pass\n", "score.py: init() raised RuntimeError: no weights"),
        ("import nothing_of_the_kind\n", "score.py: cannot be imported: ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("def run(d): pass\n", "score.py has no function init()"),
        ("def init(): pass\n", "score.py has no function run(raw_data)"),
        ("def init(:\n", "score.py: cannot be imported: SyntaxError"),
        ("import sys\ndef init(): sys.exit('over')\ndef run(d): pass\n", "score.py: init() raised SystemExit: over"),
    ],
)
def test_a_script_that_cannot_be_served_says_why_after_its_traceback(tmp_path: Path, script: str, words: str) -> None:
    code, lines = ends(write(tmp_path, script))

    assert code == 3
    assert lines[-1].startswith(words)
    assert not any("scoring_server" in line for line in lines)
    assert "has no" in words or lines[0].startswith(("Traceback", "  File"))


def test_a_script_finds_its_neighbours_and_may_have_a_package_of_our_name(tmp_path: Path) -> None:
    write(tmp_path, "ours = 'theirs'\n", "services/__init__.py")
    write(tmp_path, "beside = 1\n", "nested/beside.py")
    script = "import services, beside, sys\ndef init(): pass\ndef run(d): return [services.ours, beside.beside, sys.path]\n"
    write(tmp_path, script, "nested/score.py")

    with running(tmp_path, "--then-path=/behind", script="nested/score.py") as server:
        ours, beside, path = httpx.post(server.url, content="").json()

    assert (ours, beside) == ("theirs", 1)
    assert str(REPO) not in path
    assert path[:2] == [str(tmp_path / "nested"), str(tmp_path)]
    assert path[-1] == "/behind"


def test_only_who_has_a_key_is_answered_and_a_key_made_anew_counts_at_once(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"

    def let_in(*names: str, kind: str = "key", signs: str = "") -> None:
        digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
        beside = tmp_path / "keys.new"
        beside.write_text(json.dumps({"kind": kind, "digests": digests, "signs": signs}))
        beside.replace(keys)

    def status(server: Running, header: str | None) -> int:
        return httpx.post(server.url, content="x", headers={"authorization": header} if header else {}).status_code

    let_in("one", "two")
    with running(write(tmp_path, ECHO), f"--key-file={keys}") as server:
        given = [status(server, it) for it in (None, "Bearer one", "bearer  two", "Bearer three", "Basic one", "Bearer")]
        let_in("two")
        after = [status(server, it) for it in ("Bearer one", "Bearer two")]
        let_in(kind="token", signs="secret")
        tokens = [
            status(server, f"Bearer {it}") for it in (signed("secret", 2**40), signed("secret", 1), signed("other", 2**40), "1.x", "two")
        ]
        let_in(kind="none")
        everybody = status(server, None)
        keys.write_text("{")
        unreadable = status(server, "Bearer two")
        alive = httpx.get(server.url.replace("/score", "/healthz")).status_code

    assert given == [401, 200, 200, 401, 401, 401]
    assert after == [401, 200]
    assert tokens == [200, 401, 401, 401, 401]
    assert (everybody, unreadable, alive) == (200, 401, 200)


BAD = {
    "no such path": (b"POST /other HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
    "another method": (b"PUT /score HTTP/1.1\r\n\r\n", 501),
    "a GET in pieces": (b"GET /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    "no length": (b"POST /score HTTP/1.1\r\n\r\n", 400),
    "two lengths": (b"POST /score HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
    "a length below zero": (b"POST /score HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    "too long": (b"POST /score HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
    "chunked": (b"POST /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    "no text": (b"POST /score HTTP/1.1\r\nContent-Length: 1\r\n\r\n\xff", 400),
    "no gzip": (b"POST /score HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 400),
    "no HTTP": (b"\x00\x01\x02\r\n\r\n", 400),
}


def test_bad_input_is_answered_with_json_and_never_ends_the_server(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(65 << 20), 9)
    head = f"POST /score HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    cases = {**BAD, "a gzip bomb": (head.encode() + bomb, 413)}
    with running(write(tmp_path, ECHO)) as server:
        for name, (request, status) in cases.items():
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                connection.sendall(request)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))  # noqa: B023
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (name, answer)
            assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2]), name
        assert httpx.post(server.url, content="still there").json()["calls"] == 1


def test_so_many_large_bodies_at_a_time_and_small_ones_pass_them(tmp_path: Path) -> None:
    script = "seen = []\ndef init(): pass\ndef run(d): seen.append(d[:1]); return list(seen)\n"
    body = 2 << 20

    def begun(mark: bytes, sent: int) -> socket.socket:
        connection = open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        connection.sendall(f"POST /score HTTP/1.1\r\nContent-Length: {body}\r\nConnection: close\r\n\r\n".encode() + mark * sent)
        return connection

    def small_ones() -> list[str]:
        return [httpx.post(server.url, content="s").json() for _ in range(30)][-1]

    with running(write(tmp_path, script)) as server, ExitStack() as open_ones:
        halves = [begun(b"h", body // 2) for _ in range(8)]
        _until(lambda: "trainyard_serving_under_way 8" in httpx.get(server.url.replace("/score", "/metrics")).text)
        small_ones()
        ninth = begun(b"n", body)
        meanwhile = small_ones()
        for half in halves:
            half.sendall(b"h" * (body // 2))
        answers = [b"".join(iter(lambda it=it: it.recv(65536), b"")) for it in (*halves, ninth)]  # type: ignore[misc]

    assert set(meanwhile) == {"s"}
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


def test_a_successor_takes_over_the_port_and_no_call_is_dropped(tmp_path: Path) -> None:
    slow = "import time\ndef init(): pass\ndef run(d): time.sleep(0.01); return '{}'\n"
    old, new = write(tmp_path / "old", slow.format("old")), write(tmp_path / "new", slow.format("new"))
    answers: list[str] = []
    failures: list[str] = []
    over = threading.Event()

    def call(keep: bool) -> None:
        with httpx.Client() as client:
            while not over.is_set():
                try:
                    got = client.post(url, content="x", timeout=30, headers={} if keep else {"connection": "close"})
                    answers.append(got.json() if got.status_code == 200 else f"{got.status_code} {got.text}")
                except httpx.HTTPError as error:
                    failures.append(repr(error))

    with socket.create_server(("127.0.0.1", 0)) as listening, running(old, listening=listening.fileno()) as first:
        url = first.url
        callers = [threading.Thread(target=call, args=(keep,)) for keep in (True, True, False, False)]
        for caller in callers:
            caller.start()
        _until(lambda: answers.count("old") >= 50)
        with running(new, listening=listening.fileno()):
            first.process.send_signal(signal.SIGTERM)
            assert first.process.wait(30) == 0
            answered = len(answers)
            _until(lambda: len(answers) >= answered + 50)
            over.set()
            for caller in callers:
                caller.join()

    assert failures == []
    assert set(answers) == {"old", "new"}
    assert set(answers[-20:]) == {"new"}


def _until(condition: Callable[[], bool]) -> None:
    turn = threading.Event()
    while not condition():
        turn.wait(0.01)
