import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from trainyard._cli import app, stack

REPO = Path(__file__).resolve().parents[3]


def test_every_command_that_a_message_names_is_there() -> None:
    root = typer.main.get_command(app)
    named = {
        tuple(found.split())
        for folder in ("sdk", "services", "deploy", "docs")
        for file in (REPO / folder).rglob("*")
        if file.suffix in (".py", ".md")
        for found in re.findall(r"`trainyard ((?:[a-z]+ ?)+)", file.read_text("utf-8"))
    }

    missing = [words for words in named if not _is_there(root, words)]

    assert named
    assert missing == []


def _is_there(command: object, words: tuple[str, ...]) -> bool:
    groups = getattr(command, "commands", None)
    if groups is None or not words:
        return True
    return words[0] in groups and _is_there(groups[words[0]], words[1:])


@pytest.mark.parametrize("verb", ["up", "down"])
def test_the_help_of_a_command_of_the_local_stack_is_the_local_stacks(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(stack, "_stack", lambda verb, arguments, as_json: passed.append((verb, arguments)))

    CliRunner().invoke(app, [verb, "--help"])

    assert passed == [(verb, ["--help"])]
