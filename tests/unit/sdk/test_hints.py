"""Each code of a failure that a service can give has a next step; codes are found in the source, so that a new one is not forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import services
from trainyard._errors import from_failure
from trainyard._hints import HINTS
from trainyard.event.v1.artifact_pb2 import Failure

ROOT = Path(services.__file__).parent
# Codes of what never leaves a service, and of a made-up run in a simulation.
INNER = {"Canceled", "PreparationFailed"}
# The statuses of gRPC and HTTP go by `code` too.
OTHERS = ("model_server", "scoring_server", "door")

TREES = {path: ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py") if not set(OTHERS) & set(path.relative_to(ROOT).parts)}


def _makers() -> dict[str, set[int]]:
    """Whatever takes a `code: str`, by the places where it may stand; of a class by its __init__."""
    found: dict[str, set[int]] = {"Failure": set()}
    for tree in TREES.values():
        for node in ast.walk(tree):
            inside = node.body if isinstance(node, ast.ClassDef) else []
            methods = [(node.name, it) for it in inside if isinstance(it, ast.FunctionDef) and it.name == "__init__"]  # type: ignore[attr-defined]
            for name, function in methods or ([(node.name, node)] if isinstance(node, ast.FunctionDef) else []):
                names = [it.arg for it in function.args.args if it.arg != "self"]
                typed = [it for it in function.args.args if it.arg == "code" and getattr(it.annotation, "id", "") == "str"]
                if typed:
                    found.setdefault(name, set()).add(names.index("code"))
    return found


def _values() -> dict[str, set[str]]:
    """Texts by the name that they are given anywhere: codes are named where several files need them."""
    pairs: list[tuple[ast.AST, ast.AST]] = []
    for node in (node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.Assign)):
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs += zip(target.elts, node.value.elts, strict=False)
            else:
                pairs.append((target, node.value))
    found: dict[str, set[str]] = {}
    for _ in range(2):  # the second time by names of names
        for name, value in pairs:
            if isinstance(name, ast.Name) and (texts := set(_texts(value, found))):
                found.setdefault(name.id, set()).update(texts)
    return found


def _texts(node: ast.AST, values: Mapping[str, set[str]] | None = None) -> Iterator[str]:
    """What an expression may come to, without the conditions in it."""
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body, values)
        yield from _texts(node.orelse, values)
    elif isinstance(node, ast.Name) and values is not None:
        yield from values.get(node.id, ())
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _codes() -> dict[str, str]:
    """Code -> where."""
    makers, values = _makers(), _values()
    found: dict[str, str] = {}
    for path, tree in TREES.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            given = [it.value for it in call.keywords if it.arg == "code"]
            given += [call.args[at] for at in makers.get(name, ()) if at < len(call.args)]
            for argument in given:
                for code in _texts(argument, values):
                    if code[:1].isupper() and code.isalnum():
                        found[code] = f"{path.relative_to(ROOT.parent)}:{call.lineno}"
    return found


CODES = _codes()


def test_the_codes_are_found_however_they_are_given() -> None:
    by_keyword, by_position, by_name, by_choice = "NotASavedModel", "HistoryBehind", "ScriptKilled", "ScoringScriptFailed"

    assert {by_keyword, by_position, by_name, by_choice} <= CODES.keys()


@pytest.mark.parametrize("code", sorted(CODES.keys() - INNER))
def test_every_failure_of_a_service_comes_with_a_next_step(code: str) -> None:
    error = from_failure(Failure(code=code, message="it failed"))

    assert error.hint, f"{code} ({CODES[code]}) has no hint: add one to trainyard/_hints.py"
    assert f"what to do: {error.hint}" in str(error)


def test_no_hint_is_kept_for_a_code_that_nobody_gives() -> None:
    assert HINTS.keys() <= CODES.keys()
