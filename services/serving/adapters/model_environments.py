"""The environment that a deployment is served in: what its code asks for; or the model's own line of TensorFlow, and what the model server needs beside it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.chassis import environments
from services.chassis.environments import BuildError, Definition
from services.serving.adapters.server_environment import SERVER_PACKAGES
from services.serving.domain.model_version import ModelVersion
from services.serving.ports import CannotServe, Content, Say
from trainyard._environment_cache import Hold
from trainyard.event.v1.artifact_pb2 import Failure

_AT_ONCE = 4


class ModelEnvironments:
    def __init__(self, cache: Path) -> None:
        self._cache = cache
        # Model servers come and go; what they were started in stays in use as long as this service does.
        self._holds: dict[str, Hold] = {}
        # Threads of its own: those that publish events must not have to wait for builds.
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="model-environments")

    def is_there(self, content: Content) -> bool:
        try:
            definition = _definition(content, say=lambda _: None)
        except BuildError:
            return True  # there is nothing to build: `prepare` says why
        return definition is None or environments.find(definition, self._cache) is not None

    async def prepare(self, content: Content, say: Say) -> Path:
        canceled = threading.Event()

        def build() -> Path:
            try:
                definition = _definition(content, say)
                if definition is None:
                    return environments.probe(_interpreter(content)).python
                found, hold = environments.acquire(definition, self._cache, say, cancelled=canceled.is_set)
            except BuildError as error:
                lines = error.last_lines[-20:]
                raise CannotServe(
                    Failure(code=error.code, message=error.message[:3000], target=error.target[:1000], last_lines=lines)
                ) from error
            self._holds[found.id] = hold
            return found.python

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, build)
        finally:
            canceled.set()


def _interpreter(content: Content) -> str:
    return content.scoring.environment.interpreter_path if content.scoring is not None else ""


def _definition(content: Content, say: Say) -> Definition | None:
    """None: the user manages the Python. Raises BuildError."""
    if content.scoring is None:
        return definition_for(content.models[0], say)
    if _interpreter(content):
        return None
    resolved = environments.resolve(content.scoring.environment)
    for warning in resolved.warnings:
        say(f"environment: {warning}")
    return resolved.definition


def definition_for(version: ModelVersion, say: Say) -> Definition:
    """Of a version that is not supported a model may still load in the default one: that is told, not refused."""
    try:
        return environments.definition("tensorflow", version.framework_version, [], extra=SERVER_PACKAGES)
    except BuildError as error:
        say(f"framework_version {version.framework_version!r} of {version.id}: {error.message} Serving it with the default version.")
        return environments.definition("tensorflow", "", [], extra=SERVER_PACKAGES)
