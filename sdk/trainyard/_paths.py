"""Paths and digests. Standard library only."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

from trainyard._errors import UserErrorException

_BLOCK = 1 << 20
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z")
"""What a run may be called: safe as the name of a folder, of a key and in a shell."""
SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def safe_relpath(path: str) -> str:
    """The path itself, if it is a plain relative POSIX path that stays below any folder it is joined to; else UserErrorException.

    Refused: empty, absolute, "." or ".." or empty parts, backslashes, control characters, drive letters, percent-encoded dots
    and slashes, names that end in a dot or a space, more than 1,024 bytes, and what is not in Unicode's normal form C.
    """
    parts = path.split("/")
    lowered = path.lower()
    wrong = (
        not path
        or len(path.encode("utf-8", "surrogatepass")) > 1024
        or any(part in ("", ".", "..") or part[-1:] in (".", " ") for part in parts)
        or any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in path)
        or "\\" in path
        or any(code in lowered for code in ("%2e", "%2f", "%5c", "%25"))
        or parts[0][1:2] == ":"
        or unicodedata.normalize("NFC", path) != path
    )
    if wrong:
        raise UserErrorException(f"{path!r} is no safe relative path.", target=path[:200], hint="use plain names joined by '/'")
    return path


def below(folder: Path, path: str) -> Path:
    """folder/path, checked by name and by what links make of it."""
    target = folder.joinpath(*PurePosixPath(safe_relpath(path)).parts)
    real, root = os.path.realpath(target), os.path.realpath(folder)
    if os.path.commonpath([real, root]) != root:
        raise UserErrorException(f"{path!r} leads out of {folder} by a link.", target=path)
    return target


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
