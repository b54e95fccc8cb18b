"""Before a script can start: its environment, its folder, its data. Each step is reported when it begins and when it is done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer_agent.horovod.shadows import what_shadows
from services.trainer_agent.inputs import Inputs, Placed
from services.trainer_agent.interpreting import ScriptPython, interpret
from services.trainer_agent.layout import Folders
from services.trainer_agent.ports import DataCache, PreparationFailed, SnapshotCache
from services.trainer_agent.telemetry import LogStream
from trainyard._errors import TrainyardException
from trainyard._objects import Objects
from trainyard._paths import below
from trainyard.dataset.v1.dataset_pb2 import DatasetMaterialized

# Of what an event holds; other fields take little.
_BYTES_OF_FILES, _BYTES_OF_A_FIELD = 900_000, 8


@dataclass(frozen=True)
class Prepared:
    python: ScriptPython
    inputs: Mapping[str, str]
    """Input name -> its folder, or its file where it is one file."""
    materialized: tuple[Any, ...]
    """DatasetMaterialized of each registered dataset: several where one event has no room for all of its files."""


@dataclass(frozen=True)
class Preparer:
    cache: Path
    snapshots: SnapshotCache
    data: DataCache
    build_seconds: float
    agent_id: str
    objects: Objects | None = None
    """Where nodes share what they compile."""

    async def prepare(
        self,
        spec: Any,
        folders: Folders,
        phase: Callable[[str, str, bool], None],
        build_log: Callable[[], LogStream],
        data_log: Callable[[str], None],
    ) -> Prepared:
        """`phase(name, detail, done)` reports; `build_log()` opens the log of a build that turns out to be needed; `data_log` gets lines
        while data are fetched that take long.

        Raises PreparationFailed. When cancelled, a build that is under way is killed.
        """
        is_ring = spec.distribution.WhichOneof("kind") == "horovod"
        python = await interpret(spec.environment, self.cache, self.build_seconds, phase, build_log, horovod=is_ring, objects=self.objects)
        phase("snapshot", "", False)
        phase("snapshot", await in_thread(lambda stopped: self._source(spec.source, folders.code, stopped)), True)
        if is_ring and (shadow := what_shadows(folders.code, spec.entry_script)):
            raise PreparationFailed(
                "UserError",
                f"{shadow} of the source stands in the way of the package of that name: `import` would find it instead. Rename it.",
                shadow,
            )
        if not spec.inputs:
            return Prepared(python, {}, ())
        phase("data", ", ".join(item.name for item in spec.inputs), False)
        inputs = Inputs(self.data, folders, _on_loop(data_log))
        placed = [await in_thread(lambda stopped, item=item: inputs.place(item, stopped)) for item in spec.inputs]  # type: ignore[misc]
        phase("data", f"{sum(len(it.files) for it in placed)} files", True)
        return Prepared(
            python,
            {item.name: str(it.path) for item, it in zip(spec.inputs, placed, strict=True)},
            tuple(fact for item, it in zip(spec.inputs, placed, strict=True) if item.dataset for fact in _told(item, it, self.agent_id)),
        )

    def _source(self, source: Any, code: Path, stopped: Callable[[], bool]) -> str:
        if source.WhichOneof("where") == "snapshot":
            files, fetched = self.snapshots.unpack(source.snapshot, code, stopped)
            return f"{files} files, {fetched} of them fetched"
        for path, content in source.inline.files.items():
            target = below(code, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return f"{len(source.inline.files)} files from the request"


def _told(item: Any, placed: Placed, agent_id: str) -> Iterator[DatasetMaterialized]:
    if not placed.is_as_listed:
        for some in _in_parts(placed.files):
            yield DatasetMaterialized(name=item.dataset, version=item.version, agent_id=agent_id, files=some)
        return
    yield DatasetMaterialized(
        name=item.dataset,
        version=item.version,
        agent_id=agent_id,
        manifest_key=item.manifest_key,
        manifest_sha256=item.manifest_sha256,
        count=len(placed.files),
        steps=item.steps,
    )


def _in_parts(files: Sequence[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    size = 0
    for file in files:
        if some and size + file.ByteSize() > _BYTES_OF_FILES:
            yield some
            some, size = [], 0
        some.append(file)
        size += file.ByteSize() + _BYTES_OF_A_FIELD
    if some:
        yield some


def _on_loop(say: Callable[[str], None]) -> Callable[[str], None]:
    """For threads: `say` itself is called on the loop."""
    loop = asyncio.get_running_loop()

    def hand_over(line: str) -> None:
        loop.call_soon_threadsafe(say, line)

    return hand_over


async def in_thread(work: Callable[[Callable[[], bool]], Any]) -> Any:
    """What the platform's parts raise becomes a failure of the preparation. A thread cannot be cancelled: `work` is given what to look at."""
    gone = threading.Event()
    try:
        return await asyncio.to_thread(work, gone.is_set)
    except TrainyardException as error:
        raise PreparationFailed(error.code, error.message, error.target) from error
    except OSError as error:
        raise PreparationFailed("NodeError", f"The node could not prepare the run: {error}", str(error.filename or "")) from error
    finally:
        gone.set()
