"""Scoring scripts that see the HTTP call itself, as Azure's users have them; and what the scoring server hands to the request log."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from services.serving.adapters.server_environment import SDK
from services.serving.sampling import spool
from services.serving.sampling.call import SCRIPT
from services.serving.sampling.sampler import ABOUT
from tests.component.serving.spools import samples
from tests.component.serving.test_scoring_server import ECHO, Running, running, write

pytestmark = [pytest.mark.component, pytest.mark.timeout(60)]
RAW = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse
def init(): pass
@rawhttp
def run(request):
    if request.method == 'GET':
        return AMLResponse(request.full_path.encode(), 200)
    if request.method == 'OPTIONS':
        return AMLResponse('', 204, {'Access-Control-Allow-Origin': '*'})
    if request.files:
        image = request.files['image']
        told = {'name': image.filename, 'size': len(image.read()), 'kind': image.content_type, 'tag': request.form['tag']}
        return AMLResponse(told, 201, json_str=True)
    if request.is_json:
        return {'asked': request.get_json(), 'agent': request.headers['user-agent']}
    answer = AMLResponse(request.get_data(False), 200, {'content-type': 'image/jpeg'})
    answer.headers['X-Split'] = request.args.get('split', 'none') + chr(13) + 'X-Bad: 1' * ('bad' in request.args)
    if 'bad' not in request.args:
        answer.headers['X-Split'] = 'whole'
    return answer
"""
THEN = f"--then-path={os.pathsep.join(map(str, SDK))}"


def raw(folder: Path) -> tuple[Path, str]:
    return write(folder, RAW), THEN


def wants(folder: Path, rate: float) -> str:
    folder.mkdir(exist_ok=True)
    (folder / ABOUT).write_text(json.dumps({"rate": rate}))
    return f"--samples={folder}"


def drained(server: Running) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0


def test_a_get_asks_with_its_query_as_json(tmp_path: Path) -> None:
    with running(write(tmp_path, ECHO)) as server:
        got = httpx.get(f"{server.url}?a=1&b=[1,2]&c=text&d=null&e=1&e=x")

    assert json.loads(got.json()["given"]) == {"a": 1, "b": [1, 2], "c": "text", "d": None, "e": [1, "x"]}


def test_a_raw_script_gets_the_call_and_answers_with_status_headers_and_bytes(tmp_path: Path) -> None:
    with running(*raw(tmp_path)) as server:
        got = httpx.get(f"{server.url}?a=1&b=x")
        options = httpx.options(server.url)
        as_json = httpx.post(server.url, json={"x": 1}, headers={"user-agent": "tests"})
        as_bytes = httpx.post(server.url, content=b"\xff\x00", headers={"content-type": "image/png"})
        form = httpx.post(server.url, files={"image": ("cat.jpg", b"\r\n--\xff" * 9, "image/jpeg")}, data={"tag": "pet"})

    assert (got.status_code, got.text) == (200, "/score?a=1&b=x")
    assert (options.status_code, options.headers["access-control-allow-origin"]) == (204, "*")
    assert as_json.json() == {"asked": {"x": 1}, "agent": "tests"}
    assert (as_bytes.content, as_bytes.headers["content-type"], as_bytes.headers["x-split"]) == (b"\xff\x00", "image/jpeg", "whole")
    assert (form.status_code, form.json()) == (201, {"name": "cat.jpg", "size": 45, "kind": "image/jpeg", "tag": "pet"})


def test_an_answer_that_would_break_the_connection_is_the_scripts_fault_and_the_connection_goes_on(tmp_path: Path) -> None:
    with running(*raw(tmp_path)) as server, httpx.Client() as client:
        bad = client.post(f"{server.url}?bad", content=b"x")
        good = client.post(server.url, content=b"x")

    assert (bad.status_code, "is no header" in bad.json()["error"]) == (500, True)
    assert good.content == b"x"


def test_a_form_that_is_cut_short_is_told_and_harms_nobody(tmp_path: Path) -> None:
    head = {"content-type": "multipart/form-data; boundary=b"}
    with running(*raw(tmp_path)) as server:
        for body in (b"", b"--b\r\n", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", b"--b\r\n\r\n" * 2000):
            assert httpx.post(server.url, content=body, headers=head).status_code == 502
        assert httpx.get(server.url).status_code == 200


def test_the_body_of_a_get_is_read_and_never_taken_for_the_next_request(tmp_path: Path) -> None:
    with running(*raw(tmp_path)) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        smuggled = b"GET /healthz HTTP/1.1\r\n\r\n"
        head = b"GET /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(smuggled)
        connection.sendall(head + smuggled)
        got = b"".join(iter(lambda: connection.recv(65536), b""))

    assert got.count(b"HTTP/1.1") == 1
    assert got.endswith(b"/score?")


# -- the request log


def test_calls_are_sampled_with_their_answers_and_without_keys(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with running(write(tmp_path, ECHO), wants(folder, 1)) as server:
        httpx.post(f"{server.url}?key=secret", content="asked", headers={"authorization": "Bearer secret", "content-type": "text/plain"})
        httpx.get(f"{server.url}?a=1")
        httpx.post(server.url, content="fail")
        httpx.post(server.url, content=b"\xff")
        drained(server)

    first, second, third = samples(folder)
    assert (first.protocol, first.method, first.path, first.status, first.request.content_type) == (
        SCRIPT,
        "POST",
        "/score",
        200,
        "text/plain",
    )
    assert (first.request.content, json.loads(first.response.content)["given"]) == (b"asked", "asked")
    assert (second.method, second.path) == ("GET", "/score?a=1")
    assert (third.status, b"ValueError" in third.response.content) == (502, True)
    assert "secret" not in repr(first)


def test_while_nobody_takes_samples_calls_go_on_and_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    """As while Kafka is away: 16 MiB are kept, the rest is not."""
    folder = tmp_path / "spool"
    body = "x" * (64 << 10)
    with running(write(tmp_path, ECHO), wants(folder, 1)) as server, httpx.Client() as client:
        statuses = {client.post(server.url, content=body).status_code for _ in range(200)}
        metrics = client.get(server.url.replace("/score", "/metrics")).text
        drained(server)

    kept = sum(path.stat().st_size for path in spool.closed(folder))
    dropped = re.search(r'samples_total\{outcome="dropped"\} (\d+)', metrics)
    assert statuses == {200}
    assert kept <= spool.MOST_BYTES
    assert dropped is not None
    assert int(dropped[1]) > 0


def test_nothing_is_sampled_at_rate_0_and_the_rate_changes_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with running(write(tmp_path, ECHO), wants(folder, 0)) as server, httpx.Client() as client:
        for _ in range(20):
            client.post(server.url, content="before")
        wants(folder, 1)
        while 'outcome="kept"} 0' in client.get(server.url.replace("/score", "/metrics")).text:
            client.post(server.url, content="after")
        drained(server)

    assert {it.request.content for it in samples(folder)} == {b"after"}
