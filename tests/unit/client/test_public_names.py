"""What the client offers: documented, on a page of the reference, and seen by type checkers."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trainyard
from deploy import cli_page, reference

INIT = Path(trainyard.__file__)
PUBLIC = {name: getattr(trainyard, name) for name in trainyard.__all__ if name != "VERSION"}
_REWRITTEN: set[str] = set()


def members(name: str, thing: Any) -> Iterator[tuple[str, Any]]:
    yield name, thing
    if not inspect.isclass(thing):
        return
    # What it inherits from the client's own classes is as much its own to whoever reads the reference.
    for inner in sorted({inner for base in thing.__mro__ if base.__module__.startswith("trainyard") for inner in vars(base)}):
        raw = inspect.getattr_static(thing, inner)
        found = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
        if not inner.startswith("_") and (inspect.isfunction(found) or isinstance(found, property) or inspect.isclass(found)):
            yield f"{name}.{inner}", found


EVERYTHING = {path: thing for name, value in PUBLIC.items() if value.__module__ not in _REWRITTEN for path, thing in members(name, value)}


@pytest.mark.parametrize("path", EVERYTHING)
def test_every_public_name_says_more_than_its_name(path: str) -> None:
    told = inspect.getdoc(EVERYTHING[path]) or ""

    words = set(re.findall(r"[a-z]+", told.lower())) - set(re.findall(r"[a-z]+", path.lower()))
    assert len(words) >= 2, f"{path}: {told!r}"


# Options of Azure's that mean nothing here, and two methods that refuse every call.
SWALLOW = {"Run.get_context", "Run.get_submitted_run", "Run.upload_files", "FileDataset.mount", "Model.package", "Model.profile"}
SWALLOW |= {f"Datastore.register_azure_{kind}" for kind in ("blob_container", "file_share")}


@pytest.mark.parametrize("path", [path for path, thing in EVERYTHING.items() if inspect.isfunction(thing) or inspect.isclass(thing)])
def test_a_misspelt_option_is_refused_and_every_option_has_a_type(path: str) -> None:
    thing = EVERYTHING[path]
    function = thing.__init__ if inspect.isclass(thing) else thing
    if not inspect.isfunction(function):
        return
    parameters = [it for it in inspect.signature(function).parameters.values() if it.name not in ("self", "cls")]

    swallowed = [it.name for it in parameters if it.kind is it.VAR_KEYWORD and not it.name.strip("_")]
    assert bool(swallowed) == (path in SWALLOW)
    assert not [it.name for it in parameters if it.annotation is it.empty]


def test_an_estimator_of_a_framework_names_all_options() -> None:
    assert inspect.signature(trainyard.TensorFlow) == inspect.signature(trainyard.Estimator)
    assert {"compute_target", "entry_script", "pip_packages", "framework_version"} <= inspect.signature(
        trainyard.TensorFlow
    ).parameters.keys()


def test_the_run_of_a_script_is_typed() -> None:
    assert inspect.get_annotations(trainyard.Run.get_context)["return"] == "ScriptRun | OfflineRun"


def test_every_name_stands_on_exactly_one_page_of_the_reference() -> None:
    listed = [name for names in reference.PAGES.values() for name in names]

    assert sorted(listed) == sorted(PUBLIC)


def test_type_checkers_see_every_lazy_name_where_it_is_defined() -> None:
    tree = ast.parse(INIT.read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING")
    seen = {alias.asname: f"{node.module}" for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}

    assert seen == {name: f"trainyard.{module}" for name, module in trainyard._NAMES.items()}
    assert (INIT.parent / "py.typed").is_file()


def test_the_commands_page_is_what_the_command_says() -> None:
    assert cli_page.PAGE.read_text("utf-8") == cli_page.page(), "run `python -m deploy.cli_page` and commit docs/cli.md"
