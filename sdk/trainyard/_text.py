"""Text from elsewhere on its way to a terminal: nothing in it may move the cursor, set a title or hide what stands there. Standard library only."""

from __future__ import annotations

import re

# C0 and C1 controls, DEL, marks that turn the direction of text or are invisible, line separators, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


def plain(text: object) -> str:
    """One line; each unsafe character as its escape, e.g. \\x1b. Tabs stay."""
    return _UNSAFE.sub(_escaped, str(text))


def plain_lines(text: object) -> str:
    """As `plain`, but line ends stay."""
    return "\n".join(plain(line) for line in str(text).split("\n"))


def shown_line(text: str) -> str:
    """A line of a program's output as a terminal would leave it: colours gone, what a carriage return or backspaces overwrote gone, the rest plain."""
    bare = _COLOURS.sub("", text).rstrip("\r")
    bare = bare.rpartition("\r")[2]
    if "\x08" in bare:
        left: list[str] = []
        for char in bare:
            if char != "\x08":
                left.append(char)
            elif left:
                left.pop()
        bare = "".join(left)
    return plain(bare)


def json_safe(dumped: str) -> str:
    """JSON text whose unsafe characters are JSON escapes, so that printing it is harmless and reading it gives the same value."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", dumped)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found.group())
    return {10: "\\n", 13: "\\r"}.get(number) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")
