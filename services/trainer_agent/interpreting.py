"""The Python that a script is started with: built, found in the cache, or the user's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.chassis import environments
from services.trainer_agent.ports import PreparationFailed
from services.trainer_agent.telemetry import LogStream
from trainyard._environment_cache import Hold
from trainyard._objects import Objects

Phase = Callable[[str, str, bool], None]


@dataclass(frozen=True)
class ScriptPython:
    """`hold` keeps a cached environment from being removed; whoever is done with it releases it."""

    path: Path
    prefix: Path
    tensorflow_1: bool = False
    has_azureml: bool = False
    warnings: tuple[str, ...] = ()
    hold: Hold | None = None

    def release(self) -> None:
        if self.hold is not None:
            self.hold.release()


async def interpret(
    asked: Any,
    cache: Path,
    build_seconds: float,
    phase: Phase,
    build_log: Callable[[], LogStream],
    *,
    horovod: bool = False,
    objects: Objects | None = None,
) -> ScriptPython:
    """`asked` is an EnvironmentSpec; `horovod`: its run is a ring; `objects`: where nodes share what they compile. Raises PreparationFailed; when cancelled, a build that is under way is killed."""
    try:
        if asked.interpreter_path:
            return await _own(asked, phase)
        wanted = await asyncio.to_thread(environments.resolve, asked, horovod=horovod)
        there = environments.find(wanted.definition, cache) is not None
        phase("environment", f"{'found' if there else 'builds'} {wanted.definition}", False)
        if not there:
            await _build(wanted.definition, cache, build_seconds, build_log(), objects)
        found, hold = await asyncio.to_thread(
            environments.acquire, wanted.definition, cache, _ignore, deadline_seconds=build_seconds, objects=objects
        )
        phase("environment", f"{'found in cache' if there else 'built'}: {wanted.definition.id}", True)
    except environments.BuildError as error:
        raise PreparationFailed(error.code, error.message, error.target, error.last_lines) from error
    has_azureml = any(found.root.glob("lib/python*/site-packages/azureml/core"))
    return ScriptPython(found.python, found.root, wanted.tensorflow_1, has_azureml, wanted.warnings, hold)


async def _own(asked: Any, phase: Phase) -> ScriptPython:
    phase("environment", f"looks at {asked.interpreter_path}", False)
    found = await asyncio.to_thread(environments.probe, asked.interpreter_path)
    phase("environment", f"uses {found.python}, which its user manages", True)
    ignored = [name for name in ("pip_packages", "conda_specification", "framework_version") if getattr(asked, name)]
    warnings = (f"{found.python} is used as it is: {', '.join(ignored)} had no effect",) if ignored else ()
    return ScriptPython(found.python, found.prefix, has_azureml=found.has_azureml, warnings=warnings)


async def _build(
    wanted: environments.Definition, cache: Path, build_seconds: float, output: LogStream, objects: Objects | None
) -> environments.Environment:
    loop, gone = asyncio.get_running_loop(), threading.Event()

    def say(line: str) -> None:
        loop.call_soon_threadsafe(output.write, [line])

    def build() -> environments.Environment:
        return environments.build(wanted, cache, say, deadline_seconds=build_seconds, cancelled=gone.is_set, objects=objects)

    try:
        return await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(build)))
    finally:
        gone.set()
        # Lines that the thread has handed over are written before the log is closed.
        await asyncio.sleep(0)
        output.close()


def _ignore(line: str) -> None:
    """What was to be said has been said by the build before."""
