"""HTTP heads and bodies, as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.model_server.errors import ServeError
from services.serving.model_server.http_messages import Answer, BadRequest, Headers, body_length, decoded, parse_head, to_bytes


def test_a_head_is_a_method_a_target_and_headers_in_whatever_case() -> None:
    request, keep = parse_head(b"POST /v1/models/a:predict?x=1 HTTP/1.1\r\nContent-Length: 3\r\nX-Many: a\r\nx-many: b")

    assert (request.method, request.target, request.path, keep) == ("POST", "/v1/models/a:predict?x=1", "/v1/models/a:predict", True)
    assert (request.headers.get("CONTENT-length"), request.headers.get("X-Many"), request.headers.get("y")) == ("3", "a, b", None)
    assert body_length(request.headers) == 3


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.1\r\nConnection: Close", False),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", True),
    ],
)
def test_a_connection_is_kept_as_the_client_wants(head: bytes, keep: bool) -> None:
    assert parse_head(head)[1] is keep


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /", 400),
        (b"GET / / HTTP/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"BREW / HTTP/1.1", 501),
        (b"GET / HTTP/1.1\r\nno colon", 400),
        (b"GET / HTTP/1.1\r\n: no name", 400),
        (b"GET / HTTP/1.1\r\nbad name: x", 400),
        (b"GET / HTTP/1.1\r\n folded: x", 400),
        (b"GET / HTTP/1.1" + b"\r\na: b" * 101, 431),
    ],
)
def test_what_is_no_head_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_head(head)

    assert caught.value.status == status


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda it: b"POST / HTTP/1.1\r\n" + it))
def test_no_bytes_make_it_raise_anything_but_a_refusal(head: bytes) -> None:
    try:
        request, _ = parse_head(head)
        body_length(request.headers)
    except BadRequest as error:
        assert error.status in (400, 431, 501, 505)
    except ServeError as error:
        assert error.http_status in (400, 413, 501)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "identity", "", "GZIP"]))
def test_no_body_makes_it_raise_anything_but_a_refusal(body: bytes, encoding: str) -> None:
    try:
        decoded(body, Headers({"content-encoding": encoding}))
    except ServeError as error:
        assert error.http_status in (400, 413, 501)


def test_an_answer_says_what_it_is_and_how_long() -> None:
    head, _, body = to_bytes(Answer(200, b"{}", {"X-Own": "1"}), close=True).partition(b"\r\n\r\n")
    plain = to_bytes(Answer(200, b"x", {"Content-Type": "text/plain"}), close=False)

    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {b"Content-Type: application/json", b"Content-Length: 2", b"X-Own: 1", b"Connection: close"} <= set(lines)
    assert body == b"{}"
    assert plain.count(b"Content-Type") == 1
    assert b"Connection" not in plain


@pytest.mark.parametrize("value", [b"a\nb", b"Bearer KEY\n", b"a\x00b", b"\x7f"])
def test_a_header_that_others_may_take_for_two_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="'x-a' has a control character"):
        parse_head(b"GET / HTTP/1.1\r\nX-A: " + value)
