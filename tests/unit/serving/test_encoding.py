"""Bodies packed and unpacked, and bombs that never go off."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.model_server.encoding import accepted, deflate, inflate
from services.serving.model_server.errors import INVALID_ARGUMENT, UNIMPLEMENTED, ServeError

_LIMIT = 1 << 20


def bare(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare), (" GZIP", gzip.compress), ("", bytes)]
)
def test_what_was_packed_comes_out(encoding: str, pack: type) -> None:
    assert inflate(pack(b"a body" * 99), encoding, _LIMIT) == b"a body" * 99


@given(st.binary(max_size=2000), st.sampled_from(["gzip", "deflate"]))
def test_what_we_pack_comes_out(data: bytes, encoding: str) -> None:
    packed = deflate(data, encoding)

    assert (data if packed is None else inflate(packed, encoding, _LIMIT)) == data


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_bomb_is_refused_with_413(encoding: str, pack: type) -> None:
    bomb = pack(bytes(_LIMIT + 1))

    with pytest.raises(ServeError, match="exceeds 1048576 bytes") as caught:
        inflate(bomb, encoding, _LIMIT)

    assert len(bomb) < 2000
    assert caught.value.http_status == 413
    assert inflate(pack(bytes(_LIMIT)), encoding, _LIMIT) == bytes(_LIMIT)


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate"]))
def test_garbage_is_refused_or_is_a_body(data: bytes, encoding: str) -> None:
    try:
        inflate(data, encoding, _LIMIT)
    except ServeError as error:
        assert error.code == INVALID_ARGUMENT


def test_a_body_that_is_cut_short_is_refused() -> None:
    with pytest.raises(ServeError, match="the gzip body is cut short"):
        inflate(gzip.compress(b"a body" * 99)[:-9], "gzip", _LIMIT)


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(ServeError, match="Content-Encoding br is not served") as caught:
        inflate(b"", "br", _LIMIT)

    assert caught.value.code == UNIMPLEMENTED


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip"),
        ("gzip, deflate", "gzip"),
        ("deflate;q=0.9, gzip;q=0.1", "deflate"),
        ("gzip;q=0", ""),
        ("gzip;q=much", ""),
        ("br, zstd", ""),
    ],
)
def test_the_client_says_what_it_likes(header: str, encoding: str) -> None:
    assert accepted(header) == encoding


def test_a_small_body_stays_as_it_is() -> None:
    assert deflate(b"small", "gzip") is None
