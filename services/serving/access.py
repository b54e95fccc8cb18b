"""Who may call an endpoint, as its servers see it: a small file says what is asked for, and is read again when it changes. Standard
library only: it runs in whatever environment a model or a script is served in."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

NONE, KEY, TOKEN = "none", "key", "token"
_MISSING = "this endpoint asks for a {}: send it as 'Authorization: Bearer ...'"
_WRONG_KEY = "that is no key of this endpoint; keys that were made anew open nothing any more"
_WRONG_TOKEN = "that is no token of this endpoint, or it has ended; ask for a new one"


@dataclass(frozen=True)
class Rules:
    kind: str = NONE
    digests: tuple[str, ...] = ()  # SHA-256 of each key
    signs: str = field(default="", repr=False)  # what a token is signed with


class Access:
    """`refusal(header)` for each call. Without a file everybody may call; one that cannot be read lets nobody in."""

    def __init__(self, file: str | Path = "", clock: Callable[[], float] = time.time) -> None:
        self._file = Path(file) if file else None
        self._clock = clock
        self._seen: tuple[int, int] | None = None
        self._rules: Rules | None = Rules()

    def refusal(self, authorization: str | None) -> str:
        """Why a call with this header is turned away; "" for one that may come in."""
        rules = self._current()
        if rules is None:
            return "the keys of this endpoint cannot be read"
        if rules.kind == NONE:
            return ""
        scheme, _, given = (authorization or "").strip().partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            return _MISSING.format(rules.kind)
        if rules.kind == KEY:
            digest = hashlib.sha256(given.encode()).hexdigest()
            fits = [hmac.compare_digest(digest, known) for known in rules.digests]
            return "" if any(fits) else _WRONG_KEY
        return "" if is_signed(rules.signs, given, self._clock()) else _WRONG_TOKEN

    def _current(self) -> Rules | None:
        if self._file is None:
            return self._rules
        try:
            status = self._file.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                told = json.loads(self._file.read_text())
                self._rules, self._seen = Rules(str(told["kind"]), tuple(told["digests"]), str(told["signs"])), seen
        except (OSError, ValueError, KeyError, TypeError):
            self._rules = self._seen = None
        return self._rules


def signed(secret: str, ends: int) -> str:
    """A token that ends then, in seconds since 1970."""
    return f"{ends}.{hmac.new(secret.encode(), str(ends).encode(), 'sha256').hexdigest()}"


def is_signed(secret: str, token: str, now: float) -> bool:
    ends, _, _ = token.partition(".")
    if not (secret and ends.isascii() and ends.isdigit() and len(ends) < 16):
        return False
    return hmac.compare_digest(signed(secret, int(ends)).encode(), token.encode()) and now < int(ends)
