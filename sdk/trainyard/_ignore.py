"""Rules of .gitignore and .amlignore, read as git reads them (tests/component/sdk/test_ignore_rules.py compares). Standard library only."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trainyard._glob import Part, Wild, matcher

_POSIX = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"!-~",
    b"lower": rb"a-z",
    b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb"\s",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}


@dataclass(frozen=True)
class _Rule:
    takes_back: bool
    folders_only: bool
    by_name: bool
    """It has no slash, so that it looks at the last part of a path alone."""
    matches: Callable[[str], bool]
    """Of a text that has one character a byte."""


class IgnoreRules:
    """The last rule that matches a path counts. As in git, names are compared byte by byte, and what lies in an ignored folder is ignored."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for line in lines if (rule := _rule(os.fsencode(line))) is not None]
        self._rules.reverse()

    def names(self, path: str, *, is_folder: bool) -> bool:
        """Whether the rules name this very path; its parents are the caller's affair."""
        whole = os.fsencode(path).decode("latin-1")
        last = whole[whole.rfind("/") + 1 :]
        for rule in self._rules:
            if (is_folder or not rule.folders_only) and rule.matches(last if rule.by_name else whole):
                return not rule.takes_back
        return False

    def ignores(self, path: str) -> bool:
        """A file: whether the rules name it or a folder above it."""
        folders = (path[:at] for at, char in enumerate(path) if char == "/")
        return any(self.names(folder, is_folder=True) for folder in folders) or self.names(path, is_folder=False)


def _rule(line: bytes) -> _Rule | None:
    line = _without_end(line.removesuffix(b"\r"))
    if not line or line.startswith(b"#"):
        return None
    takes_back = line.startswith(b"!")
    pattern = line[1:] if takes_back else line
    folders_only = pattern.endswith(b"/")
    pattern = pattern[:-1] if folders_only else pattern
    by_name = b"/" not in pattern
    parts = _translated(pattern if by_name else pattern.removeprefix(b"/"), by_name=by_name)
    return None if parts is None or not pattern else _Rule(takes_back, folders_only, by_name, matcher(parts))


def _without_end(line: bytes) -> bytes:
    """Spaces at the end do not count, unless a backslash stands before them."""
    end = 0
    at = 0
    while at < len(line):
        if line[at : at + 1] == b"\\":
            at += 2
            end = min(at, len(line))
        else:
            at += 1
            end = at if line[at - 1 : at] != b" " else end
    return line[:end]


def _translated(pattern: bytes, *, by_name: bool) -> list[Part] | None:
    """What a whole text must be; None for a pattern that matches nothing."""
    made: list[Part] = []
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char == b"*":
            end = at + len(pattern[at:]) - len(pattern[at:].lstrip(b"*"))
            part, at = _stars(pattern, at, end, by_name=by_name)
            made.append(part)
        elif char == b"?":
            made.append("[^/]")
            at += 1
        elif char == b"[":
            found = _class(pattern, at + 1)
            if found is None:
                return None
            made.append(found[0].decode("latin-1"))
            at = found[1]
        else:
            at += char == b"\\"
            if at == len(pattern):
                return None
            made.append(re.escape(pattern[at : at + 1]).decode("latin-1"))
            at += 1
    return made


def _stars(pattern: bytes, begin: int, end: int, *, by_name: bool) -> tuple[Wild, int]:
    """Two stars that are a part of a path by themselves are any number of folders; others stay within one."""
    alone = (
        end - begin == 2 and (begin == 0 or pattern[begin - 1 : begin] == b"/") and (end == len(pattern) or pattern[end : end + 1] == b"/")
    )
    if by_name or not alone:
        return Wild.STAR, end
    return (Wild.ANY, end) if end == len(pattern) else (Wild.FOLDERS, end + 1)


def _class(pattern: bytes, begin: int) -> tuple[bytes, int] | None:
    """[...] as a class of a regular expression, and where the pattern goes on; None where it has no end."""
    at = begin
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += negated
    made = b""
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        if pattern[at : at + 2] == b"[:" and (end := pattern.find(b":]", at)) > 0:
            named = _POSIX.get(pattern[at + 2 : end])
            if named is None:
                return None
            made, at = made + named, end + 2
            continue
        low, at = _one(pattern, at)
        if low is None:
            return None
        if pattern[at : at + 1] == b"-" and pattern[at + 1 : at + 2] not in (b"]", b""):
            high, at = _one(pattern, at + 1)
            if high is None:
                return None
            # A range that runs backwards holds nothing.
            made += re.escape(low) + b"-" + re.escape(high) if low <= high else b""
        else:
            made += re.escape(low)
    inside = b"^" + made if negated else made
    if not made:
        return (b"[^/]" if negated else b"(?!)"), at + 1
    return b"(?!/)[" + inside + b"]", at + 1


def _one(pattern: bytes, at: int) -> tuple[bytes | None, int]:
    """The character there, a backslash read as an escape; None at the end."""
    if pattern[at : at + 1] == b"\\":
        at += 1
    char = pattern[at : at + 1]
    return (char or None), at + 1
