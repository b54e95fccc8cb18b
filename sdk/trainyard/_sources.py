"""A dataset's URLs, and where their files lie below a mounted folder. Standard library only: the SDK and the services share it."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from trainyard._errors import UserErrorException
from trainyard._paths import safe_relpath

_USERINFO = re.compile(r":[/\\]*[^/?#\\]*@")


def mounted_path(url: str) -> str:
    """ "<scheme>/<host and port>/<path>": the folder depth that scripts search with glob; a query is no part of it.

    Raises UserErrorException for what is no http(s) URL of one file: other schemes, credentials inside, spaces or control characters,
    no host, no file name, and paths that percent-decoding would lead elsewhere.
    """
    shown = _without_credentials(url)
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        # The error's own text may repeat credentials.
        what = f"The host or port of {shown[:300]!r} cannot be read."
        raise UserErrorException(what, target=shown[:1000], hint="check how the URL is written") from error
    if parts.scheme not in ("http", "https") or not has_host:
        what = f"A dataset is made of http(s) URLs; {shown[:300]!r} is none."
        raise UserErrorException(what, target=shown[:1000], hint="serve the file over http")
    if "@" in parts.netloc:
        what = f"A dataset's URL must not carry a password or a user's name, as {shown[:300]!r} does."
        raise UserErrorException(what, target=shown[:1000], hint="serve the file where it can be read without one")
    # urlsplit drops some of these silently, so the path would be another than the server is asked for.
    if any(char.isspace() or not char.isprintable() for char in url):
        what = f"The URL {shown[:300]!r} has a space or a control character."
        raise UserErrorException(what, target=shown[:1000], hint="percent-encode it, a space as %20")
    try:
        return safe_relpath(f"{parts.scheme}/{parts.netloc}/{unquote(parts.path).lstrip('/')}")
    except UserErrorException as error:
        what = f"The URL {shown[:300]!r} names no file that could be put on a node: {error.message}"
        raise UserErrorException(what, target=shown[:1000], hint="give the URL of one file, with plain names in its path") from error


def _without_credentials(url: str) -> str:
    """For messages: what stands before the host's @ is never repeated."""
    return _USERINFO.sub("://***@", url)
