"""docs/cli.md, from the command itself: `python -m deploy.cli_page`. A test compares the page with what this makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from trainyard._cli import app
from trainyard._cli.exits import MEANINGS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
_SHARED = ("--json", "--config", "--limit", "--page-token", "--all", "--since", "--as-of", "--help")
_INTRODUCTION = """\
# The command `trainyard`

Made from the command itself by `python -m deploy.cli_page`; do not edit.

- `--json`: JSON alone on standard output, one object a line for a list, one object else. Everything else goes to standard error.
- On a terminal a list is a table; in a pipe its lines are tab-separated, without header and colours.
- Lists: `--limit`, then `--page-token` (told on standard error where there is more) or `--all`; `--since` takes an ISO time or `90s`, `30m`, `2h`, `7d`.
- `--as-of`: a view as it was, at an ISO time, `2h` ago, or at a record, `TOPIC/PARTITION@OFFSET`.
- `--config`: another stack's config.json; else `TRAINYARD_CONFIG`, else the nearest one.
- `trainyard --install-completion` teaches the shell commands, options, and the names of runs, pools, models, datasets and endpoints.
- What comes from runs and events is shown with control characters escaped; in JSON they are JSON escapes.
"""


def page() -> str:
    """The page's text."""
    codes = "\n".join(f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items())
    parts = [_INTRODUCTION, f"## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}\n"]
    group = ""
    for path, command in commands(typer.main.get_command(app)):
        if len(path) > 1 and path[0] != group:
            group = path[0]
            parts.append(f"## {group}\n")
        parts.append(_section(path, command))
    return "\n".join(parts)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that lead to it; those of groups last."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in sorted(command.commands.items(), key=lambda item: hasattr(item[1], "commands")):
        yield from commands(inner, (*path, name))


def _section(path: tuple[str, ...], command: Any) -> str:
    arguments = [it for it in command.params if it.param_type_name == "argument"]
    options = [it for it in command.params if it.param_type_name == "option" and not set(it.opts) & set(_SHARED)]
    shared = [option for option in _SHARED for it in command.params if option in it.opts]
    usage = " ".join(["trainyard", *path, *(_placeholder(it) for it in arguments)])
    lines = [f"### `{' '.join(path)}`", "", str(command.help).strip(), "", f"    {usage}", ""]
    lines += [f"- `{_placeholder(it)}`: {it.help}" for it in arguments if it.help]
    lines += [f"- `{', '.join([*it.opts, *it.secondary_opts])}`: {it.help or it.name}" for it in options]
    lines += ["- also " + ", ".join(f"`{option}`" for option in shared)] if shared else []
    return "\n".join([*lines, ""])


def _placeholder(argument: Any) -> str:
    name = str(argument.name).upper() + ("..." if argument.nargs == -1 or argument.multiple else "")
    return name if argument.required else f"[{name}]"


def main() -> None:
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
