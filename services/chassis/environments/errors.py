"""Why an environment is not there, in words that a person can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_KEPT_LINES = 20
_MESSAGE_CHARACTERS = 1500
_NAME = r"`?([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
# Where uv names the package at fault; the first that fits counts.
_AT_FAULT = [
    re.compile(pattern)
    for pattern in (
        rf"{_NAME} was not found in",
        rf"Failed to (?:build|download|download and build|install:?) {_NAME}",
        rf"no versions? of {_NAME}",
        rf"{_NAME}(?:[=<>!~][^ ]*)? has no ",
        rf"you require {_NAME}",
    )
]


class BuildError(Exception):
    """`code` is "UserError" (the definition cannot be), "EnvironmentBuildFailed" or "EnvironmentBuildTimedOut"; `target` the package
    at fault, where one is named; `last_lines` the end of uv's output."""

    def __init__(self, code: str, message: str, *, target: str = "", last_lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.target = target
        self.last_lines = list(last_lines)


class BuildCanceled(BuildError):
    """The caller's `cancelled()` said so; code "Canceled"."""


def build_failed(lines: Sequence[str]) -> BuildError:
    """From the whole output of a uv that failed."""
    reason = _reason(lines)
    found = next((match for pattern in _AT_FAULT if (match := pattern.search(reason))), None)
    return BuildError(
        "EnvironmentBuildFailed",
        f"The environment cannot be built. {reason}"[:_MESSAGE_CHARACTERS],
        target=found[1] if found else "",
        last_lines=lines[-_KEPT_LINES:],
    )


def _reason(lines: Sequence[str]) -> str:
    """uv says "error: ..." and below it "cause: ..." lines; a blank line ends what is worth repeating in a sentence."""
    first = next((index for index, line in enumerate(lines) if line.startswith("error: ")), None)
    if first is None:
        return " ".join(line.strip(" ×╰─▶│├") for line in lines[-3:])
    return "".join(_joined(lines[first:]))


def _joined(lines: Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        text = line.strip()
        if not text:
            return
        if number:
            yield ": " if text.startswith("cause: ") else " "
        yield text.removeprefix("error: ").removeprefix("cause: ")
