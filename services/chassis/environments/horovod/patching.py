"""Unified diffs, applied to a source tree whose bytes are known: what does not fit to the letter is an error, never a guess."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from trainyard._paths import below

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@.*")


class DoesNotFit(Exception):
    """The tree is not the one that the patch was made for."""


def apply(patch: str, root: Path) -> None:
    """Changes files below `root`; one that the patch makes anew must not be there. Raises DoesNotFit."""
    for name, hunks in _files(patch.splitlines(keepends=True)):
        path = below(root, name)
        before = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_changed(name, before, hunks)), "utf-8")


def _files(lines: list[str]) -> Iterator[tuple[str, list[tuple[int, list[str]]]]]:
    """(path, hunks); a hunk is where it begins, counted from 0, and its lines with their marks."""
    name, hunks = "", list[tuple[int, list[str]]]()
    for line in lines:
        if line.startswith("--- "):
            if name:
                yield name, hunks
            name, hunks = "", []
        elif line.startswith("+++ ") and not name:
            name = line[4:].split("\t")[0].strip().removeprefix("b/")
        elif matched := _HUNK.match(line):
            # A hunk without old lines is counted from the line before it.
            hunks.append((int(matched[1]) - (matched[2] != "0"), []))
        elif hunks and line[:1] in " +-":
            hunks[-1][1].append(line)
    if name:
        yield name, hunks


def _changed(name: str, before: list[str], hunks: list[tuple[int, list[str]]]) -> Iterator[str]:
    at = 0
    for start, lines in hunks:
        yield from before[at:start]
        at = start
        for line in lines:
            mark, text = line[0], line[1:]
            if mark == "+":
                yield text
                continue
            if at >= len(before) or before[at] != text:
                raise DoesNotFit(f"{name}, line {at + 1}: {text.rstrip()!r} was expected.")
            at += 1
            if mark == " ":
                yield text
    yield from before[at:]
