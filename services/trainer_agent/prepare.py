"""Before a script can start: its environment, its folder, its data. Each step is reported when it begins and when it is done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.chassis import environments
from services.trainer_agent.layout import Folders
from services.trainer_agent.ports import DataCache, PreparationFailed, SnapshotCache
from services.trainer_agent.telemetry import LogStream
from trainyard._errors import TrainyardException
from trainyard._paths import below
from trainyard.dataset.v1.dataset_pb2 import DatasetMaterialized
from trainyard.job.v1.spec_pb2 import DatasetInput


@dataclass(frozen=True)
class Prepared:
    python: Path
    inputs: Mapping[str, str]
    """Input name -> its folder, or its file where it is one file."""
    materialized: tuple[Any, ...]
    """A DatasetMaterialized for each registered dataset."""


@dataclass(frozen=True)
class Preparer:
    cache: Path
    snapshots: SnapshotCache
    data: DataCache
    build_seconds: float
    agent_id: str

    async def prepare(
        self, spec: Any, folders: Folders, phase: Callable[[str, str, bool], None], build_log: Callable[[], LogStream]
    ) -> Prepared:
        """`phase(name, detail, done)` reports; `build_log()` opens the log of a build that turns out to be needed.

        Raises PreparationFailed. When cancelled, a build that is under way is killed.
        """
        python = await self._environment(spec.environment, phase, build_log)
        phase("snapshot", "", False)
        phase("snapshot", await _in_thread(lambda stopped: self._source(spec.source, folders.code, stopped)), True)
        if not spec.inputs:
            return Prepared(python, {}, ())
        phase("data", ", ".join(item.name for item in spec.inputs), False)
        placed = [await _in_thread(lambda stopped, item=item: self._input(item, folders.data, stopped)) for item in spec.inputs]  # type: ignore[misc]
        phase("data", f"{sum(len(item.files) for item in spec.inputs)} files", True)
        return Prepared(
            python,
            {item.name: str(path) for item, (path, _) in zip(spec.inputs, placed, strict=True)},
            tuple(
                DatasetMaterialized(name=item.dataset, version=item.version, agent_id=self.agent_id, files=files)
                for item, (_, files) in zip(spec.inputs, placed, strict=True)
                if item.dataset
            ),
        )

    async def _environment(self, asked: Any, phase: Callable[[str, str, bool], None], build_log: Callable[[], LogStream]) -> Path:
        try:
            wanted = environments.definition(asked.framework, asked.framework_version, list(asked.pip_packages))
            found = environments.find(wanted, self.cache)
            phase("environment", f"{'found' if found else 'builds'} {wanted}", False)
            if found is None:
                found = await self._build(wanted, build_log())
            phase("environment", f"{'found in cache' if found.was_cached else 'built'}: {wanted.id}", True)
        except environments.BuildError as error:
            raise PreparationFailed(error.code, error.message, error.target, error.last_lines) from error
        return found.python

    async def _build(self, wanted: environments.Definition, output: LogStream) -> environments.Environment:
        loop, gone = asyncio.get_running_loop(), threading.Event()

        def say(line: str) -> None:
            loop.call_soon_threadsafe(output.write, [line])

        def build() -> environments.Environment:
            return environments.build(wanted, self.cache, say, deadline_seconds=self.build_seconds, cancelled=gone.is_set)

        try:
            return await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(build)))
        finally:
            gone.set()
            # Lines that the thread has handed over are written before the log is closed.
            await asyncio.sleep(0)
            output.close()

    def _source(self, source: Any, code: Path, stopped: Callable[[], bool]) -> str:
        if source.WhichOneof("where") == "snapshot":
            fetched = self.snapshots.unpack(source.snapshot, code, stopped)
            return f"{len(source.snapshot.files)} files, {fetched} of them fetched"
        for path, content in source.inline.files.items():
            target = below(code, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return f"{len(source.inline.files)} files from the request"

    def _input(self, item: Any, data: Path, stopped: Callable[[], bool]) -> tuple[Path, list[Any]]:
        root = below(data, item.name)
        writable = item.mode == DatasetInput.MODE_DOWNLOAD
        files = self.data.place([(file, below(root, file.path)) for file in item.files], writable=writable, stopped=stopped)
        return (root if len(files) != 1 else below(root, files[0].path)), files


async def _in_thread(work: Callable[[Callable[[], bool]], Any]) -> Any:
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
