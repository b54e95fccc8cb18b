"""Virtual environments by definition: built once with uv, kept in the cache, shared by whoever asks for the same."""

from services.chassis.environments.building import Environment, build, find
from services.chassis.environments.definition import Definition, definition
from services.chassis.environments.errors import BuildCanceled, BuildError

__all__ = ["BuildCanceled", "BuildError", "Definition", "Environment", "build", "definition", "find"]
