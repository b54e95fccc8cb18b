"""What the command's exit codes mean: the one table, for the code, `--help` and the docs."""

from __future__ import annotations

from enum import IntEnum

from trainyard._errors import PlatformUnavailableException, TrainyardException


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    RUN_FAILED = 4
    UNAVAILABLE = 5
    DIFFERENT = 6
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "the platform refused it, or something went wrong on the way",
    Exit.USAGE: "what was asked for cannot be taken as it is",
    Exit.NOT_FOUND: "the run, model, dataset ... does not exist",
    Exit.RUN_FAILED: "the run (or deployment) that was waited for ended badly",
    Exit.UNAVAILABLE: "a part of the platform does not answer",
    Exit.DIFFERENT: "a replay's answers differ from those before, or are missing",
    Exit.INTERRUPTED: "Ctrl-C; what was started goes on",
}
_UNAVAILABLE_CODES = ("Unavailable", "DeadlineExceeded")


def of(error: TrainyardException) -> Exit:
    """The exit code of an error."""
    if isinstance(error, PlatformUnavailableException) or error.code in _UNAVAILABLE_CODES:
        return Exit.UNAVAILABLE
    if error.code.endswith("NotFound"):
        return Exit.NOT_FOUND
    return Exit.USAGE if error.code == "UserError" else Exit.FAILED


def told() -> str:
    """For `--help`: one line a code."""
    return "Exit codes:\n\n" + "\n\n".join(f"{int(code)}  {meaning}" for code, meaning in MEANINGS.items())
