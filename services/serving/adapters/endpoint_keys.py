"""Keys and tokens of endpoints: made from one secret and the endpoint's history, so that no event and no database holds one. Servers get
a file with what they need to check them: digests of the keys, and what a token of theirs is signed with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from services.serving.access import KEY, NONE, TOKEN, signed
from services.serving.adapters.whole_file import beside, replace_whole
from services.serving.domain.endpoint import Endpoint
from trainyard.endpoint.v1.endpoint_pb2 import AUTHENTICATION_KEY, AUTHENTICATION_TOKEN

_SECRET_BYTES = 32
_KINDS = {AUTHENTICATION_KEY: KEY, AUTHENTICATION_TOKEN: TOKEN}
TOKEN_LASTS = timedelta(hours=12)
REFRESH_AFTER = timedelta(hours=11)


def key_file(home: Path, endpoint: str) -> Path:
    """What that endpoint's servers read."""
    return home / "keys" / f"{endpoint}.json"


class EndpointKeys:
    def __init__(self, home: Path, secret: str = "") -> None:
        """`secret` empty: one of this home's own."""
        self._home = home
        self._secret = secret.encode() or _own_secret(home / "secrets" / "endpoints")
        self._kept: dict[str, str] = {}

    def keys(self, endpoint: Endpoint) -> tuple[str, str]:
        """Primary and secondary."""
        primary, secondary = endpoint.keys_made
        return self._made(endpoint, f"primary {primary}"), self._made(endpoint, f"secondary {secondary}")

    def token(self, endpoint: Endpoint, now: datetime) -> tuple[str, datetime]:
        """And when it ends."""
        ends = (now + TOKEN_LASTS).replace(microsecond=0)
        return signed(self._made(endpoint, "token"), int(ends.timestamp())), ends

    def keep(self, endpoint: Endpoint) -> None:
        """Writes the file where it would change. Replaced whole: a server reads the old or the new one."""
        kind = _KINDS.get(endpoint.settings.authentication, NONE)
        digests = [hashlib.sha256(key.encode()).hexdigest() for key in self.keys(endpoint)]
        told = {"kind": kind, "digests": digests if kind == KEY else [], "signs": self._made(endpoint, "token") if kind == TOKEN else ""}
        text, path = json.dumps(told), key_file(self._home, endpoint.name)
        if self._kept.get(endpoint.name) == text and path.exists():
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_whole(path, text)
        self._kept[endpoint.name] = text

    def _made(self, endpoint: Endpoint, what: str) -> str:
        """An endpoint that takes a name anew has other keys than the one before it."""
        digest = hmac.digest(self._secret, f"{endpoint.name} {endpoint.born} {what}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _own_secret(path: Path) -> bytes:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # Whole or not at all, and the first counts.
        with beside(path, secrets.token_hex(_SECRET_BYTES)) as made, suppress(FileExistsError):
            os.link(made, path)
    found = path.read_text().strip().encode()
    if len(found) < _SECRET_BYTES:
        raise RuntimeError(f"{path} holds no secret: put the old one back, or remove it, and all keys of endpoints are made anew")
    return found
