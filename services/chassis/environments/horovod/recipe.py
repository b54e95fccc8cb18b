"""What a Horovod of ours is made of, and by what it is known: its source, our changes to it, and the TensorFlow it is made for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from services.chassis.environments.errors import BuildError

VERSION = "0.28.1"
SOURCE_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
_HERE = Path(__file__).parent
ADDED = _HERE / "added"
_EVERYWHERE = ("build", "rendezvous", "elastic", "keras")
_PATCHES = {"2.15.1": _EVERYWHERE, "2.21.0": (*_EVERYWHERE, "tensorflow-2.21")}
_TENSORFLOW = ("tensorflow", "tensorflow-cpu")
_SERVED = "Horovod runs with TensorFlow 2.15.1 (framework_version 2.15 or none, and 1.x and 2.0 to 2.14, which it serves) and 2.21"


@dataclass(frozen=True)
class Recipe:
    """Two equal recipes are one wheel for each Python and platform."""

    tensorflow: str

    @property
    def patches(self) -> tuple[Path, ...]:
        """Unified diffs, in the order in which they are applied."""
        return tuple(_HERE / "patches" / f"{name}.patch" for name in _PATCHES[self.tensorflow])

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits over all that is ours in it, and the names of the rest."""
        ours = {str(path.relative_to(_HERE)): path.read_text("utf-8") for path in (*self.patches, *sorted(ADDED.rglob("*.py")))}
        return hashlib.sha256(json.dumps([VERSION, SOURCE_SHA256, self.tensorflow, ours], sort_keys=True).encode()).hexdigest()

    @property
    def local_version(self) -> str:
        return f"trainyard.{self.fingerprint[:12]}"

    @property
    def requirement(self) -> str:
        """What no index has: only this wheel satisfies it."""
        return f"horovod=={VERSION}+{self.local_version}"


def recipe_of(requirements: Sequence[str]) -> Recipe | None:
    """The recipe whose wheel these requirements name."""
    named = {recipe.requirement: recipe for recipe in map(Recipe, _PATCHES)}
    return next((named[text] for text in requirements if text in named), None)


def with_horovod(requirements: Sequence[str], wanted: bool) -> list[str]:
    """The requirements with Horovod's wheel of ours in place of whichever Horovod they name; added where it is `wanted`.

    Raises BuildError with code "UserError" where there is no Horovod for their TensorFlow. A run that wants a ring without naming
    Horovod or TensorFlow gets MPI's variables and no wheel.
    """
    by_name = {text: _name(text) for text in requirements}
    named = [text for text, name in by_name.items() if name == "horovod"]
    tensorflow = next((text for text, name in by_name.items() if name in _TENSORFLOW), None)
    if not named and not (wanted and tensorflow):
        return list(requirements)
    pins = {version: text for version in _PATCHES for text in requirements if text in {f"{name}=={version}" for name in _TENSORFLOW}}
    if not pins:
        have = f"this environment has {tensorflow}" if tensorflow else "this environment names no TensorFlow"
        raise BuildError("UserError", f"{_SERVED}; {have}. Choose one of those by framework_version.", target=tensorflow or "horovod")
    return [*(text for text in requirements if text not in named), Recipe(next(iter(pins))).requirement]


def stands_in_for(requirement: str) -> bool:
    """Is it a Horovod other than the one that we build, which takes its place?"""
    parsed = Requirement(requirement)
    return parsed.name.lower() == "horovod" and (
        VERSION not in parsed.specifier or bool(parsed.extras - {"tensorflow", "keras", "tensorflow-cpu"})
    )


def _name(requirement: str) -> str:
    try:
        return Requirement(requirement).name.lower()
    except InvalidRequirement:
        return ""
