"""What a deployment's server finds on this node: a SavedModel, a TFLite model, or the working folder of its code with AZUREML_MODEL_DIR beside it."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.serving.adapters.model_files import CachedModelFiles
from services.serving.adapters.sources import CachedSources
from services.serving.domain.model_version import TFLITE, served_file
from services.serving.model_server.options import TFLITE_FILE
from services.serving.ports import CannotServe, Content, Fetched, ModelFolder, Say
from trainyard.event.v1.artifact_pb2 import Failure

_AT_ONCE = 4


class DeploymentFiles:
    """`<home>/endpoints/<endpoint>-<deployment>/{code,azureml-models}` for code, and `.../lite` for a TFLite model; models stay in the cache,
    and are linked to."""

    def __init__(self, models: CachedModelFiles, sources: CachedSources, home: Path) -> None:
        self._models = models
        self._sources = sources
        self._folder = home / "endpoints"
        # Threads of its own: those that publish events must not have to wait for downloads.
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="deployment-files")

    async def fetch(self, content: Content, say: Say) -> Fetched:
        folders = [await self._models.fetch(version, say) for version in content.models]
        if content.scoring is None:
            (only,) = folders
            if not (file := served_file(content.models[0].files)).endswith(TFLITE):
                return Fetched(only.path, only.digest)
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._lay_out_lite, content, only, file)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._lay_out, content, folders)

    async def discard(self, content: Content) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, lambda: shutil.rmtree(self._of(content), ignore_errors=True))

    def _lay_out_lite(self, content: Content, model: ModelFolder, file: str) -> Fetched:
        """The file under the name that the model server knows, and what lies beside it: how it batches, what it is warmed up with."""
        place = self._of(content)
        shutil.rmtree(place, ignore_errors=True)
        lite = place / "lite"
        lite.mkdir(parents=True)
        (lite / TFLITE_FILE).symlink_to(model.whole / file)
        if "/" in file:
            for beside in model.path.iterdir():
                if beside.name not in (TFLITE_FILE, Path(file).name):
                    (lite / beside.name).symlink_to(beside)
        return Fetched(lite, model.digest)

    def _lay_out(self, content: Content, folders: list[ModelFolder]) -> Fetched:
        assert content.scoring is not None
        place = self._of(content)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        code = place / "code"
        self._sources.copy(content.scoring.source, code)
        script = content.scoring.entry_script
        if not (code / script).is_file():
            there = ", ".join(sorted(it.relative_to(code).as_posix() for it in code.rglob("*") if it.is_file())[:10]) or "no files"
            what = f"The source folder has no {script!r}; it has: {there}."
            raise CannotServe(Failure(code="UserError", message=what[:3000], target=script))
        model_dir = place / "azureml-models"
        model_dir.mkdir()
        for version, folder in zip(content.models, folders, strict=True):
            link = model_dir / version.model / str(version.version)
            link.parent.mkdir()
            link.symlink_to(folder.whole, target_is_directory=True)
        if len(content.models) == 1:  # as Azure has it: of one model the folder is the version's own
            model_dir = model_dir / content.models[0].model / str(content.models[0].version)
        return Fetched(code, _digest([folder.digest for folder in folders]), model_dir)

    def _of(self, content: Content) -> Path:
        return self._folder / f"{content.endpoint}-{content.deployment}"


def _digest(digests: list[str]) -> str:
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
