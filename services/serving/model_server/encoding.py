"""Content-Encoding of bodies over HTTP: gzip and deflate, in and out. A small body may inflate to any size: never beyond a limit."""

from __future__ import annotations

import zlib

from services.serving.model_server.errors import RESOURCE_EXHAUSTED, UNIMPLEMENTED, ServeError, invalid

# zlib's name for a format. What HTTP calls deflate is zlib's own, but some send it bare.
_GZIP, _ZLIB, _BARE = 31, 15, -15
_SMALL = 256  # below that a packed answer is hardly smaller
_LEVEL = 1


def inflate(data: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before `encoding`. Raises ServeError."""
    match encoding.strip().lower():
        case "" | "identity":
            return data
        case "gzip" | "x-gzip":
            return _inflate(data, _GZIP, "gzip", limit)
        case "deflate":
            return _inflate(data, _ZLIB if _is_zlib(data) else _BARE, "deflate", limit)
        case other:
            raise ServeError(UNIMPLEMENTED, f"Content-Encoding {other[:100]} is not served; send gzip, deflate or the body as it is")


def _is_zlib(data: bytes) -> bool:
    return len(data) > 1 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0


def _inflate(data: bytes, form: int, name: str, limit: int) -> bytes:
    stream = zlib.decompressobj(form)
    try:
        plain = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise invalid(f"the body is not {name}") from error
    if len(plain) > limit:
        raise ServeError(RESOURCE_EXHAUSTED, f"the inflated body exceeds {limit} bytes", http_status=413)
    if not stream.eof:
        raise invalid(f"the {name} body is cut short")
    return plain


def accepted(header: str) -> str:
    """The encoding to answer in, by Accept-Encoding: what the client likes best of what we have; "" for none."""
    best, liking = "", 0.0
    for item in header.lower().split(","):
        name, _, parameters = item.partition(";")
        if name.strip() in ("gzip", "deflate") and (weight := _weight(parameters)) > liking:
            best, liking = name.strip(), weight
    return best


def _weight(parameters: str) -> float:
    key, _, value = parameters.partition("=")
    if key.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def deflate(data: bytes, encoding: str) -> bytes | None:
    """`data` in an encoding that was accepted; None where it is too small to gain by it."""
    if not encoding or len(data) < _SMALL:
        return None
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if encoding == "gzip" else _ZLIB)
    return stream.compress(data) + stream.flush()
