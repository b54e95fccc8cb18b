"""Globs in time that grows with pattern times path, whatever either holds: users write both, and services match them. Standard library only.

A regular expression tries one star after the other, and a dozen stars keep it busy for ever. Here a star within a folder takes the first
place where what follows it fits, which is always right, and patterns with several stars across folders go through a machine that is in
all of its states at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum


class Wild(Enum):
    STAR = r"[^/]*"
    """Any characters within a folder."""
    ANY = r".*"
    FOLDERS = r"(?:.*/)?"
    """Any number of whole folders."""


Part = str | Wild
"""A wildcard, or the regular expression of a single character."""

_FLAGS = re.DOTALL | re.ASCII


def matcher(parts: Sequence[Part]) -> Callable[[str], bool]:
    """Whether a whole text matches."""
    simple = _without_repeats(parts)
    across = [at for at, part in enumerate(simple) if part in (Wild.ANY, Wild.FOLDERS)]
    if len(across) - (simple[-1:] == [Wild.ANY]) > 1:
        return _Machine(simple)
    compiled = re.compile(_regex(simple), _FLAGS)
    return lambda text: compiled.fullmatch(text) is not None


def _without_repeats(parts: Sequence[Part]) -> list[Part]:
    """Wildcards side by side that mean no more than one of them."""
    made: list[Part] = []
    for part in parts:
        last = made[-1] if made else None
        if isinstance(part, Wild) and isinstance(last, Wild):
            if part is last:
                continue
            if Wild.ANY in (part, last):
                made[-1] = Wild.ANY
                continue
        made.append(part)
    return made


def _regex(parts: Sequence[Part]) -> str:
    made, is_open = "", False
    for part in parts:
        if isinstance(part, Wild):
            made += ")" if is_open else ""
            is_open = part is Wild.STAR
            made += r"(?>[^/]*?" if is_open else part.value
        else:
            made += part
    return made + (r"\Z)" if is_open else "")


class _Machine:
    """Bit n of a state: what comes next is element n."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._ones: list[tuple[int, re.Pattern[str]]] = []
        self._stars = self._anys = self._skips = self._entries = 0
        at = 0
        for part in parts:
            if part is Wild.STAR:
                self._stars |= 1 << at
            elif part is Wild.ANY:
                self._anys |= 1 << at
            elif part is Wild.FOLDERS:
                # An entry, that leads into the folders or past them; anything; a slash.
                self._entries |= 1 << at
                self._anys |= 1 << at + 1
                self._ones.append((at + 2, re.compile("/")))
                at += 2
            else:
                assert isinstance(part, str)
                self._ones.append((at, re.compile(part, _FLAGS)))
            at += 1
        self._end = at
        self._skips = self._stars | self._anys | self._entries
        self._taken: dict[str, tuple[int, int]] = {}

    def __call__(self, text: str) -> bool:
        state = self._onward(1)
        for char in text:
            ones, loops = self._taken.get(char) or self._learn(char)
            state = self._onward((state & ones) << 1 | state & loops)
            if not state:
                return False
        return bool(state >> self._end & 1)

    def _onward(self, state: int) -> int:
        """With all that is reached without a character."""
        while True:
            more = state | (state & self._skips) << 1 | (state & self._entries) << 3
            if more == state:
                return state
            state = more

    def _learn(self, char: str) -> tuple[int, int]:
        ones = 0
        for at, pattern in self._ones:
            if pattern.fullmatch(char):
                ones |= 1 << at
        known = self._taken[char] = ones, self._anys | (0 if char == "/" else self._stars)
        return known
