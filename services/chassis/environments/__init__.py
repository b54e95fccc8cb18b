"""Virtual environments by definition: built once with uv, kept in the cache, shared by whoever asks for the same."""

from services.chassis.environments.building import Environment, acquire, build, find
from services.chassis.environments.definition import Definition, definition
from services.chassis.environments.errors import BuildCanceled, BuildError
from services.chassis.environments.interpreter import Interpreter, probe
from services.chassis.environments.resolving import Resolved, resolve

__all__ = [
    "BuildCanceled",
    "BuildError",
    "Definition",
    "Environment",
    "Interpreter",
    "Resolved",
    "acquire",
    "build",
    "definition",
    "find",
    "probe",
    "resolve",
]
